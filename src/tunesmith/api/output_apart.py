"""The rule that an output holds none of the inputs."""

from __future__ import annotations

from typing import Any

from pydantic.alias_generators import to_camel

from tunesmith.api.addresses import inside, inside_cel
from tunesmith.api.base import Rule


def output_apart(message: str, *inputs: str) -> Rule:
    """Return the rule that no input (snake case, dotted) is inside the output, which would overwrite it."""
    return Rule(
        message,
        " && ".join(f"!({_set_cel(field)}{inside_cel(_camel_path(field))})" for field in inputs),
        lambda m: not any(inside(_at(m, field), m.output.uri) for field in inputs),
        "output.uri",
    )


def _camel_path(field: str) -> str:
    return "self." + ".".join(to_camel(part) for part in field.split("."))


def _set_cel(field: str) -> str:
    """Return `has(…) && ` for every optional part of the path: all but the first."""
    parts = _camel_path(field).split(".")
    return "".join(f"has({'.'.join(parts[: i + 1])}) && " for i in range(2, len(parts)))


def _at(model: Any, field: str) -> Any:
    for part in field.split("."):
        model = model and getattr(model, part)
    return model
