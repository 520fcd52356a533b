"""Maximum length of a sample: by the manifest, and by the model's positions."""

from __future__ import annotations

DEFAULT = 4096
"""Maximum tokens of a sample if neither manifest nor model sets less."""


def longest_sample(asked: int | None, positions: int | None) -> int:
    """Return the tokens to which context is truncated: `training.maxLength`, else `positions` up to 4,096."""
    return asked or min(DEFAULT, positions or DEFAULT)


def too_long(tokens: int, asked: int, positions: int | None) -> str:
    """Return why a sample of this length cannot be used; empty if the model has positions for it."""
    if positions is None or tokens <= positions:
        return ""
    return (
        f"a sample of {tokens} tokens is longer than the model's {positions} positions "
        f"(max_position_embeddings, with its rope scaling). Lower maxLength from {asked} to {positions} or "
        "less, so that it is truncated, or leave maxLength out"
    )
