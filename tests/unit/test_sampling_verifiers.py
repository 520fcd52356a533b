import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.api.generation import VerifierSpec
from tunesmith.data.formats.judgement import judge
from tunesmith.data.formats.legal import case_from
from tunesmith.data.record import RecordProblem
from tunesmith.sampling.reference import answer_of
from tunesmith.sampling.verdict import REASONS, small
from tunesmith.sampling.verifiers import check_record, task_of, verify
from tunesmith.tokens.thoughts import KNOWN

THOUGHTS = [
    "",
    "<think>\nIt may be 13.\n</think>\n\n",
    "Opened by the template: 13.</think>",
    "<think></think>",
]
TAGS = [text for tag in KNOWN for text in (tag.begin, tag.end)]
AROUND = ["{}", " {}\n", "\r\n{}\t", "\u3000{}\n\n"]


def spec(**verifier):
    return VerifierSpec.model_validate(verifier)


def reason(verifier, record, reply):
    verdict = verify(verifier, record, reply)
    assert verdict.accepted == (verdict.reason == "")
    assert verdict.reason in ("", *REASONS)
    json.dumps(verdict.details, allow_nan=False).encode()
    return verdict.reason


# exactMatch: what equals what.
EXACT = [
    ("Paris", "Paris", True),
    ("Paris", "paris", False),
    ("Paris", "Paris.", False),
    ("Paris", "Par is", False),
    ("Paris", "", False),
    ("caf\u00e9", "cafe\u0301", True),
    ("cafe\u0301", "caf\u00e9", True),
    ("a\nb", "a\r\nb", True),
    ("a b", "a  b", False),
    (" Paris\n", "Paris", True),
    (42, "42", True),
    (42, "42.0", False),
    (0.5, "0.5", True),
    (True, "true", True),
    (True, "True", False),
    ("不违规", "不违规", True),
    ("ﬁ", "fi", False),
]


@each(("field", "answer", "equal"), EXACT)
@each(("thought", "around"), list(product(THOUGHTS, AROUND)))
def test_exact_match(field, answer, equal, thought, around):
    reply = thought + around.format(answer)
    assert reason(spec(exactMatch={"field": "output"}), {"output": field}, reply) == (
        "" if equal else "wrong_answer"
    )


@given(st.text(min_size=1).filter(lambda text: text.strip() and not any(tag in text for tag in TAGS)))
def test_every_text_equals_itself(text):
    assert reason(spec(exactMatch={"field": "x"}), {"x": text}, text) == ""


# numeric: the record's field, the reply's end, the tolerance.
NUMERIC = [
    (72, "#### 72", 0, ""),
    ("48/2 = 24\n#### 72", "so 72.", 0, ""),
    ("1,234.5", "It is $1,234.50.", 0, ""),
    (3.14159, "about 3.14", 0.01, ""),
    (3.14159, "about 3.14", 0, "wrong_answer"),
    (0.75, r"\boxed{\frac{3}{4}}", 0, ""),
    (0.12, "12 %", 0, ""),
    (12, "12 %", 0, ""),
    ("12%", "0.12", 0, ""),
    (18, "十八。", 0, ""),
    (-5, "x = -5", 0, ""),
    (5, "x = -5", 0, "wrong_answer"),
    (5, "no idea", 0, "unparsable"),
    (5, "NaN", 0, "unparsable"),
    (5, "5 and then Infinity", 0, "unparsable"),
    (5, "3,5", 0, "unparsable"),
    (5, "5, not 6", 0, "wrong_answer"),
]


@each(("field", "answer", "tolerance", "expected"), NUMERIC)
@each(("thought", "around"), list(product(THOUGHTS, AROUND)))
def test_numeric(field, answer, tolerance, expected, thought, around):
    verifier = spec(numeric={"field": "meta.answer", "tolerance": tolerance})
    assert reason(verifier, {"meta": {"answer": field}}, thought + around.format(answer)) == expected


# regex: pattern, field or None, reply, reason.
REGEX = [
    (r"\d+", None, "a 5", ""),
    (r"^\d+$", None, "a 5", "no_match"),
    (r"^<think>.*</think>", None, "<think>a</think>b", ""),
    (r"(?s)^a.b$", None, "a\nb", ""),
    (r"answer is (\d+)", "Gold", "the answer is 5", ""),
    (r"answer is (\d+)", "Gold", "the answer is 4, no: the answer is 5", ""),
    (r"answer is (\d+)", "Gold", "the answer is 5, no: the answer is 4", "wrong_answer"),
    (r"answer is (\d+)", "Gold", "five", "no_match"),
    (r"answer is(.*)", "Gold", "answer is 5 ", ""),
    (r"a(5)?b", "Gold", "ab", "no_match"),
    (r"a(5)?b", "Gold", "a5b ab", ""),
    (r"\p{Han}+", None, "不违规", ""),
]


@each(("pattern", "field", "reply", "expected"), REGEX)
@each("gold", ["5", 5, " 5\n"])
def test_regex(pattern, field, reply, expected, gold):
    verifier = spec(regex={"pattern": pattern, **({"field": field} if field else {})})
    assert reason(verifier, {"Gold": gold}, reply) == expected


