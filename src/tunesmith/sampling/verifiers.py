"""The six verifiers: given a spec, a prompt's record and a reply, a verdict.

Pure, and all in this process: what the user's functions and patterns may do to a process is handled by
`pool`, which calls this in workers. Each verifier's imports are inside the function that creates it, since
a worker needs only one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.data.formats.judgement import UNPARSABLE, judge
from tunesmith.data.formats.legal import case_from
from tunesmith.sampling.numbers import last_number
from tunesmith.sampling.reference import answer_of, number_reference, plain_text, text_reference
from tunesmith.sampling.verdict import WRONG_ANSWER, Verdict, accepted, rejected

if TYPE_CHECKING:
    from tunesmith.api.generation import VerifierSpec

SECONDS = 10
# These take time linear in the reply and run nobody's code: they need no separate process.
HARMLESS = ("legal_judgement", "exact_match", "numeric")

Verify = Callable[[Mapping[str, Any], str], Verdict]


class VerifierTask(NamedTuple):
    """A verifier as plain values, which go to a worker without the classes of manifests.

    `path` is the verifier's place in the manifest, for messages; `seconds` the limit of one reply.
    """

    kind: str
    settings: dict[str, Any]
    path: str
    seconds: int = SECONDS


def task_of(spec: VerifierSpec | None, path: str = "verifier") -> VerifierTask:
    """Return the verifier that is set; legalJudgement if there is no spec, since it brings its own."""
    if spec is None or spec.legal_judgement is not None:
        return VerifierTask("legal_judgement", {}, f"{path}.legalJudgement")
    if spec.exact_match is not None:
        return VerifierTask("exact_match", {"field": spec.exact_match.field}, f"{path}.exactMatch")
    if spec.numeric is not None:
        settings = {"field": spec.numeric.field, "tolerance": spec.numeric.tolerance}
        return VerifierTask("numeric", settings, f"{path}.numeric")
    if spec.regex is not None:
        return VerifierTask(
            "regex", {"pattern": spec.regex.pattern, "field": spec.regex.field}, f"{path}.regex"
        )
    if spec.json_schema is not None:
        return VerifierTask("json_schema", {"schema": spec.json_schema.json_schema}, f"{path}.jsonSchema")
    assert spec.python is not None
    settings = {"function": spec.python.function}
    return VerifierTask("python", settings, f"{path}.python", spec.python.timeout_seconds)


def verify(spec: VerifierSpec | None, record: Mapping[str, Any], reply: str) -> Verdict:
    """Return the verdict on one reply, without any protection; for tests and for trying a verifier."""
    return load(task_of(spec))(record, reply)


def load(task: VerifierTask) -> Verify:
    """Return the verifier, ready to be called. Raises PermanentError, which names the manifest's field."""
    settings, path = task.settings, task.path
    match task.kind:
        case "legal_judgement":
            return _legal
        case "exact_match":
            return lambda record, reply: _exact(record, reply, settings["field"], f"{path}.field")
        case "numeric":
            return lambda record, reply: _numeric(record, reply, path=f"{path}.field", **settings)
        case "regex":
            from tunesmith.sampling.patterns import ReplyPattern

            return ReplyPattern(settings["pattern"], settings["field"], path).verify
        case "json_schema":
            from tunesmith.sampling.json_reply import ReplySchema

            return ReplySchema(settings["schema"], path).verify
        case _:
            from tunesmith.sampling.functions import Function

            return Function(settings["function"], path).verify


def check_record(task: VerifierTask, record: Mapping[str, Any]) -> None:
    """Raise RecordProblem if replies to this prompt could not be judged; its message names the field."""
    match task.kind:
        case "legal_judgement":
            case_from(record)
        case "numeric":
            number_reference(record, task.settings["field"], f"{task.path}.field")
        case "exact_match" | "regex" if task.settings["field"] is not None:
            text_reference(record, task.settings["field"], f"{task.path}.field")


def _legal(record: Mapping[str, Any], reply: str) -> Verdict:
    reason = judge(case_from(record), reply)
    return rejected(reason) if reason else accepted()


def _exact(record: Mapping[str, Any], reply: str, field: str, path: str) -> Verdict:
    answer, expected = plain_text(answer_of(reply)), text_reference(record, field, path)
    return accepted() if answer == expected else rejected(WRONG_ANSWER, answer=answer, expected=expected)


def _numeric(record: Mapping[str, Any], reply: str, field: str, tolerance: float, path: str) -> Verdict:
    expected, answer = number_reference(record, field, path), last_number(answer_of(reply))
    if answer is None:
        return rejected(UNPARSABLE, expected=str(expected))
    right = answer.equals(expected, tolerance)
    details = {"answer": str(answer), "expected": str(expected)}
    return accepted(**details) if right else rejected(WRONG_ANSWER, **details)
