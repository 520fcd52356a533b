"""What every part of a manifest is made of: a strict model, rules with their CEL, and field types.

A rule about one object is written once, as a `Rule`: its `check` runs here, its `cel` goes into the CRD.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule across the fields of one object.

    `check` gets the model and says whether it is right; `cel` says the same to the API server;
    `field` is the dotted field the message is about ("" for the object itself).
    """

    message: str
    cel: str
    check: Callable[[Any], bool]
    field: str = ""


class Model(BaseModel):
    """A strict object: camelCase names, unknown fields refused, no conversions, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _follow_rules(self) -> Self:
        broken = [(rule.field, rule.message) for rule in self.rules if not rule.check(self)]
        if broken:
            raise PydanticCustomError("rules", "{text}", {"broken": broken, "text": broken[0][1]})
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values with every default filled in and absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def has(model: Any, name: str) -> bool:
    """Whether the optional field `name` (in snake case) is set."""
    return getattr(model, name) is not None


def one_of(*names: str, required: bool = True) -> Rule:
    """Exactly one (or, if not `required`, at most one) of the optional fields is set."""
    camel = [to_camel(name) for name in names]
    count = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in camel)
    listed = ", ".join(camel[:-1]) + f" and {camel[-1]}"
    if required:
        return Rule(
            f"set exactly one of {listed}",
            f"{count} == 1",
            lambda model: sum(has(model, name) for name in names) == 1,
        )
    return Rule(
        f"set at most one of {listed}",
        f"{count} <= 1",
        lambda model: sum(has(model, name) for name in names) <= 1,
    )


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_S3 = re.compile(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$")
_HF = re.compile(r"^hf://[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
MAX_URI = 1024


def _check_path(uri: str) -> str:
    if _CONTROL.search(uri):
        raise ValueError("has a control character in it")
    if len(uri) > MAX_URI:
        raise ValueError(f"is longer than {MAX_URI} characters")
    path = uri.split("://", 1)[-1] if "://" in uri else uri
    if ".." in path.split("/"):
        raise ValueError("must not contain '..'")
    if "//" in path:
        raise ValueError("must not contain '//' after the scheme")
    return uri


def _check_storage_uri(uri: str) -> str:
    _check_path(uri)
    if uri.startswith("s3://"):
        if not _S3.match(uri):
            raise ValueError("is not an S3 address; write s3://bucket/key with a lower-case bucket name")
    elif uri.startswith("file://"):
        if not uri.startswith("file:///"):
            raise ValueError("needs an absolute path; write file:///path")
    elif not uri.startswith("/"):
        raise ValueError("is not an address; write s3://bucket/key or file:///path")
    return uri


def _check_model_uri(uri: str) -> str:
    if uri.startswith("hf://"):
        _check_path(uri)
        if not _HF.match(uri):
            raise ValueError("is not a model on the hub; write hf://organisation/name")
        return uri
    try:
        return _check_storage_uri(uri)
    except ValueError as error:
        raise ValueError(str(error).replace("write s3", "write hf://organisation/name, s3")) from None


def _check_output_uri(uri: str) -> str:
    _check_storage_uri(uri)
    if uri.startswith("s3://") and not uri.removeprefix("s3://").partition("/")[2].strip("/"):
        raise ValueError("needs a folder below the bucket; write s3://bucket/folder")
    return uri


def _check_url(url: str) -> str:
    if _CONTROL.search(url) or " " in url:
        raise ValueError("has a space or control character in it")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("is not a web address; write https://host/path")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password; name a Secret instead")
    return url


def _uri_schema(pattern: str) -> WithJsonSchema:
    rules = [
        {"rule": "!self.matches('(^|/)[.][.](/|$)')", "message": "must not contain '..'"},
        {
            "rule": "!self.matches('[^:]//') && !self.startsWith('//')",
            "message": "must not contain '//' after the scheme",
        },
        {"rule": "!self.matches('[[:cntrl:]]')", "message": "must not contain control characters"},
    ]
    return WithJsonSchema(
        {"type": "string", "maxLength": MAX_URI, "pattern": pattern, "x-kubernetes-validations": rules}
    )


_STORAGE = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.*|/[^/].*"
StorageUri = Annotated[str, AfterValidator(_check_storage_uri), _uri_schema(f"^({_STORAGE})$")]
OutputUri = Annotated[
    str,
    AfterValidator(_check_output_uri),
    _uri_schema(r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.*[^/].*|file:///.*|/[^/].*)$"),
]
ModelUri = Annotated[
    str,
    AfterValidator(_check_model_uri),
    _uri_schema(rf"^({_STORAGE}|hf://[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*)$"),
]
Url = Annotated[
    str,
    AfterValidator(_check_url),
    WithJsonSchema({"type": "string", "maxLength": 1024, "pattern": r"^https?://[^@/\s]+(/[^\s]*)?$"}),
]

_QUANTITY = r"^([0-9]+([.][0-9]*)?|[.][0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$"


def _check_quantity(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('is not a quantity; write a number or text such as "64" or 512Gi')
    if not re.match(_QUANTITY, str(value)):
        raise ValueError(f'"{value}" is not a quantity; write a number or text such as "64" or 512Gi')
    return value


Quantity = Annotated[
    Any,
    AfterValidator(_check_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _QUANTITY}),
]


def _check_int_or_auto(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("must be auto or a whole number of at least 1")


def _check_bool_or_auto(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError("must be auto, true or false")


_INT_OR_AUTO_RULE = {
    "rule": "type(self) == int ? self >= 1 : self == 'auto'",
    "message": "must be auto or a whole number of at least 1",
}
IntOrAuto = Annotated[
    Any,
    AfterValidator(_check_int_or_auto),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "x-kubernetes-validations": [_INT_OR_AUTO_RULE]}),
]
BoolOrAuto = Annotated[
    Any,
    AfterValidator(_check_bool_or_auto),
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "enum": ["auto", True, False]}),
]
JsonObject = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]


def _matching(pattern: str, message: str, max_length: int, min_length: int = 1) -> Any:
    def check(value: str) -> str:
        if not min_length <= len(value) <= max_length or not re.fullmatch(pattern, value):
            raise ValueError(message)
        return value

    schema = {"type": "string", "minLength": min_length, "maxLength": max_length, "pattern": f"^({pattern})$"}
    return Annotated[str, AfterValidator(check), WithJsonSchema(schema)]


JobName = _matching(
    r"[a-z]([-a-z0-9]*[a-z0-9])?",
    "must be at most 40 characters of a-z, 0-9 and '-', begin with a letter and end with a letter or digit",
    40,
)
ObjectName = _matching(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    "must be a Kubernetes name: at most 253 characters of a-z, 0-9, '-' and '.'",
    253,
)
SecretKey = _matching(r"[-._a-zA-Z0-9]+", "must be a key of a Secret: letters, digits, '-', '_' and '.'", 253)
ShortName = _matching(
    r"[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?",
    "must be at most 63 letters, digits, '-', '_' and '.'",
    63,
)
DottedFunction = _matching(
    r"[A-Za-z_]\w*([.][A-Za-z_]\w*)*:[A-Za-z_]\w*", "must be an import path such as package.module:function", 253
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
