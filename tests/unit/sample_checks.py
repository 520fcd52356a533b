"""The checks of samples, for one sample."""

from __future__ import annotations

import numpy as np

from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.checks import Checker
from tunesmith.tokens.conversation import Sample


def check_sample(
    sample: Sample,
    tokenizer: ChatTokenizer,
    kind: str,
    *,
    truncate_reply: bool = False,
    vocab_size: int | None = None,
) -> None:
    ids, weights = np.array(sample.ids, np.int32), np.array(sample.weights, np.float32)
    checker = Checker(tokenizer, vocab_size)
    checker.check(ids, weights, [len(ids)], kind, truncate_reply=truncate_reply)
