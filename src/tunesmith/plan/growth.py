"""Which fields may grow over an existing output: more of the same, without losing or repeating paid work.

A table per kind, from the dotted path of a field to the rule whether its new value is a growth of the old
one. Every other field of a spec must stay as it is. What grows besides fields (records that are added to a
file) is for the jobs to check. Does not depend on storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.names import Kind

MayGrow = Callable[[Any, Any], bool]
"""Whether the second value is a growth of the first; None stands for an absent field."""
# Defaults that fields had in earlier versions: outputs have them in their settings.
_FORMER = {"training.maxLength": 4096}


def not_smaller(old: float | None, new: float | None) -> bool:
    """Return whether a number grew; an absent one is no limit."""
    return new is None or (old is not None and new >= old)


def any_change(old: Any, new: Any) -> bool:
    """Return True: the content behind the field is compared instead."""
    return True


@dataclass(frozen=True, slots=True)
class Growth:
    """The fields of a kind that may grow, by their dotted paths, and a sentence about them for messages."""

    fields: Mapping[str, MayGrow] = field(default_factory=dict)
    sentence: str = ""


NO_GROWTH = Growth()
GROWTH: Mapping[Kind, Growth] = {
    Kind.REJECTION_SAMPLE: Growth(
        {
            "sampling.numSamples": not_smaller,
            "prompts.limit": not_smaller,
            "prompts.uri": any_change,
            "prompts.maxBadRecords": any_change,
        },
        "Over an existing output, sampling.numSamples may grow and prompts may be added (on a cluster: "
        "delete the job and apply it again); nothing else may change.",
    ),
    Kind.DIALOGUE_GEN: Growth(
        {
            "rounds": not_smaller,
            "seeds.limit": not_smaller,
            "seeds.uri": any_change,
            "seeds.maxBadRecords": any_change,
        },
        "Over an existing output, rounds and seeds.limit may grow and seeds may be added, after the others "
        "if they have no ids (on a cluster: delete the job and apply it again); nothing else "
        "may change.",
    ),
}


def compare(old: Mapping[str, Any], new: Mapping[str, Any], growth: Growth) -> tuple[list[str], list[str]]:
    """Return (conflicts, grown): the dotted paths of fields that may not differ, and of those that grew."""
    conflicts, grown = list[str](), list[str]()
    for path in changed(old, new):
        rule = growth.fields.get(path)
        values = value_at(old, path), value_at(new, path)
        (grown if rule is not None and rule(*values) else conflicts).append(path)
    return conflicts, grown


def without(fields: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Return the fields without those at these dotted paths; objects on the way stay, even if empty."""
    left = dict(fields)
    for path in paths:
        name, _, rest = path.partition(".")
        if rest and isinstance(left.get(name), Mapping):
            left[name] = without(left[name], [rest])
        elif not rest:
            left.pop(name, None)
    return left


def changed(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the dotted paths at which two plain values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(old.keys() | new.keys())
        return [p for k in keys for p in changed(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [p for i, (a, b) in pairs for p in changed(a, b, f"{path}[{i}]")]
    return [] if old == new else [path]


def added_since(old: Mapping[str, Any], new: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    """Return paths of defaults that the old fields lack, since an earlier version had no such field.

    Also those of defaults that the old fields have and that no longer exist: whether the data is still
    the same is checked by its own digest. `chosen` are the new fields without those that have defaults.
    """

    def of_before(path: str) -> bool:
        value = value_at(old, path)
        return value is None or (path in _FORMER and value == _FORMER[path])

    return [path for path in changed(old, new) if of_before(path) and value_at(chosen, path) is None]


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """Return the value of a path as `changed` writes it (`datasets[0].text.join`); None if there is none."""
    value: Any = fields
    for name in path.replace("[", ".[").split("."):
        if name.startswith("["):
            at = int(name[1:-1])
            value = value[at] if isinstance(value, list) and at < len(value) else None
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def in_words(path: str, old: Mapping[str, Any], new: Mapping[str, Any], growth: Growth) -> str:
    """Return a conflicting field; with both values if it may grow and has shrunk."""
    values = value_at(old, path), value_at(new, path)
    if path not in growth.fields or any(isinstance(value, list | dict) for value in values):
        return f"spec.{path}"
    before, after = ("absent" if value is None else str(value) for value in values)
    return f"spec.{path} ({before} → {after}; it may only grow)"
