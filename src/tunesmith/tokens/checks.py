"""What must hold for every sample before the first step; cheap enough to look at all of them.

Refuses to know how samples are made: it would find a mistake in `chat.py`.
"""

from __future__ import annotations

from tunesmith.errors import LabelError
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Sample


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
    _check_ids(sample, min(tokenizer.vocab_size, vocab_size or tokenizer.vocab_size))
    labels = {id_ for id_, weight in zip(sample.ids, sample.weights, strict=True) if weight > 0}
    if not labels:
        raise LabelError("The sample has no labels: every token has weight 0.")
    if kind == "chat":
        _check_roles(labels, tokenizer)
        _check_ends(sample, tokenizer, truncate_reply)


def _check_ids(sample: Sample, vocab_size: int) -> None:
    if len(sample.ids) != len(sample.weights):
        raise LabelError(f"The sample has {len(sample.ids)} ids but {len(sample.weights)} weights.")
    if not sample.ids or sample.weights[0] != 0:
        raise LabelError(
            "The sample's first token is a label, but nothing stands before it to predict it from."
        )
    if min(sample.weights) < 0:
        raise LabelError("The sample has a negative weight.")
    low, high = min(sample.ids), max(sample.ids)
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise LabelError(
            f"The sample holds token id {wrong}, outside the vocabulary of {vocab_size}: "
            "tokenizer and model do not belong together."
        )


def _check_roles(labels: set[int], tokenizer: ChatTokenizer) -> None:
    wrong = sorted(labels & tokenizer.shape.role_ids)
    if wrong:
        raise LabelError(
            f"The role token {tokenizer.decode(wrong[:1])!r} is among the labels: the model would learn "
            "to speak for others."
        )


def _check_ends(sample: Sample, tokenizer: ChatTokenizer, truncate_reply: bool) -> None:
    """Every run of labels ends with the end of turn."""
    ids, weights, ends = sample.ids, sample.weights, tokenizer.eot_ids
    following = [*weights[1:], 0.0]
    if truncate_reply:
        following[-1] = 1.0
    for at, (weight, after) in enumerate(zip(weights, following, strict=True)):
        if weight > 0 and not after > 0 and ids[at] not in ends:
            raise LabelError(
                f"The reply that ends at token {at} has no end-of-turn label "
                f"({tokenizer.decode(sorted(ends))!r}), so the model would not learn to stop."
            )