SCHEMA = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/whole"}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"whole": {"type": "integer", "minimum": 0}},
}
JSON = [
    ('{"a": 1}', ""),
    ('{ "a" :\n 1 }', ""),
    ('{"a": 1.0}', ""),
    ('{"a": -1}', "schema_mismatch"),
    ('{"a": "1"}', "schema_mismatch"),
    ('{"a": true}', "schema_mismatch"),
    ('{"b": 1}', "schema_mismatch"),
    ('{"a": 1, "b": 1}', "schema_mismatch"),
    ("[]", "schema_mismatch"),
    ("null", "schema_mismatch"),
    ('{"a": 1', "unparsable"),
    ("{'a': 1}", "unparsable"),
    ('{"a": 1,}', "unparsable"),
    ('{"a": NaN}', "unparsable"),
    ('{"a": 1e999}', "unparsable"),
    ('{"a": 1, "a": 1}', "unparsable"),
    ('{"a": ' + "9" * 5000 + "}", "unparsable"),
    ("[" * 100_000, "unparsable"),
    ('{"a": "\\ud800"}', "schema_mismatch"),
    ("", "unparsable"),
]
FENCES = [
    "{}",
    "\n{}\n",
    "```json\n{}\n```",
    "```\n{}\n```",
    "```JSON\r\n{}\r\n```\r\n",
    "```{{.json}}\n{}\n```",
    '```json title="x"\n{}\n```',
    "~~~json\n{}\n~~~",
    "````\n{}\n````",
    "Here:\n\n```json\n{}\n```\nDone.",
    '```json\n{{"a": 9}}\n```\nNo:\n```json\n{}\n```',
]


@each(("text", "expected"), JSON, ids=[text[:20] for text, _ in JSON])
@each(("thought", "fence"), list(product(THOUGHTS, FENCES)))
def test_json_schema(text, expected, thought, fence):
    reply = thought + fence.replace("{}", text).replace("{{", "{").replace("}}", "}")
    assert reason(spec(jsonSchema={"schema": SCHEMA}), {}, reply) == expected


def test_json_among_words_is_no_json_reply():
    assert reason(spec(jsonSchema={"schema": SCHEMA}), {}, 'Here: {"a": 1}') == "unparsable"


CASES = [
    {"fact": "f", "relevant_articles": [], "charge": "盗窃", "prison_time": 18},
    {"fact": "f", "relevant_articles": [], "charge": "盗窃罪", "prison_time": 10000},
    {"fact": "f", "relevant_articles": []},
    {"fact": "f", "relevant_articles": [], "charge": "盗窃"},
]
JUDGEMENTS = [
    "盗窃罪 | 18",
    "盗窃｜十八个月",
    "盗窃 | XT",
    "诈骗 | 18",
    "不违规",
    "也许",
    "",
    "<answer>盗窃|1年6个月</answer>",
]


@each(("record", "reply"), list(product(CASES, JUDGEMENTS)))
@each("thought", THOUGHTS)
def test_legal_judgement_is_judge(record, reply, thought):
    for verifier in (None, spec(legalJudgement={})):
        assert reason(verifier, record, thought + reply) == judge(case_from(record), thought + reply)


def test_legal_reasons():
    table = [[reason(None, record, reply) for reply in JUDGEMENTS[:6]] for record in CASES[:3]]
    charge, term, none = "wrong_charge", "wrong_term", "unparsable"
    assert table == [
        ["", "", term, charge, charge, none],
        [term, term, "", charge, charge, none],
        [charge, charge, charge, charge, "", none],
    ]


ANY = [
    spec(exactMatch={"field": "x"}),
    spec(numeric={"field": "x"}),
    spec(regex={"pattern": "(.)", "field": "x"}),
]


@each("verifier", ANY)
@each("record", [{}, {"x": None}, {"x": []}, {"x": {}}, {"x": float("nan")}, {"x": " "}, {"y": 1}])
def test_records_whose_replies_cannot_be_judged(verifier, record):
    with pytest.raises(RecordProblem, match=r"^x "):
        check_record(task_of(verifier), record)


@pytest.mark.parametrize("value", ["none", True, float("inf"), "3,5"])
def test_references_that_are_no_number(value):
    with pytest.raises(RecordProblem, match=r"^x is .*verifier\.numeric\.field"):
        check_record(task_of(ANY[1]), {"x": value})


def test_records_that_can_be_judged():
    check_record(task_of(None), CASES[0])
    check_record(task_of(spec(regex={"pattern": "a"})), {})
    check_record(task_of(spec(jsonSchema={"schema": {}})), {})
    for verifier in ANY:
        check_record(task_of(verifier), {"x": 5})
    with pytest.raises(RecordProblem, match="fact is missing"):
        check_record(task_of(None), {})


@pytest.mark.parametrize(
    "verifier", [*ANY, spec(jsonSchema={"schema": SCHEMA}), spec(regex={"pattern": "a+b"})]
)
@given(st.text())
def test_no_reply_raises(verifier, reply):
    reason(verifier, {"x": "5"}, reply)


@given(st.text().filter(lambda text: not any(tag in text for tag in TAGS)), st.sampled_from(THOUGHTS))
def test_answer_comes_after_thoughts(answer, thought):
    assert answer_of(thought + answer) == answer.strip()
    assert answer_of("<think>" + answer) == ""


@given(
    st.dictionaries(st.text(), st.recursive(st.floats() | st.text() | st.integers() | st.binary(), st.lists))
)
def test_details_are_json_and_small(details):
    assert len(json.dumps(small(details), allow_nan=False).encode()) < 400_000
