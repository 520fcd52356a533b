"""Verifier `jsonSchema`: a reply that is JSON and follows a schema.

The JSON is the whole reply after its thoughts, or the last fenced block in it. Strict: NaN, Infinity,
numbers beyond a double and repeated keys are not JSON. Patterns in a schema may backtrack for ever, so
this is for a worker process. Schemas are never fetched: a `$ref` must lead somewhere inside the schema.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import CannotDetermineSpecification, Unresolvable
from referencing.jsonschema import DRAFT202012

from tunesmith.data.formats.judgement import UNPARSABLE
from tunesmith.errors import PermanentError
from tunesmith.names import Reason
from tunesmith.sampling.reference import answer_of
from tunesmith.sampling.verdict import NOT_THE_SCHEMA, Verdict, accepted, rejected

_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^`\n]*$", re.MULTILINE)


class ReplySchema:
    """A checked schema. Raises PermanentError for a bad one."""

    def __init__(self, schema: dict[str, Any], path: str) -> None:
        self._validator = _validator(schema, f"{path}.schema")

    def verify(self, _record: Mapping[str, Any], reply: str) -> Verdict:
        """Return the verdict; the record has no part in it."""
        try:
            value = json_of(reply)
        except (ValueError, RecursionError) as error:
            return rejected(UNPARSABLE, message=str(error))
        flaw = best_match(self._validator.iter_errors(value))
        if flaw is None:
            return accepted()
        return rejected(NOT_THE_SCHEMA, at=flaw.json_path, message=flaw.message)


def json_of(reply: str) -> Any:
    """Return the value in a reply. Raises ValueError (or RecursionError) if there is none."""
    answer = answer_of(reply)
    try:
        return _strict(answer)
    except ValueError:
        fences = list(_FENCE.finditer(answer))
        if len(fences) < 2:
            raise
        return _strict(answer[fences[-2].end() : fences[-1].start()])


def _strict(text: str) -> Any:
    return json.loads(text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_each_once)


def _refused(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is given twice")
    return value


def _validator(schema: dict[str, Any], path: str) -> Validator:
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
        _check_references(schema)
    except SchemaError as error:
        where = ".".join([path, *map(str, error.absolute_path)])
        raise PermanentError(
            f"{where} is not valid JSON Schema: {error.message[:300]}.", reason=Reason.INVALID_MANIFEST
        ) from None
    except (Unresolvable, CannotDetermineSpecification, re.error, RecursionError) as error:
        raise PermanentError(
            f"{path} cannot be used: {str(error)[:300]}; references must be inside the schema.",
            reason=Reason.INVALID_MANIFEST,
        ) from None
    return kind(schema, registry=Registry())


def _check_references(schema: dict[str, Any]) -> None:
    """Resolve every reference, as validation would if a reply reached it."""
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    base = resource.id() or ""
    registry: Registry[Any] = Registry().with_resource(base, resource).crawl()
    if not any(isinstance(each.get("$id"), str) for each in _objects(schema) if each is not schema):
        for each in _objects(schema):
            if isinstance(reference := each.get("$ref"), str):
                registry.resolver(base).lookup(reference)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that can have a reference; those in enum, const and the like cannot."""
    if isinstance(value, dict):
        yield value
        for key, each in value.items():
            if key not in ("enum", "const", "default", "examples"):
                yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)
