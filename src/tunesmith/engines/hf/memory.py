"""How many rows the transformers engine samples at once, and how long they may be.

Estimated from the size of one token in the cache and from the free memory. Does not depend on prompts.
"""

from __future__ import annotations

import sys
from typing import Any

from tunesmith.engines.positions import position_limit

# More rows than this do not increase throughput.
MOST_ON_CPU, MOST_ON_GPU = 64, 256
# The limit of a model that names none.
_LONGEST = 32768
# Share of the free memory; the rest is for activations and for what the allocator leaves unused.
_SHARE = 0.7
# The tokens of a prompt, before any is known.
_PROMPT = 1024


def longest(config: Any, tokenizer: Any) -> int:
    """Return the maximum tokens of prompt and reply together, from a model's config and its tokenizer."""
    said = (position_limit(config.get_text_config().to_dict()), tokenizer.model_max_length)
    return min((int(each) for each in said if each and 1 < each < sys.maxsize), default=_LONGEST)


def has_experts(config: Any) -> bool:
    """Return whether tokens of a batch share experts: then a row's arithmetic depends on the other rows."""
    text = config.get_text_config().to_dict()
    return any("expert" in name and isinstance(value, int) and value > 1 for name, value in text.items())


def token_bytes(config: Any, item: int) -> int:
    """Return an upper limit of a token's bytes in the KV cache, with `item` bytes per number.

    It assumes as many heads for keys and values as for queries.
    """
    text = config.get_text_config()
    return 2 * int(text.num_hidden_layers) * int(text.hidden_size) * item


def token_budget(free: int, of_token: int) -> int:
    """Return how many tokens of all rows together fit into `free` bytes."""
    return max(1, int(free * _SHARE) // max(1, of_token))


def rows_at_once(budget: int, new_tokens: int, longest: int, most: int) -> int:
    """Return the rows for `batchSize: auto`, each of a prompt of usual length and `new_tokens`."""
    return max(1, min(most, budget // min(longest, new_tokens + _PROMPT)))
