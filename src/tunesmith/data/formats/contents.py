"""The content and the kind of one record of a dataset. Does not depend on files, splits or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.api.datasets import DatasetSpec, ValidationSpec
from tunesmith.data.formats.character import conversation_from_character
from tunesmith.data.formats.character import kind_of as character_kind
from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.instruction import conversation_from_instruction
from tunesmith.data.formats.legal import Laws
from tunesmith.data.formats.sampled import conversation_from_sampled, is_legal
from tunesmith.data.formats.text import document_from_text
from tunesmith.tokens.conversation import Conversation, Document

LEGAL, USER = "legal", "user"
"""Kinds of samples that are not the name of a format or of a character's records."""


def contents_of(
    value: Any, dataset: DatasetSpec | ValidationSpec, laws: Laws | None = None
) -> Sequence[Conversation | Document]:
    """Return the content of one record of a format other than user simulation.

    `laws` are the texts of `sampled.articlesUri` and `changedArticlesUri`. Raises RecordProblem,
    RecordSkipped.
    """
    prompt = dataset.system_prompt
    match dataset.format:
        case "chat":
            assert dataset.chat is not None
            return conversation_from_chat(value, system_prompt=prompt, thoughts=dataset.chat.thoughts)
        case "instruction":
            return [conversation_from_instruction(value, system_prompt=prompt)]
        case "text":
            return [document_from_text(value)]
        case "character":
            assert dataset.character is not None
            return [conversation_from_character(value, dataset.character, system_prompt=prompt)]
        case "sampled":
            return [conversation_from_sampled(value, laws=laws, system_prompt=prompt)]
        case other:
            raise ValueError(f"unknown format {other}")


def kind_of(value: Any, dataset: DatasetSpec | ValidationSpec, laws: Laws | None = None) -> str:
    """Return the kind of a record that `contents_of` accepts: each kind has its own prompt."""
    if dataset.character is not None:
        return character_kind(value, dataset.character)
    if dataset.sampled is not None and is_legal(value, laws):
        return LEGAL
    return dataset.format
