"""How many rows the transformers engine draws at once, and how long they may be.

Estimates from what one token of the cache takes and from what memory is free. Knows no prompts.
"""

from __future__ import annotations

import sys
from typing import Any

from tunesmith.engines.positions import position_limit

# More rows than this do not make a processor faster.
MOST_ON_CPU, MOST_ON_GPU = 64, 256
# Where a model names no limit.
_LONGEST = 32768
# Of the free memory; the rest is for activations and for what the allocator leaves unused.
_SHARE = 0.7
# A prompt's tokens where none is known yet.
_PROMPT = 1024


def longest(config: Any, tokenizer: Any) -> int:
    """Tokens of prompt and reply together at most, from a model's configuration and its tokenizer."""
    said = (position_limit(config.get_text_config().to_dict()), tokenizer.model_max_length)
    return min((int(each) for each in said if each and 1 < each < sys.maxsize), default=_LONGEST)


def has_experts(config: Any) -> bool:
    """Return whether tokens of a batch share experts: then a row's arithmetic depends on the other rows."""
    text = config.get_text_config().to_dict()
    return any("expert" in name and isinstance(value, int) and value > 1 for name, value in text.items())


def token_bytes(config: Any, item: int) -> int:
    """Bytes of a token's keys and values at most, of `item` bytes a number: as many heads as in queries."""
    text = config.get_text_config()
    return 2 * int(text.num_hidden_layers) * int(text.hidden_size) * item


def token_budget(free: int, of_token: int) -> int:
    """Tokens of all rows together that fit into `free` bytes."""
    return max(1, int(free * _SHARE) // max(1, of_token))


def rows_at_once(budget: int, new_tokens: int, longest: int, most: int) -> int:
    """Rows for `batchSize: auto`, of a prompt of usual length and `new_tokens` each."""
    return max(1, min(most, budget // min(longest, new_tokens + _PROMPT)))
