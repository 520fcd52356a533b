"""CEL variables of the chart's ValidatingAdmissionPolicy, generated from the marked fields of the models.

For each kind and each rule of `allowed` a CEL variable: the values of a job that no rule of its namespace
allows, as the denial message names them. The chart turns the administrator's rules into regular expressions
(`templates/_admission.tpl`), which match values as a manifest writes them; an address with an ambiguous
spelling is rejected by the CRD.
"""

from __future__ import annotations

from textwrap import indent

from tunesmith.api.field_paths import ITEMS, KEYS, VALUES, KeyPath
from tunesmith.api.manifest import SPECS
from tunesmith.api.openapi import SchemaError
from tunesmith.api.ruled import SYSTEM, WORDS, Ruled, ruled_fields
from tunesmith.api.rules import NEVER
from tunesmith.names import PLURALS, Kind

HEADER = "Generated from src/tunesmith/api by `make generate`; do not edit."
_SPEC = "object.spec"
# A slash of a path that is not resolved: `/./` and, in a web address, `//` mean the same.
_SLASH = r"/(?:\.?/)*"
_NEVER = "|".join(path.removeprefix("/").replace("/", _SLASH) for path in NEVER)
_ANY = "variables.rules.exists(r, x.matches({}))"
# When a value x is allowed, if that is more than a match of the rule's expression of this name.
_ALLOWED = {
    "uris": f"!x.matches(r'^(?:file://)?{_SLASH}(?:{_NEVER})(?:/|$)') && {_ANY.format('r.uris')}",
    "priorityClasses": _ANY.format(f"x.startsWith('{SYSTEM}') ? r.systemPriorityClasses : r.priorityClasses"),
}


def variables(kind: Kind) -> list[tuple[str, str]]:
    """Return name and CEL of each variable of a kind's policy: one per rule, then `refused`, all of them."""
    found = []
    for rule, words in WORDS.items():
        fields = [(path, mark) for path, mark in ruled_fields(SPECS[kind]) if mark.rule == rule]
        if fields:
            allowed = _ALLOWED.get(rule, _ANY.format(f"r.{rule}"))
            before, after = words.split("{}")
            named = f"{before!r} + x" + (f" + {after!r}" if after else "")
            found.append((rule, f"({_values(fields)}\n).map(x, !({allowed}), {named})"))
    return [*found, ("refused", " + ".join(f"variables.{rule}" for rule, _ in found))]


def _values(fields: list[tuple[KeyPath, Ruled]]) -> str:
    """Return CEL for the list of all values that a job has in these fields."""
    return " +".join(f"\n  {_list(path, mark)}" for path, mark in fields)


def _list(path: KeyPath, mark: Ruled) -> str:
    """Return CEL for the list of the values of one field."""
    many = [place for place, part in enumerate(path) if part in (ITEMS, VALUES, KEYS)]
    if len(many) > 1:
        raise SchemaError(f"{'.'.join(path)} is a nested list, which CEL cannot flatten")
    if not many:
        condition, value = _value(_SPEC, path, mark)
        return f"({condition} ? [{value}] : [])" if mark.absent is not None else f"[?{_at(_SPEC, path)}]"
    outer, part, below = path[: many[0]], path[many[0]], path[many[0] + 1 :]
    if part == KEYS:
        return f"{_at(_SPEC, outer)}.orValue({{}}).map(x, x)"
    if not below:
        raise SchemaError(f"{'.'.join(path)}: wrap the text in an object")
    empty, item = ("[]", "x") if part == ITEMS else ("{}", f"{_SPEC}.{'.'.join(outer)}[x]")
    condition, value = _value(item, below, mark)
    return f"{_at(_SPEC, outer)}.orValue({empty}).map(x, {condition}, {value})"


def _value(node: str, path: KeyPath, mark: Ruled) -> tuple[str, str]:
    """Return CEL for whether a value exists at a path below `node`, and for the value."""
    parent, last = _at(node, path[:-1]), path[-1]
    if mark.of:
        return f"{parent}.?{last}.orValue(false)", f"{parent}.?{mark.of}.orValue({mark.absent!r})"
    if mark.absent is not None:
        there = f"{parent}.hasValue()" if path[:-1] else "true"
        return there, f"{parent}.?{last}.orValue({mark.absent!r})"
    return f"{_at(node, path)}.hasValue()", f"{_at(node, path)}.value()"


def _at(node: str, path: KeyPath) -> str:
    return "".join((node, *(f".?{part}" for part in path)))


def chart_text() -> str:
    """Return the Helm chart's file with every kind's variables, which its policy template includes."""
    return "".join((f"{{{{/* {HEADER} */}}}}\n", *(_definition(kind) for kind in Kind)))


def _definition(kind: Kind) -> str:
    items = (f"- name: {name}\n  expression: |-\n{indent(cel, ' ' * 4)}\n" for name, cel in variables(kind))
    return f'{{{{- define "tunesmith.admission.{PLURALS[kind]}" -}}}}\n{"".join(items)}{{{{- end -}}}}\n'
