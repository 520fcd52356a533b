"""How long a sample may be: what the manifest asks for, and what the model has positions for."""

from __future__ import annotations

DEFAULT = 4096
"""Tokens of a sample at most where neither manifest nor model says less."""


def longest_sample(asked: int | None, positions: int | None) -> int:
    """Tokens to which context is cut: `training.maxLength`, else up to 4,096 of the model's `positions`."""
    return asked or min(DEFAULT, positions or DEFAULT)


def too_long(tokens: int, asked: int, positions: int | None) -> str:
    """Why a sample of so many tokens cannot be used; empty if the model has positions for it."""
    if positions is None or tokens <= positions:
        return ""
    return (
        f"a sample of {tokens} tokens is longer than the {positions} positions that the model has "
        f"(max_position_embeddings, with its rope scaling). Lower maxLength from {asked} to {positions} or "
        "less, so that it is cut, or leave maxLength out"
    )
