"""The data of examples/legal: what its script makes, readable, and judged as the articles' text says."""

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from tunesmith.api.references import in_order, missing_problems
from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.judgement import judge
from tunesmith.data.formats.legal import articles_from, case_from, prompt_messages
from tunesmith.local.manifests import load_jobs

HERE = Path(__file__).resolve().parents[2] / "examples" / "legal"
FILES = ["articles.jsonl", "cases.jsonl", "test_cases.jsonl", "warm_up.jsonl"]
# How the facts tell of what an article may call graver, and of the opposite.
GRAVE = {
    "night": (r"night", r"day"),
    "armed": (r"\barmed", r"unarmed"),
    "again": (r"again", r"once"),
}
# By the first verb of the facts.
ACTS = {
    "took": "theft",
    "burned": "arson",
    "brought": "smuggling",
    "caught": "poaching",
    "sold": "fraud",
    "put": "forgery",
}
ALLOWED = r"allowed|paid|permit\.|buyer knew|asked to"


def script():
    spec = importlib.util.spec_from_file_location("legal_make_cases", HERE / "make_cases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


MAKE = script()


def lines(name):
    return [json.loads(line) for line in (HERE / name).read_text("utf-8").splitlines()]


ARTICLES = articles_from(lines("articles.jsonl"))
CASES, TEST_CASES, WARM_UP = lines("cases.jsonl"), lines("test_cases.jsonl"), lines("warm_up.jsonl")
BOTH = pytest.mark.parametrize("records", [CASES, TEST_CASES], ids=["cases", "test_cases"])


def test_the_committed_files_are_what_the_script_makes(tmp_path):
    assert MAKE.main([str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == FILES
    for name in FILES:
        again = "python examples/legal/make_cases.py"
        assert (tmp_path / "new" / name).read_bytes() == (HERE / name).read_bytes(), again


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--seed"], 2), (["a", "b"], 2)])
def test_the_script_tells_how_to_call_it(words, code, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert MAKE.main(words) == code
    assert "make_cases.py [OUT_FOLDER]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_there_are_enough_cases_and_none_is_in_two_places():
    assert (len(CASES) >= 120, len(TEST_CASES) >= 60, len(WARM_UP) >= 24) == (True, True, True)
    shown = "\n".join(turn["content"] for record in WARM_UP for turn in record["messages"])
    assert [record["fact"] for record in CASES + TEST_CASES if record["fact"] in shown] == []
    for field in ("id", "fact"):
        assert len({record[field] for record in CASES + TEST_CASES}) == len(CASES + TEST_CASES)


@BOTH
def test_all_judgements_are_there(records):
    found = Counter((record.get("charge"), record.get("prison_time")) for record in records)
    violations = {key: number for key, number in found.items() if key[0]}
    assert len({charge for charge, _ in violations}) == 6
    assert len(violations) == 12  # each charge with two terms
    # Nothing wins by always saying the same.
    assert set(violations.values()) == {len(records) // 15}
    assert found[None, None] == len(records) // 5
    assert Counter(len(record["relevant_articles"]) for record in records).keys() == {1, 2}


@BOTH
def test_the_readers_take_every_record(records):
    for record in records:
        case = case_from(record)
        prompt = prompt_messages(case, ARTICLES)
        assert all(ARTICLES[key] in prompt[0].content for key in record["relevant_articles"])


@BOTH
def test_what_is_right_follows_from_fact_and_articles(records):
    for record in records:
        texts = [ARTICLES[key] for key in record["relevant_articles"]]
        right = (record["charge"], record["prison_time"]) if "charge" in record else None
        assert right == judgement(texts, record["fact"]), record


def judgement(texts, fact):
    """Charge and months, read without the script's tables."""
    terms = [
        re.search(r"is (\w+): (?:by )?\w+ (\d+) months, (?:by )?(\w+) (\d+) months\.$", text).groups()
        for text in texts
    ]
    ((charge, months, grave, more),) = [term for term in terms if term[0] == ACTS[fact.split()[1]]]
    holds, not_holds = (bool(re.search(pattern, fact)) for pattern in GRAVE[grave])
    assert holds != not_holds, fact
    return None if re.search(ALLOWED, fact) else (charge, int(more if holds else months))


def test_written_judgements_are_right_and_prompted_as_in_sampling():
    drawn = MAKE.draw(MAKE.random.Random(MAKE.SEED), len(WARM_UP))
    assert len(drawn) == len(WARM_UP)
    for (record, reason), written in zip(drawn, WARM_UP, strict=True):
        case = case_from(record)
        (conversation,) = conversation_from_chat(written)
        *prompt, reply = conversation.messages
        assert tuple(prompt) == prompt_messages(case, ARTICLES)
        assert judge(case, reply.content) == ""
        assert reply.content.splitlines()[0] == reason
        assert reason in record["fact"] if not case.charges else f"{record['prison_time']} months" in reason


def test_the_pipeline_is_right_and_reads_what_is_here():
    jobs = load_jobs([HERE / "pipeline.yaml"])
    assert missing_problems(jobs) == []
    names = ["legal-warm-up", "legal-sample", "legal-judge"]
    assert [job.name for job in in_order(list(reversed(jobs)))[0]] == names
    read = set(re.findall(r"s3://datasets/legal/(\S+?)[}\s]", (HERE / "pipeline.yaml").read_text("utf-8")))
    assert sorted(read) == FILES
    readme = (HERE / "README.md").read_text("utf-8")
    assert [name for name in FILES if f"s3://datasets/legal/{name}=examples/legal/{name}" not in readme] == []
