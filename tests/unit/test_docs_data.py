"""What docs/data.md shows is true: every record is read, every prompt is what becomes of it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family

from tunesmith.api.data_formats import CharacterFormat, UserSimulationFormat
from tunesmith.api.datasets import DatasetSpec
from tunesmith.api.manifest import parse_document
from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data import prepare, read
from tunesmith.data.cache import FIRST_KEPT
from tunesmith.data.formats import character, pairs, user_simulation
from tunesmith.data.formats.user_prompt import shows_part
from tunesmith.data.read import BadRecord, Reader
from tunesmith.data.record import Skipped
from tunesmith.data.report import DatasetReport

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text("utf-8")
SECTION = re.compile(r"^#{2,3} (.+)\n((?:(?!#{2,3} ).*\n?)*)", re.MULTILINE)
SECTIONS = dict(SECTION.findall(PAGE))
FORMATS = {
    "Chat": {"chat": {}},
    "Instruction": {"instruction": {}},
    "Text": {"text": {}},
    "User simulation": {"userSimulation": {"expand": True}},
    "Character": {"character": {"name": "Tamsin Oake", "backgroundKeys": ["Story 1"]}},
    "Sampled": {"sampled": {}},
}
EVERYTHING = "profile_and_history_and_context"


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def records(block):
    """One value, or one a line."""
    try:
        return [json.loads(block)]
    except ValueError:
        return [json.loads(line) for line in block.splitlines()]


def rows(section):
    """Cells of the section's tables, without their heads."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= {"-"}]


def items(location, fmt):
    dataset = DatasetSpec.model_validate({"uri": f"file://{location}", **fmt})
    store, entries = find_files(dataset.uri, StorageOptions())
    return list(Reader(store, entries, dataset).items())


def items_of(tmp_path, values, fmt):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return items(path, fmt)


def as_shown(item):
    """A conversation as the page writes it."""
    lines = []
    for message in item.content.messages:
        learned = message.role == "assistant" and message.weight
        lines.append(f"{message.role}: " + (f"«{message.content}»" if learned else message.content))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("section", FORMATS)
def test_every_record_shown_is_read(tmp_path, section):
    shown = blocks(SECTIONS[section], "json")
    assert shown
    for block in shown:
        found = items_of(tmp_path, records(block), FORMATS[section])
        assert len(found) >= len(records(block))
        assert [each for each in found if isinstance(each, BadRecord | Skipped)] == []


@pytest.mark.parametrize("style", ["simple", "detailed", "flat"])
def test_each_prompt_style_is_as_shown(tmp_path, style):
    mara = records(blocks(SECTIONS["User simulation"], "json")[0])
    fmt = {"userSimulation": {"promptStyle": style, "ablationConfig": EVERYTHING}}
    assert as_shown(items_of(tmp_path, mara, fmt)[1]) in blocks(PAGE, "text")


def test_prompts_begin_in_the_language_of_the_data_as_shown(tmp_path):
    fmt = {"userSimulation": {"promptStyle": "detailed"}}
    for name, asked, said in (("小满", "要喝茶吗？", "要。"), ("さくら", "お茶はいかがですか。", "はい。")):
        value = {"context": [{"role": "user", "content": asked}], "next_question": said}
        (item,) = items_of(tmp_path, [{"user_profile": {"name": name}, **value}], fmt)
        assert any(as_shown(item).startswith(block) for block in blocks(PAGE, "text")), name


def test_expand_gives_the_samples_named(tmp_path):
    mara = records(blocks(SECTIONS["User simulation"], "json")[0])
    found = items_of(tmp_path, mara, FORMATS["User simulation"])
    assert "`Always.` and `Only in winter.`" in PAGE
    assert "«Always.»" in as_shown(found[1])
    assert "«Only in winter.»" in as_shown(found[1])


def test_continuation_prefix_is_as_shown(tmp_path):
    films = records(blocks(SECTIONS["User simulation"], "json")[2])
    (item,) = items_of(tmp_path, films, {"userSimulation": {}})
    assert as_shown(item) in blocks(PAGE, "text")


def test_movielens_is_as_shown(tmp_path):
    for name, block in zip(("ratings", "movies"), blocks(PAGE, "csv"), strict=True):
        (tmp_path / f"{name}.csv").write_text(block)
    found = items(tmp_path, {"userSimulation": {"ablationConfig": "history_only"}})
    assert as_shown(found[1]) in blocks(PAGE, "text")


