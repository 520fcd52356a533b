"""What of a training only decides how much memory it takes, and the way from more of it to less.

A step's samples, loss and gradient do not depend on how it is cut into micro-batches, on gradient
checkpointing, or on where DeepSpeed keeps its state, except for rounding. So a run that did not fit can
continue from its checkpoint with less. Pure: does not depend on models and devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.api.finetune import FineTuneSpec

NOTHING, OPTIMIZER, ALL = "none", "optimizer", "all"
_AMOUNT = {NOTHING: 0, OPTIMIZER: 1, ALL: 2}
ALONE = 1
"""As a number of tokens: a micro-batch has one sample, however long."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The most that a micro-batch has: `tokens` of a tree, or `samples` that are padded (`tokens` is None).

    `offload` is what DeepSpeed keeps in main memory, by the manifest's names.
    """

    tokens: int | None
    samples: int
    gradient_checkpointing: bool
    offload: str

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "tokensPerDevice": self.tokens,
            "samplesPerDevice": self.samples,
            "gradientCheckpointing": self.gradient_checkpointing,
            "offload": self.offload,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Fit:
        """Return what `to_json` wrote."""
        tokens = said["tokensPerDevice"]
        checkpointing, offload = bool(said["gradientCheckpointing"]), str(said["offload"])
        return cls(
            None if tokens is None else int(tokens), int(said["samplesPerDevice"]), checkpointing, offload
        )

    def most_tokens(self, longest: int) -> int:
        """Return the tokens of the largest micro-batch, if the longest sample has `longest`."""
        return self.samples * longest if self.tokens is None else max(self.tokens, longest)

    def sentence(self, longest: int) -> str:
        """Return the settings in words, without a full stop."""
        most = f"at most {self.most_tokens(longest):,} tokens per micro-batch"
        if self.tokens == ALONE or (self.tokens is None and self.samples == 1):
            most = f"one sample per micro-batch, of at most {longest:,} tokens"
        words = [most, f"gradient checkpointing {'on' if self.gradient_checkpointing else 'off'}"]
        if self.offload != NOTHING:
            words.append(f"offload {self.offload}")
        return ", ".join(words)


def smaller(fit: Fit, longest: int, offload: str) -> Fit | None:
    """Return the settings that take less memory, None if there are none.

    In this order: half the tokens, down to those of the longest sample; gradient checkpointing; `offload`,
    the most that is possible; one sample at a time, which matters only for trees of short samples.
    """
    half = -(-fit.samples // 2)
    if fit.tokens is None and fit.samples > 1:
        return replace(fit, samples=half)
    if fit.tokens is not None and fit.tokens > longest:
        return replace(fit, tokens=max(longest, -(-fit.tokens // 2)), samples=half)
    if not fit.gradient_checkpointing:
        return replace(fit, gradient_checkpointing=True)
    if _AMOUNT[offload] > _AMOUNT[fit.offload]:
        return replace(fit, offload=offload)
    if fit.tokens is not None and fit.tokens > ALONE:
        return replace(fit, tokens=ALONE, samples=1)
    return None


def most_offload(spec: FineTuneSpec) -> str:
    """Return the most that DeepSpeed can keep in main memory; a user's own config stays as it is."""
    asked = spec.deepspeed
    if asked is None:
        return NOTHING
    if asked.config is not None:
        return asked.offload
    return ALL if asked.zero_stage == 3 else OPTIMIZER if asked.zero_stage else NOTHING


def with_offload(spec: FineTuneSpec, offload: str) -> FineTuneSpec:
    """Return the spec with another `deepspeed.offload`."""
    if spec.deepspeed is None or spec.deepspeed.offload == offload:
        return spec
    return spec.model_copy(update={"deepspeed": spec.deepspeed.model_copy(update={"offload": offload})})
