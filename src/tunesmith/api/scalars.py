"""Field types for single values: names, quantities, numbers and texts with bounds, free-form objects."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

MAX_SHORT = 253
NOT_ALLOWED = "Not allowed here."
_QUANTITY = r"^([0-9]+([.][0-9]*)?|[.][0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$"


Encoding = Literal["utf-8", "utf-16", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1252"]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_quantity(value: object) -> object:
    text = str(value) if isinstance(value, str) or _is_count(value) else ""
    if not re.match(_QUANTITY, text) or text.endswith("\n") or len(text) > 64:
        raise ValueError('is not a quantity; write a whole number, or text such as "0.5" or 512Gi')
    return value


Quantity = Annotated[
    Any,
    AfterValidator(_check_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            "pattern": _QUANTITY,
            "x-kubernetes-validations": [
                {"rule": "type(self) == int ? self >= 0 : true", "message": "must not be negative"}
            ],
        }
    ),
]


def _check_int_or_auto(value: object) -> object:
    if value == "auto" or (_is_count(value) and 1 <= int(str(value)) < 2**31):
        return value
    raise ValueError("must be auto or a whole number of at least 1")


def _check_bool_or_auto(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError("must be auto, true or false")


INT_OR_AUTO_RULE = {
    "rule": f"type(self) == int ? self >= 1 && self < {2**31} : self == 'auto'",
    "message": "must be auto or a whole number of at least 1",
}
IntOrAuto = Annotated[
    Any,
    AfterValidator(_check_int_or_auto),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            "x-kubernetes-validations": [INT_OR_AUTO_RULE],
        }
    ),
]
BoolOrAuto = Annotated[
    Any,
    AfterValidator(_check_bool_or_auto),
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "enum": ["auto", True, False]}),
]


def _names_text(value: Any) -> Any:
    """Return a list of names as one text with commas between them, which may be written so too."""
    if isinstance(value, str):
        names = value.split(",") if value else []  # as a list without names is written
    elif isinstance(value, list) and all(isinstance(each, str) and "," not in each for each in value):
        names = value
    else:
        raise ValueError("must be a list of names, or a text of names with commas between them")
    if any(not name.strip() for name in names) or sum(map(len, names)) > MAX_NAMES:
        raise ValueError(f"must hold names that are not empty, of at most {MAX_NAMES} characters together")
    return ",".join(name.strip() for name in names)


MAX_NAMES = 10_000
Names = Annotated[
    str,
    BeforeValidator(_names_text),
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True}),
]
"""A list of names, or a text of names with commas between them; kept as the text."""


def _check_json(value: Any) -> Any:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("must contain finite numbers only")
    return value


_ANY_OBJECT = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
JsonObject = Annotated[
    dict[str, Any],
    AfterValidator(_check_json),
    WithJsonSchema(_ANY_OBJECT),
]


def object_without(fields: Mapping[str, str]) -> WithJsonSchema:
    """Return the schema of a JSON object whose rule tests `has(self.field)`: CEL sees only declared fields.

    `fields` are names with their types.
    """
    bounds: dict[str, dict[str, Any]] = {
        "string": {"maxLength": MAX_SHORT},
        "array": {"maxItems": MAX_SHORT, "items": dict(_ANY_OBJECT)},
    }
    properties = {
        name: {"description": NOT_ALLOWED, "type": type_, **bounds.get(type_, {})}
        for name, type_ in fields.items()
    }
    return WithJsonSchema({**_ANY_OBJECT, "properties": properties})


@dataclass(frozen=True, slots=True)
class _Matching:
    """A string that matches a pattern as a whole; `message` describes what it must be."""

    pattern: str
    message: str
    max_length: int
    min_length: int = 1

    def check(self, value: str) -> str:
        """Return the value itself. Raises ValueError."""
        fits = self.min_length <= len(value) <= self.max_length
        if not fits or not re.fullmatch(self.pattern, value, re.ASCII):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        bounds = {"minLength": self.min_length, "maxLength": self.max_length}
        return {"type": "string", **bounds, "pattern": f"^({self.pattern})$"}


MAX_JOB_NAME = 40
JOB_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
JOB_NAME_WORDS = (
    f"must be at most {MAX_JOB_NAME} characters of a-z, 0-9 and '-', "
    "begin with a letter and end with a letter or digit"
)
JobName = Annotated[str, _Matching(JOB_NAME, JOB_NAME_WORDS, MAX_JOB_NAME)]
Namespace = Annotated[
    str,
    _Matching(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        "must be a namespace: at most 63 characters of a-z, 0-9 and '-'",
        63,
    ),
]
ObjectName = Annotated[
    str,
    _Matching(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "must be a Kubernetes name: at most 253 characters of a-z, 0-9, '-' and '.'",
        253,
    ),
]
SecretKey = Annotated[
    str, _Matching(r"[-._a-zA-Z0-9]+", "must be a key of a Secret: letters, digits, '-', '_' and '.'", 253)
]
ShortName = Annotated[
    str,
    _Matching(
        r"[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?",
        "must be at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
        63,
    ),
]
LabelValue = Annotated[
    str,
    _Matching(
        r"([a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?)?",
        "must be a label's value: at most 63 letters, digits, '-', '_' and '.'",
        63,
        0,
    ),
]
DottedFunction = Annotated[
    str,
    _Matching(
        r"[A-Za-z_]\w*([.][A-Za-z_]\w*)*:[A-Za-z_]\w*",
        "must be an import path such as package.module:function",
        253,
    ),
]
ResourceName = Annotated[
    str,
    _Matching(
        r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?",
        "must be an extended resource such as nvidia.com/gpu",
        253,
    ),
]
# It becomes part of a path in the hub's cache.
REVISION = r"[A-Za-z0-9_][-A-Za-z0-9_.+]*(/[A-Za-z0-9_][-A-Za-z0-9_.+]*)*"
Revision = Annotated[
    str,
    _Matching(
        REVISION,
        "must be a branch, tag or commit: letters, digits, '-', '_', '.', '+', and '/' between names",
        253,
    ),
]
RepositoryName = Annotated[
    str,
    _Matching(
        r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*",
        "must be organisation/name, of letters, digits, '-', '_' and '.'",
        96,
    ),
]
Word = Annotated[
    str,
    _Matching(r"[A-Za-z0-9][-A-Za-z0-9_]*", "must be one word of letters, digits, '-' and '_'", 64),
]
Text = Annotated[str, Field(max_length=16384)]
ShortText = Annotated[str, Field(min_length=1, max_length=MAX_SHORT)]
StopTokens = Annotated[list[ShortText], Field(max_length=16)]
RandomSeed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[int, Field(ge=0, le=2**31 - 1)]
