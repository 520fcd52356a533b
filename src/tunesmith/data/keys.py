"""Keys of records, whatever their place and the order of their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from tunesmith.tokens.conversation import Conversation, Document


class RecordKey(NamedTuple):
    """Return a record's identity: its `id`, "" if it has none, and a hash of its whole content."""

    id: str
    content: str


def content_key(value: Any) -> str:
    """Return a 128-bit hash of a record's content, its id included; the fields' order does not change it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def record_key(value: Mapping[str, Any]) -> str:
    """Return the `id` (a text or whole number), by which outputs name a record, else its `content_key`."""
    return own_id(value) or content_key(value)


def own_id(value: Mapping[str, Any]) -> str:
    """Return the `id`, if it is a text or a whole number; else ""."""
    given = value.get("id")
    return str(given) if isinstance(given, str) or type(given) is int else ""


def learned_key(content: Conversation | Document) -> str:
    """Return a key of what is trained on: equal texts are on one side of a split."""
    if isinstance(content, Document):
        text = f"{content.prompt}\0{content.text}" if content.prompt else content.text
    else:
        said = (m for m in content.messages if m.role != "system")
        text = "\0".join(":".join((m.role, *m.texts)) for m in said)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
