import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError


def load(text):
    (document,) = load_documents(text, "x.yaml")
    return document


SCALARS = {
    "2e-4": 2e-4,
    "2.0e-4": 2e-4,
    "1E5": 100000,
    "1.0": 1,
    "0.5": 0.5,
    ".5": 0.5,
    "5.": 5,
    "-0.0": 0,
    "+7": 7,
    "0": 0,
    "0o17": 15,
    "0x1F": 31,
    "12345678901234567890": 12345678901234567890.0,
    "1" * 30: float("1" * 30),
    "true": True,
    "False": False,
    "yes": "yes",
    "no": "no",
    "on": "on",
    "y": "y",
    "~": None,
    "null": None,
    "": None,
    "2024-01-01": "2024-01-01",
    "2024-01-01T00:00:00Z": "2024-01-01T00:00:00Z",
    "12:30:45": "12:30:45",
    "1_000": "1_000",
    "0b11": "0b11",
    "1.2.3": "1.2.3",
    "1e": "1e",
    '"1"': "1",
    "'true'": "true",
    "=": "=",
    "!!str 5": "5",
    "!!float 5": 5,
    "!!int 5": 5,
    "!!null x": None,
    "芙宁娜": "芙宁娜",
}


@each("text", SCALARS)
def test_plain_scalars(text):
    value = load(f"a: {text}")["a"]
    assert value == SCALARS[text]
    assert type(value) is type(SCALARS[text])


def test_not_numbers_are_read_so_that_the_field_can_be_named():
    assert math.isnan(load("a: .nan")["a"])
    assert load("a: [.inf, -.Inf, 1e999]")["a"] == [math.inf, -math.inf, math.inf]


@pytest.mark.parametrize(
    "text",
    ["a: 1\r\nb: [x]\r\n", "\ufeffa: 1\nb: [x]\n", "\ufeffa: 1\nb: [x]\n".encode(), b'{"a": 1, "b": ["x"]}'],
    ids=["windows", "mark-in-text", "mark-in-bytes", "json"],
)
def test_ends_of_lines_byte_order_marks_and_json(text):
    assert load(text) == {"a": 1, "b": ["x"]}


def test_several_documents():
    assert load_documents("a: 1\n---\n---\nb: 2\n...\n---\nc: 3\n", "x") == [
        {"a": 1},
        None,
        {"b": 2},
        {"c": 3},
    ]


def test_anchors_and_merge_keys():
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\none: {<<: *b, x: 5}\n"
    text += "two: {x: 6, <<: [*b, *m]}\nsame: *b\n"
    document = load(text)
    assert document["one"] == {"x": 5, "y": 2}
    assert document["two"] == {"x": 6, "y": 2, "z": 4}
    assert document["same"] == document["base"] == {"x": 1, "y": 2}


def test_a_merge_into_a_merged_object():
    assert load("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n")["c"] == {"x": 2, "y": 3}


def test_the_document_of_an_error_is_counted():
    with pytest.raises(ManifestError) as caught:
        load_documents("a: 1\n---\nb: [\n", "x.yaml")
    assert caught.value.problems[0].document == 2


def problems_of(text):
    try:
        return load_documents(text, "x") and []
    except ManifestError as error:
        return error.problems


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_any_bytes_give_documents_or_one_problem(text):
    assert len(problems_of(text)) <= 1


@settings(max_examples=200)
@given(st.text("[]{}:,-&*!<|>\"'#\n\t ab01~%@.", max_size=60))
def test_any_punctuation_gives_documents_or_one_problem(text):
    assert len(problems_of(text)) <= 1


def test_what_is_nested_too_deep_is_one_problem_whoever_notices_first():
    """The library reads ahead of what it hands out, and newer ones have a limit of their own."""
    shapes = {
        "lists": lambda n: (1, "a: " + "[" * n + "]" * n),
        "lists left open": lambda n: (1, "a: " + "[" * n),
        "objects": lambda n: (1, "{a: " * n + "1" + "}" * n),
        "objects with quoted keys": lambda n: (1, '{"a": ' * n),
        "items in one line": lambda n: (1, "- " * n + "1"),
        "indentation": lambda n: (101, "\n".join(" " * i + "a:" for i in range(n))),
        "a later document": lambda n: (3, "a: 1\n---\n" + "[" * n),
    }
    wrong = {}
    for name, shape in shapes.items():
        for depth in (150, 1500, 2500):
            line, text = shape(depth)
            document = 2 if "---" in text else 1
            with pytest.raises(ManifestError) as raised:
                load_documents(text, "x.yaml")
            said = [str(problem) for problem in raised.value.problems]
            if said != [f"x.yaml, document {document}: line {line}: is nested more than 100 deep"]:
                wrong[name, depth] = said
    assert wrong == {}


def test_a_number_that_no_program_reads_is_one_problem():
    for text in ("a: 0x" + "f" * 5000, "a: 0o" + "7" * 5000):
        with pytest.raises(ManifestError, match=r"line 1, column 4: .* is too large a number"):
            load_documents(text, "x.yaml")
