"""docs/sampling.md says what is there: its manifests are right, no verifier, file or reason is left out."""

import re
from pathlib import Path

import pytest
from pydantic.alias_generators import to_camel
from tests.manifests import parse_text

from tunesmith.api.generation import VERIFIERS
from tunesmith.data.formats.terms import parse_term
from tunesmith.names import PREFERENCE_KEY, REJECTED_KEY, SAMPLED_DATA_KEY, SAMPLING_STATS_KEY
from tunesmith.sampling.verdict import ERROR, PROMPT_TOO_LONG, TIMEOUT, TRUNCATED

PAGE = (Path(__file__).resolve().parents[2] / "docs/sampling.md").read_text()
BLOCKS = [block.partition("```")[0] for block in PAGE.split("```yaml\n")[1:]]


def test_the_manifest_is_right():
    jobs, problems = parse_text(BLOCKS[0], "docs/sampling.md")
    assert [str(problem) for problem in problems] == []
    assert jobs[0].spec.verifier.numeric.field == "answer"


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_every_verifier_is_told(verifier):
    assert f"| `{to_camel(verifier)}: {{" in PAGE


@pytest.mark.parametrize(
    "word",
    [
        *(SAMPLED_DATA_KEY, REJECTED_KEY, PREFERENCE_KEY, SAMPLING_STATS_KEY),
        *(ERROR, TIMEOUT, TRUNCATED, PROMPT_TOO_LONG),
    ],
)
def test_names_are_those_of_the_program(word):
    assert f"`{word}`" in PAGE


def test_terms_are_read_as_the_table_says():
    rows = PAGE.partition("| written | months |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    wrong = []
    for row in rows:
        written, told = (re.findall(r"`([^`]+)`", cell) or [cell] for cell in row.split("|")[1:3])
        months = re.findall(r"[0-9]+|XT", told[0].partition(":")[0]) * len(written)
        wrong += [text for text, each in zip(written, months, strict=False) if str(parse_term(text)) != each]
    assert len(rows) == 5
    assert wrong == []
