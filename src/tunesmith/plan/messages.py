"""Sanitise messages of others about our objects (API server, webhooks, kubelet, events) for a status.

Whoever may write an event or runs a webhook writes these texts. They are cleaned and shortened, and secrets
in addresses are left out.
"""

from __future__ import annotations

import re
from typing import Any

from tunesmith.plan.status import clean
from tunesmith.text import visible

MOST = 1024
# user:password@ of an address, and its query, which may contain a signature or a token.
_USER = re.compile(r"(\w://)[^\s/@\"']+@")
_QUERY = re.compile(r"(\w://[^\s?\"']+\?)[^\s\"']+")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


def fit(text: Any, most: int = MOST) -> str:
    """Return the text on one line, cleaned, cut and without secrets in addresses; "" for anything else."""
    if not isinstance(text, str):
        return ""
    line = " ".join(text[: 8 * most].split())
    return clean(visible(_QUERY.sub(r"\1…", _USER.sub(r"\1…@", line))), most)


def is_word(text: Any) -> bool:
    """Return whether this is a valid reason of a status or a condition."""
    return isinstance(text, str) and _WORD.fullmatch(text) is not None