def test_character_instructions_are_as_shown():
    kinds = {row[0]: row[2] for row in rows("Character")[1:]}
    for kind, told in kinds.items():
        option, _, text = told.partition(": ")
        assert option.strip("`") in {f"{kind}Instruction"}
        assert text == character._ENGLISH[kind]
    known = {info.alias for info in CharacterFormat.model_fields.values()}
    assert {"name", "speakers", "backgroundKeys", *(f"{kind}Instruction" for kind in kinds)} == known


def test_every_option_of_user_simulation_is_told_with_its_default():
    fields = UserSimulationFormat.model_fields.values()
    table = [row for row in rows("User simulation") if len(row) == 3][1:]
    told = {row[0].strip("`"): row[1].strip("`") for row in table}
    assert {info.alias for info in fields} == set(told)
    for name, default in UserSimulationFormat().model_dump(by_alias=True).items():
        assert default is None or yaml.safe_load(told[name]) == default, name


def test_the_ablation_table_is_true():
    table = {row[0].strip("`"): row[1:] for row in rows("User simulation") if len(row) == 4}
    table.pop("ablationConfig")
    assert len(table) == 7
    for name, cells in table.items():
        fmt = UserSimulationFormat.model_validate({"ablationConfig": name})
        assert [cell == "yes" for cell in cells] == [
            shows_part(fmt, p) for p in ("profile", "history", "context")
        ]


def test_every_yaml_is_right():
    found = blocks(PAGE, "yaml")
    assert len(found) >= 3
    for block in found:
        given = yaml.safe_load(block)
        spec = {
            "model": {"uri": "s3://models/base"},
            "datasets": [{"uri": "s3://datasets/d", "chat": {}}],
            "method": {"full": {}},
            "output": {"uri": "s3://models/out"},
        } | given
        head = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "x"}}
        parse_document({**head, "spec": spec}, "docs/data.md", 1)


def test_every_number_of_the_report_and_every_reason_is_told():
    told = set(re.findall(r"`(\w+)`", SECTIONS["What the report counts"]))
    assert set(DatasetReport("x").__dataclass_fields__) - {"name"} <= told
    left_out = set(re.findall(r"`([^`]+)`", SECTIONS["Bad, or left out"]))
    assert {
        read.NOT_IN_SUBSET, read.NO_DIALOGUE, pairs.TO_AVOID, character.ANOTHER_SPEAKER,
        prepare.ALSO_VALIDATES,
        user_simulation.BLANK, user_simulation.OWN_TURN, user_simulation.NOT_DRAWN, user_simulation.NOT_LAST,
    } <= left_out  # fmt: skip
    assert f"more than {FIRST_KEPT}" in SECTIONS["Caching"]


# The known limits.


def prepared(tmp_path, values, fmt, *, length=256, bad=0, **spec):
    path = tmp_path / "users.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    dataset = {"uri": f"file://{path}", "userSimulation": fmt, "maxBadRecords": bad}
    spec = small_spec({"maxLength": length}, datasets=[dataset], **spec)
    return prepare.prepare(spec, TOKENIZER, StorageOptions(), tmp_path / "made", first=20)


def user(name, *talks):
    data = [
        {
            "context": [{"source": ("user", "friend")[at % 2], "content": text} for at, text in enumerate(t)],
            "continuation": target,
        }
        for *t, target in talks
    ]
    return {"user_hash": name, "task": {"task_behavior_collections": [{"type": "chat", "data": data}]}}


@pytest.mark.parametrize(("style", "samples"), [("simple", 1), ("flat", 2)])
def test_one_reply_too_long_makes_an_expanded_dialogue_bad(tmp_path, style, samples):
    one = user("u1", ("Hm.", "Well?", "word " * 400, "And?", "Yes."), ("Hello.", "Tea?", "No."))
    made = prepared(tmp_path, [one], {"expand": True, "promptStyle": style}, bad=1)
    (report,) = made.reports
    assert (report.bad, report.samples) == (1, samples)
    assert "too long" in report.bad_records[0]


def test_a_user_held_out_whole_has_little_history_unless_drawn(tmp_path):
    users = [
        user(name, *(("Hm.", f"Question {n}?", f"Answer {n} of {name}.") for n in range(6)))
        for name in ("u1", "u2")
    ]
    seen = {}
    for name, most in (("all", {}), ("drawn", {"maxSamplesPerUser": 1})):
        (tmp_path / name).mkdir()
        fmt = {"ablationConfig": "history_and_context", **most}
        made = prepared(tmp_path / name, users, fmt, validation={"ratio": 0.5})
        prompt = TOKENIZER.tokenizer.decode(made.validation.sample(0).ids)
        seen[name] = prompt.count("Answer ")
    assert seen == {"all": 1, "drawn": 6}
