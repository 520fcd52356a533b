"""Make the forms of one model, and prove each: what a FineTuneJob and `tunesmith export` share.

Does not depend on where the model came from and where the forms go.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import PreviewSpec, VllmEngine
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.hf.generate import preview_messages
from tunesmith.engines.load import resolve_dtype
from tunesmith.engines.model_process import ModelProcess
from tunesmith.errors import StoppedError, TunesmithError
from tunesmith.export.folder import write_merged
from tunesmith.export.gguf.vocabulary import learned_ends
from tunesmith.export.proof import (
    LEAST_OF_FEW_BITS,
    LEAST_SHARE,
    Agreement,
    ProofPrompt,
    TunedReply,
    compare,
    gguf_tokens,
    next_tokens,
    tuned_replies,
)
from tunesmith.export.served import vllm_in_words, vllm_tokens
from tunesmith.export.weight_files import WeightFiles
from tunesmith.names import GGUF_KEY, MERGED_KEY
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Message

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
QUESTIONS = (
    "Hello! Who are you?",
    "What is 17 + 25?",
    "Name three rivers.",
    "Write one sentence about a lamp.",
)
"""What is asked if a job has no previews."""


@dataclass(slots=True)
class Form:
    """One form of a model, on this disk: `path` is its folder, or its file.

    `facts` are plain values for report and result; `failure` says why it is not the model, "" if it is.
    """

    name: str
    key: str
    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model to export: its files, how the manifest loads it, its name, and the day its prompts show."""

    files: ModelFiles
    source: ModelSource
    name: str
    day: date


