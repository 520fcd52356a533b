"""Writing YAML that every reader takes for the same values: kubectl's and Helm's, YAML 1.1 and 1.2."""

from __future__ import annotations

from typing import Any

import yaml

_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"})


class Dumper(yaml.SafeDumper):
    """Without anchors; texts of several lines as blocks; quoted what some reader takes for another kind."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: the same part is written out each time."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else '"' if _is_doubtful(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _is_doubtful(value: str) -> bool:
    """Whether some reader takes the plain word for a boolean, nothing, or a number (`n`, `1e3`, `0o17`)."""
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
