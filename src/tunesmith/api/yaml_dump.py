"""Write YAML that every parser reads as the same values: kubectl's and Helm's, YAML 1.1 and 1.2."""

from __future__ import annotations

from typing import Any

import yaml

from tunesmith.text import REORDERING

# They occur only in quoted strings, see below.
_ESCAPES = {ord(character): f"\\u{ord(character):04X}" for character in REORDERING}
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"})


class Dumper(yaml.SafeDumper):
    """Dumper without anchors; multi-line strings as blocks; quotes what some parser reads as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: a shared part is written out each time."""
        del data
        return True


def dump(value: Any) -> str:
    """Return a document as YAML, keys in their order."""
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text.translate(_ESCAPES)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    quoted = not REORDERING.isdisjoint(value) or ("\n" not in value and _is_doubtful(value))
    style = '"' if quoted else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _is_doubtful(value: str) -> bool:
    """Return whether some parser reads the plain word as a boolean, null or a number (`n`, `1e3`, `0o17`)."""
    if value.lower() in _WORDS:
        return True
    for read in (float, lambda text: int(text, 0)):
        try:
            read(value)
        except (ValueError, OverflowError):
            continue
        return True
    return False


Dumper.add_representer(str, _text)
