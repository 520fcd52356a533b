"""What a record is known by, wherever it stands and in whatever order its fields are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from tunesmith.tokens.conversation import Conversation, Document


class RecordKey(NamedTuple):
    """What a record is known by: its `id`, "" if it has none, and a hash of all that it holds."""

    id: str
    content: str


def content_key(value: Any) -> str:
    """128 bits of a hash of all that a record holds, its id too; the fields' order does not change it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def record_key(value: Mapping[str, Any]) -> str:
    """The `id` (a text or whole number), by which outputs name a record, else its `content_key`."""
    return own_id(value) or content_key(value)


def own_id(value: Mapping[str, Any]) -> str:
    """The `id`, if it is a text or a whole number; else ""."""
    given = value.get("id")
    return str(given) if isinstance(given, str) or type(given) is int else ""


def learned_key(content: Conversation | Document) -> str:
    """What is learned, whatever else the record has: the same text is never on both sides of a split."""
    if isinstance(content, Document):
        text = content.text
    else:
        text = "\0".join(f"{m.role}:{m.content}" for m in content.messages if m.role != "system")
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
