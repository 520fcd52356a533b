"""Checks that every sample must pass before the first step, cheap enough to run on all of them.

Does not depend on how samples are made, so it would find a mistake in `chat.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from tunesmith.errors import LabelError
from tunesmith.tokens.chat import ChatTokenizer

Ids = npt.NDArray[np.int32]
LossWeights = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class SampleError(LabelError):
    """The error of the first invalid sample of several; `index` is its position."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[type[SampleError], tuple[int, str]]:
        """Return what pickle needs, so that the error can be raised in another process."""
        return SampleError, (self.index, self.message)


class Checker:
    """Checks many samples at once. `vocab_size` is the model's number of embeddings, if known."""

    def __init__(self, tokenizer: ChatTokenizer, vocab_size: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._vocab = min(tokenizer.vocab_size, vocab_size or tokenizer.vocab_size)

    def check(
        self,
        ids: Ids,
        weights: LossWeights,
        lengths: Sequence[int],
        kind: str,
        *,
        truncate_reply: bool = False,
    ) -> None:
        """Raise SampleError unless all samples, which are concatenated, can be trained on.

        `kind` is "chat" or "text" (whose chunks need not contain an end). With `truncate_reply` the reply at
        a sample's end may lack its end-of-turn token.
        """
        ends = np.cumsum(lengths, dtype=np.int64)
        starts = ends - lengths
        if len(ids) != len(weights) or len(ids) != int(ends[-1]):
            raise SampleError(0, f"The sample has {len(ids)} ids but {len(weights)} weights.")
        if 0 in lengths or (weights[starts] != 0).any():
            at = next(n for n, begin in enumerate(starts) if not lengths[n] or weights[begin] != 0)
            raise SampleError(
                at, "The sample's first token is a label, but there is nothing before it to predict it from."
            )
        self._check_values(ids, weights, ends)
        labels = weights > 0
        counts = np.add.reduceat(labels, starts, dtype=np.int64)
        if not counts.all():
            raise SampleError(int(np.argmin(counts)), "The sample has no labels: every token has weight 0.")
        if kind == "chat":
            self._check_roles(ids, labels, ends)
            self._check_ends(ids, labels, ends, truncate_reply)

    def _check_values(self, ids: Ids, weights: LossWeights, ends: npt.NDArray[np.int64]) -> None:
        if weights.min() < 0:
            raise SampleError(_owner(int(weights.argmin()), ends), "The sample has a negative weight.")
        for at in (int(ids.argmin()), int(ids.argmax())):
            if not 0 <= ids[at] < self._vocab:
                raise SampleError(
                    _owner(at, ends),
                    f"The sample contains token id {ids[at]}, outside the vocabulary of {self._vocab}: "
                    "tokenizer and model do not belong together.",
                )

    def _check_roles(self, ids: Ids, labels: Mask, ends: npt.NDArray[np.int64]) -> None:
        wrong = labels & self._among(ids, self._tokenizer.shape.role_ids)
        if wrong.any():
            at = int(wrong.argmax())
            raise SampleError(
                _owner(at, ends),
                f"The role token {self._tokenizer.decode([int(ids[at])])!r} is among the labels: the model "
                "would learn to speak for others.",
            )

    def _check_ends(self, ids: Ids, labels: Mask, ends: npt.NDArray[np.int64], truncated: bool) -> None:
        """Check that every run of labels ends with the end-of-turn token."""
        last = labels.copy()
        last[:-1] &= ~labels[1:]
        last[ends - 1] = False if truncated else labels[ends - 1]
        wrong = last & ~self._among(ids, self._tokenizer.eot_ids)
        if wrong.any():
            at = int(wrong.argmax())
            owner = _owner(at, ends)
            start = int(ends[owner - 1]) if owner else 0
            raise SampleError(
                owner,
                f"The reply that ends at token {at - start} has no end-of-turn label "
                f"({self._tokenizer.shape.eot!r}), so the model would not learn to stop.",
            )

    def _among(self, ids: Ids, wanted: Collection[int]) -> Mask:
        table = np.zeros(self._tokenizer.vocab_size, np.bool_)
        table[list(wanted)] = True
        found: Mask = table[ids]
        return found


def _owner(at: int, ends: npt.NDArray[np.int64]) -> int:
    return int(np.searchsorted(ends, at, side="right"))
