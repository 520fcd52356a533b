"""What must hold for every sample before the first step; cheap enough to look at all of them.

Refuses to know how samples are made: it would find a mistake in `chat.py`.
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from tunesmith.errors import LabelError
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Sample

Ids = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


def check_sample(
    sample: Sample,
    tokenizer: ChatTokenizer,
    kind: str,
    *,
    truncate_reply: bool = False,
    vocab_size: int | None = None,
) -> None:
    """Raise LabelError unless `sample` can be trained on.

    `kind` is "chat" or "text" (where a chunk need not hold an end). With `truncate_reply` the reply at the
    sample's end may lack its end of turn. `vocab_size` is the model's number of embeddings, if known.
    """
    if len(sample.ids) != len(sample.weights):
        raise LabelError(f"The sample has {len(sample.ids)} ids but {len(sample.weights)} weights.")
    ids = np.frombuffer(array("q", sample.ids), np.int64)
    weights = np.frombuffer(array("f", sample.weights), np.float32)
    _check_ids(ids, weights, min(tokenizer.vocab_size, vocab_size or tokenizer.vocab_size))
    labels = weights > 0
    if not labels.any():
        raise LabelError("The sample has no labels: every token has weight 0.")
    if kind == "chat":
        _check_roles(ids[labels], tokenizer)
        _check_ends(ids, labels, tokenizer, truncate_reply)


def _check_ids(ids: Ids, weights: Weights, vocab_size: int) -> None:
    if not len(ids) or weights[0] != 0:
        raise LabelError(
            "The sample's first token is a label, but nothing stands before it to predict it from."
        )
    if weights.min() < 0:
        raise LabelError("The sample has a negative weight.")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise LabelError(
            f"The sample holds token id {wrong}, outside the vocabulary of {vocab_size}: "
            "tokenizer and model do not belong together."
        )


def _check_roles(labels: Ids, tokenizer: ChatTokenizer) -> None:
    wrong = sorted(tokenizer.shape.role_ids.intersection(labels.tolist()))
    if wrong:
        raise LabelError(
            f"The role token {tokenizer.decode(wrong[:1])!r} is among the labels: the model would learn "
            "to speak for others."
        )


def _check_ends(ids: Ids, labels: npt.NDArray[np.bool_], tokenizer: ChatTokenizer, truncated: bool) -> None:
    """Every run of labels ends with the end of turn."""
    ends = tokenizer.eot_ids
    last = labels.copy()
    last[:-1] &= ~labels[1:]
    last[-1] &= not truncated
    for at in np.flatnonzero(last).tolist():
        if int(ids[at]) not in ends:
            raise LabelError(
                f"The reply that ends at token {at} has no end-of-turn label "
                f"({tokenizer.decode(sorted(ends))!r}), so the model would not learn to stop."
            )
