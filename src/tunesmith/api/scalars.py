"""Field types for single values: names, quantities, numbers and texts with bounds, free-form objects."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

_QUANTITY = r"^([0-9]+([.][0-9]*)?|[.][0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$"


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


_INT_OR_AUTO_RULE = {
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
            "x-kubernetes-validations": [_INT_OR_AUTO_RULE],
        }
    ),
]
BoolOrAuto = Annotated[
    Any,
    AfterValidator(_check_bool_or_auto),
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "enum": ["auto", True, False]}),
]


def _check_json(value: Any) -> Any:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("must hold finite numbers only")
    return value


JsonObject = Annotated[
    dict[str, Any],
    AfterValidator(_check_json),
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]


def _matching(pattern: str, message: str, max_length: int, min_length: int = 1) -> Any:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not min_length <= len(value) <= max_length or not compiled.fullmatch(value):
            raise ValueError(message)
        return value

    schema = {"type": "string", "minLength": min_length, "maxLength": max_length, "pattern": f"^({pattern})$"}
    return Annotated[str, AfterValidator(check), WithJsonSchema(schema)]


MAX_JOB_NAME = 40
JOB_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
JOB_NAME_WORDS = (
    f"must be at most {MAX_JOB_NAME} characters of a-z, 0-9 and '-', "
    "begin with a letter and end with a letter or digit"
)
JobName = _matching(JOB_NAME, JOB_NAME_WORDS, MAX_JOB_NAME)
Namespace = _matching(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    "must be a namespace: at most 63 characters of a-z, 0-9 and '-'",
    63,
)
ObjectName = _matching(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    "must be a Kubernetes name: at most 253 characters of a-z, 0-9, '-' and '.'",
    253,
)
SecretKey = _matching(r"[-._a-zA-Z0-9]+", "must be a key of a Secret: letters, digits, '-', '_' and '.'", 253)
ShortName = _matching(
    r"[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?",
    "must be at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    63,
)
LabelValue = _matching(
    r"([a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?)?",
    "must be a label's value: at most 63 letters, digits, '-', '_' and '.'",
    63,
    0,
)
DottedFunction = _matching(
    r"[A-Za-z_]\w*([.][A-Za-z_]\w*)*:[A-Za-z_]\w*",
    "must be an import path such as package.module:function",
    253,
)
ResourceName = _matching(
    r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?",
    "must be an extended resource such as nvidia.com/gpu",
    253,
)
Text = Annotated[str, Field(max_length=16384)]
ShortText = Annotated[str, Field(min_length=1, max_length=253)]
StopTokens = Annotated[list[ShortText], Field(max_length=16)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
NotNegative = Annotated[int, Field(ge=0, le=2**31 - 1)]
