"""The base of every part of a manifest: a strict model, and rules with their CEL.

A rule about one object is written once, as a `Rule`: its `check` runs here, its `cel` goes into the CRD.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule across the fields of one object.

    `check` gets the model and returns whether it is valid; `cel` is the same check for the API server;
    `field` is the dotted field the message is about ("" for the object itself); `one_of` names the fields
    of which exactly one is set, for a rule that asks for no more.
    """

    message: str
    cel: str
    check: Callable[[Any], bool]
    field: str = ""
    one_of: tuple[str, ...] = ()


class Model(BaseModel):
    """A strict object: camelCase names, unknown fields rejected, no conversions, immutable.

    A null is an absent field, as for the API server. Models are built on first use: a command that
    reads one kind does not pay for the others.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        defer_build=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict) or None not in data.values():
            return data
        known = {field.alias for field in cls.model_fields.values()} | cls.model_fields.keys()
        return {name: value for name, value in data.items() if value is not None or name not in known}

    @model_validator(mode="after")
    def _follow_rules(self) -> Self:
        broken = [(rule.field, rule.message) for rule in self.rules if not rule.check(self)]
        broken = broken or self.problems()
        if broken:
            raise PydanticCustomError("rules", "{text}", {"broken": broken, "text": broken[0][1]})
        return self

    def problems(self) -> list[tuple[str, str]]:
        """Return (dotted field, message) of what CEL cannot check, for an object that passes the rules."""
        return []

    def to_json(self, *, defaults: bool = True) -> dict[str, Any]:
        """Return plain JSON values with every default filled in (or left out) and absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults)


def has(model: Any, name: str) -> bool:
    """Return whether the optional field `name` (in snake case) is set."""
    return getattr(model, name) is not None


def in_words(names: list[str]) -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def one_of(*names: str) -> Rule:
    """Return the rule that exactly one of the optional fields is set."""
    camel = [to_camel(name) for name in names]
    return Rule(
        f"set exactly one of {in_words(camel)}",
        " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in camel) + " == 1",
        lambda model: sum(has(model, name) for name in names) == 1,
        one_of=tuple(camel),
    )
