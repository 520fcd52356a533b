"""llama.cpp's own server over a GGUF file, in this process: tokens in, tokens out.

Does not depend on messages and replies. The server listens on this machine only and goes with the process.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError

_SECONDS = 3600.0
"""How long one answer may take."""


@dataclass(frozen=True, slots=True)
class NextTokens:
    """The tokens that follow a prompt, including the one that ended them, if one did."""

    tokens: tuple[int, ...]
    ended: bool


def threads() -> int:
    """Return the threads to compute with: OMP_NUM_THREADS, else all cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))


class GgufServer:
    """A model in memory. `context` tokens for each of the sequences that are computed at once."""

    def __init__(self, path: Path, *, context: int, at_once: int = 1) -> None:
        """Load the model. Raises ModelError."""
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel = context * at_once, at_once
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads()
        settings.verbosity, settings.warmup = -1, False
        settings.hostnames, settings.port = ["127.0.0.1"], 0
        try:
            self._server = xllamacpp.Server(settings)
        except Exception as error:  # whatever the library raises
            raise ModelError(f"llama.cpp cannot load {path.name}: {error}") from error
        self._address = self._server.listening_address

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Return the tokens of a rendered prompt; control tokens in it are read as such.

        `special` adds what the file says a text begins with, as is done for chats.
        """
        asked = {"content": text, "add_special": special, "parse_special": True}
        return [int(each) for each in self._ask("/tokenize", asked)["tokens"]]

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """Return the prompt that the file's own chat template makes of a conversation."""
        return str(self._ask("/apply-template", {"messages": list(messages)})["prompt"])

    def complete(self, prompt: Sequence[int], most: int, **sampling: Any) -> NextTokens:
        """Return at most `most` tokens that follow; greedy, unless `sampling` has llama.cpp's settings."""
        asked = {
            "prompt": list(prompt),
            "n_predict": most,
            "temperature": 0.0,
            "return_tokens": True,
            "cache_prompt": True,
            **sampling,
        }
        answer = self._ask("/completion", asked)
        return NextTokens(tuple(answer["tokens"]), answer.get("stop_type") == "eos")

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_SECONDS) as response:
                answer: dict[str, Any] = json.loads(response.read())
        except OSError as error:
            raise ModelError(f"llama.cpp's server did not answer {path}: {error}.") from error
        return answer
