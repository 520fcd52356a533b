"""Compare a form of a model with the tuned model itself, token by token.

The tuned model writes its most likely reply to some prompts. A form of it is then asked, after each prefix of
these replies, for its own most likely next token: the share that is equal says how near it is, without one
other token making all later ones count as others.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import ModelSource
from tunesmith.engines.files import ModelFiles
from tunesmith.tokens.chat import ChatTokenizer

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 128
"""Maximum tokens of a reply that is compared."""
LEAST_SHARE, LEAST_OF_FEW_BITS = 0.8, 0.5
"""A form that agrees with less than this share of tokens is not the model any more; of one below 8 bits."""
_CERTAIN = 1e6
# By how much the logits of two tokens may differ while rounding decides between them.
_UNDECIDED = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}


@dataclass(frozen=True, slots=True)
class ProofPrompt:
    """A prompt as text and tokens, and the most tokens of its reply. `messages` are what it renders."""

    text: str
    ids: tuple[int, ...]
    most: int
    messages: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TunedReply:
    """The tuned model's most likely reply; `gaps` are its logit of each token less that of the runner-up."""

    prompt: ProofPrompt
    ids: tuple[int, ...]
    gaps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many tokens of the tuned model's replies a form writes too.

    `undecided` are unequal ones between which the tuned model itself was undecided, up to rounding.
    """

    prompts: int
    tokens: int
    equal: int
    undecided: int

    @property
    def share(self) -> float:
        """Return the share of equal tokens."""
        return self.equal / self.tokens if self.tokens else 0.0

    @property
    def same(self) -> bool:
        """Return whether replies are the same but for rounding."""
        return self.tokens > 0 and self.equal + self.undecided == self.tokens


def compare(replies: Sequence[TunedReply], theirs: Iterable[Sequence[int]], dtype: str) -> Agreement:
    """Count where a form's next tokens are those of the tuned model, which computes in `dtype`."""
    tokens = equal = undecided = 0
    for reply, found in zip(replies, theirs, strict=True):
        for ours, other, gap in zip(reply.ids, found, reply.gaps, strict=True):
            tokens += 1
            equal += ours == other
            undecided += ours != other and gap < _UNDECIDED[dtype]
    return Agreement(len(replies), tokens, equal, undecided)


def tuned_replies(
    files: ModelFiles, source: ModelSource, prompts: Sequence[ProofPrompt], day: date
) -> list[TunedReply]:
    """Return the tuned model's replies. Loads the model: run it in a process of its own."""
    import torch

    from tunesmith.engines.hf.load import load_for_generation

    tokenizer = ChatTokenizer.load(files.tokenizer, trust_remote_code=source.trust_remote_code, today=day)
    model = load_for_generation(files, source)
    found = []
    with torch.no_grad():
        for prompt in prompts:
            ids = _greedy(model, prompt, sorted(tokenizer.stop_ids))
            best = _logits(model, prompt, ids).topk(2).values
            gaps = tuple(float(row[0] - row[1]) for row in best)
            found.append(TunedReply(prompt, ids, gaps))
    _forget(model)
    return found


def next_tokens(files: ModelFiles, source: ModelSource, replies: Sequence[TunedReply]) -> list[list[int]]:
    """Return what a model in safetensors would write after each prefix of the replies. Loads the model."""
    import torch

    from tunesmith.engines.hf.load import load_for_generation

    model = load_for_generation(files, source)
    with torch.no_grad():
        found = [_logits(model, reply.prompt, reply.ids).argmax(-1).tolist() for reply in replies]
    _forget(model)
    return found


def _greedy(model: Any, prompt: ProofPrompt, ends: Sequence[int]) -> tuple[int, ...]:
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=min(prompt.most, MOST_TOKENS),
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=min(ends, default=0),
    )
    ids = torch.tensor([prompt.ids], device=model.device)
    made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(made[0].tolist()[len(prompt.ids) :])


def _logits(model: Any, prompt: ProofPrompt, reply: Sequence[int]) -> torch.Tensor:
    """Return the logits before each token of the reply, [tokens, vocabulary], in float32."""
    import torch

    ids = torch.tensor([[*prompt.ids, *reply]], device=model.device)
    logits: torch.Tensor = model(ids, logits_to_keep=len(reply) + 1).logits[0]
    return logits[-len(reply) - 1 : -1].float().cpu()


def _forget(model: Any) -> None:
    import torch

    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class GgufTokens:
    """What llama.cpp makes of a GGUF file: its next tokens, and how it reads prompts.

    `tokenised`: it splits the prompts into the same tokens. `rendered`: its template gives the same ones.
    `stops`: it ends a reply by itself at every token that ends one in training.
    """

    next_tokens: list[list[int]]
    tokenised: bool
    rendered: bool
    stops: bool


def gguf_tokens(path: Path, replies: Sequence[TunedReply], ends: Sequence[int]) -> GgufTokens:
    """Return what llama.cpp would write after each prefix of the replies. Loads the file.

    `ends` are the tokens that end a reply in training.
    """
    from tunesmith.engines.llama_cpp.server import GgufServer

    longest = max(len(reply.prompt.ids) + len(reply.ids) for reply in replies)
    server = GgufServer(path, context=longest + 8)
    found = []
    for reply in replies:
        ids = [*reply.prompt.ids, *reply.ids]
        start = len(reply.prompt.ids)
        after = (server.complete(ids[:end], 1).tokens for end in range(start, len(ids)))
        found.append([each[0] if each else -1 for each in after])
    prompts = [reply.prompt for reply in replies]
    tokenised = all(server.tokenize(prompt.text) == list(prompt.ids) for prompt in prompts)
    rendered = all(
        server.tokenize(server.render(prompt.messages), special=True) == list(prompt.ids)
        for prompt in prompts
        if prompt.messages
    )
    stops = all(server.complete(prompts[0].ids, 2, **_only(end)).ended for end in ends)
    return GgufTokens(found, tokenised, rendered, stops)


def _only(token: int) -> dict[str, Any]:
    """Return llama.cpp's setting that leaves a model no other token to write."""
    return {"logit_bias": [[token, _CERTAIN]]}