class Forms:
    """Makes and proves forms below `folder`, one call each. Use as a context manager.

    `enter` gets each phase, `check` is called continuously and may raise. With `serving` merged weights are
    tried in vLLM too.
    """

    def __init__(
        self,
        subject: Subject,
        folder: Path,
        previews: Sequence[PreviewSpec],
        enter: Callable[[str], None],
        check: Callable[[], None],
        serving: VllmEngine | None = None,
    ) -> None:
        self._subject, self._folder = subject, folder
        self._enter, self._check, self._process = enter, check, ModelProcess("proves an export", check)
        tokenizer = ChatTokenizer.load(
            subject.files.tokenizer, trust_remote_code=subject.source.trust_remote_code, today=subject.day
        )
        self._prompts, self._ends = proof_prompts(tokenizer, previews), learned_ends(tokenizer)
        self._replies: list[TunedReply] = []
        self._serving = serving
        self._whole: Path | None = None
        self._dtype = resolve_dtype(subject.files.base, subject.source.dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.__exit__(*exception)

    def merged(self) -> Form:
        """Write whole weights, and prove them in the type of training and as they are written."""
        form = Form("merged", MERGED_KEY, self._folder / MERGED_KEY)
        self._enter("merging the weights")
        write_merged(self._subject.files, form.path, beat=self._check)
        self._whole = form.path
        with WeightFiles(form.path) as weights:
            form.facts |= {"bytes": weights.bytes, "type": _types(weights)}
        exact = self._in_training_type(form)
        found = self._agreement(form.path, self._source(), "comparing merged weights")
        form.facts |= _counts(found) | {"tool": _tool("transformers"), "trainingType": _counts(exact)}
        if not exact.same:
            form.failure = (
                f"merged weights in {_name(self._dtype)} give other replies than the tuned model: "
                f"{exact.tokens - exact.equal - exact.undecided} of {exact.tokens} tokens differ"
            )
        else:
            form.failure = too_far(found, LEAST_SHARE) or self._served(form)
        return form

    def _served(self, form: Form) -> str:
        """Have vLLM write with a form, if it is what serves here; return why that is not the model, or ""."""
        if self._serving is None:
            return ""
        replies = self._tuned()
        self._enter("comparing merged weights in vLLM")
        self._process.renew()
        files = ModelFiles(form.path, (), ModelSource(uri=form.path.absolute().as_uri()))
        try:
            tokens = self._process.call(vllm_tokens, files, self._source(), self._serving, replies)
        except StoppedError:
            raise
        except TunesmithError as error:
            log.warning("The merged weights were not tried in vLLM: %s", error.message)
            self._process.renew()
            return ""
        self._process.renew()
        found = compare(replies, tokens, _name(self._dtype))
        form.facts["served"] = _counts(found) | {"tool": vllm_in_words()}
        failure = too_far(found, LEAST_SHARE)
        return failure and f"in vLLM {failure}"

    def gguf(self, quantization: str) -> Form:
        """Write one GGUF file, and prove it with llama.cpp."""
        from tunesmith.export.gguf.convert import convert

        key = f"{GGUF_KEY}/{self._subject.name}-{quantization}.gguf"
        form = Form(f"gguf {quantization}", key, self._folder / key)
        whole = self._whole or self._write_whole()
        form.path.parent.mkdir(parents=True, exist_ok=True)
        self._enter("converting to GGUF")
        convert(whole, form.path, quantization, self._subject.name, self._check)
        self._enter("comparing the GGUF file")
        found = self._process.call(gguf_tokens, form.path, self._tuned(), self._ends)
        agreement = compare(self._tuned(), found.next_tokens, _name(self._dtype))
        form.facts |= _counts(agreement) | {
            "bytes": form.path.stat().st_size,
            "type": quantization,
            "tool": _tool("xllamacpp", "llama.cpp"),
            "sameTemplate": found.rendered,
        }
        if not found.tokenised:
            form.failure = "llama.cpp splits the prompts into other tokens than the model's tokenizer"
        elif not found.stops:
            form.failure = "llama.cpp does not stop at the token that ends the model's replies"
        else:
            form.failure = too_far(agreement, least_share(quantization))
        return form

    def _write_whole(self) -> Path:
        """Write merged weights that are not exported themselves; they go with the scratch folder."""
        self._enter("merging the weights")
        self._whole = self._folder / "whole"
        write_merged(self._subject.files, self._whole, beat=self._check)
        return self._whole

    def _in_training_type(self, form: Form) -> Agreement:
        """Return the agreement of weights merged in the type that the model is computed in."""
        source = self._source(_name(self._dtype))
        if form.facts["type"] == _name(self._dtype):
            return self._agreement(form.path, source, "comparing merged weights")
        place = self._folder / "in-training-type"
        try:
            write_merged(self._subject.files, place, self._dtype, self._check)
            return self._agreement(place, source, f"comparing weights merged in {_name(self._dtype)}")
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _agreement(self, folder: Path, source: ModelSource, phase: str) -> Agreement:
        replies = self._tuned()
        self._enter(phase)
        files = ModelFiles(folder, (), ModelSource(uri=folder.absolute().as_uri()))
        return compare(replies, self._process.call(next_tokens, files, source, replies), _name(self._dtype))

    def _source(self, dtype: str | None = None) -> ModelSource:
        given = self._subject.source
        return given if dtype is None else given.model_copy(update={"dtype": dtype})

    def _tuned(self) -> list[TunedReply]:
        if not self._replies:
            self._enter("replies of the tuned model, to compare with")
            subject = self._subject
            self._replies = self._process.call(
                tuned_replies, subject.files, subject.source, self._prompts, subject.day
            )
        return self._replies


def proof_prompts(tokenizer: ChatTokenizer, previews: Sequence[PreviewSpec]) -> list[ProofPrompt]:
    """Return the previews' prompts, else those of a few questions; as text if there is no template."""
    asked = [(preview_messages(each), each.generation.max_new_tokens) for each in previews]
    asked = asked or [([Message("user", question)], 64) for question in QUESTIONS]
    if not tokenizer.tokenizer.chat_template:
        texts = [message.content for messages, _ in asked for message in messages[-1:]]
        return [ProofPrompt(text, tuple(tokenizer.tokenizer(text).input_ids), 64) for text in texts]
    return [
        ProofPrompt(
            tokenizer.tokenizer.decode(ids),
            tuple(ids),
            most,
            tuple(message.as_dict() for message in messages),
        )
        for messages, most in asked
        for ids in [tokenizer.prompt_ids(messages)]
    ]


def _counts(found: Agreement) -> dict[str, Any]:
    return {
        "prompts": found.prompts,
        "tokens": found.tokens,
        "equalTokens": found.share,
        "undecided": found.undecided,
    }


def least_share(quantization: str) -> float:
    """Return the share of tokens of which a GGUF file must write the tuned model's."""
    few = quantization.startswith(("Q2", "Q3", "Q4", "Q5", "Q6"))
    return LEAST_OF_FEW_BITS if few else LEAST_SHARE


def too_far(found: Agreement, least: float) -> str:
    """Return why a form is not the model, "" if enough of its tokens are the model's."""
    if found.share >= least:
        return ""
    count = f"{found.equal} of {found.tokens}"
    return f"only {count} tokens are those of the tuned model, fewer than {least:.0%}"


def _types(weights: WeightFiles) -> str:
    """Return the type that most of the weights have, by torch's name."""
    numbers: dict[str, int] = {}
    for info in weights.tensors.values():
        numbers[info.type] = numbers.get(info.type, 0) + info.numbers
    most = max(numbers, key=lambda each: numbers[each])
    return {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}.get(most, most)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tool(package: str, shown: str = "") -> str:
    from importlib.metadata import version

    return (
        f"{shown or package} {version(package)}" if not shown else f"{shown} ({package} {version(package)})"
    )
