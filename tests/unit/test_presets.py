"""What a model is asked in a talk is what it was asked in training, id for id."""

import json
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family
from tests.support import write_jsonl

from tunesmith.artifacts.store import StorageOptions
from tunesmith.cli import main
from tunesmith.data.formats import character
from tunesmith.data.formats.contents import LEGAL, USER
from tunesmith.data.formats.legal import Laws, case_from, prompt_messages
from tunesmith.data.formats.sampled import is_legal
from tunesmith.data.prepare import prepare
from tunesmith.data.prompts.asking import Exchange
from tunesmith.data.prompts.presets import PRESETS, card_section, presets_of, read_presets, save_presets
from tunesmith.errors import ModelError, UsageError
from tunesmith.local.chat_as import AsOptions, asking

TAMSIN, FURINA = {"name": "Tamsin Oake", "backgroundKeys": ["Story 1"]}, {"name": "芙宁娜"}
ARTICLES = {"264": "盗窃公私财物。", "H3": "Do not ring the bell."}
CHANGED = {"264": "盗窃公私财物，改。", "H3": "Ring the bell."}
PROFILE = {"profile": {"name": "Mara", "age": 41}, "personality": {"unstructured": "Brief."}}


def line(name, **fields):
    return {"speaker": name, "text": "Well.", **fields}


def case(fact, article):
    return {
        "fact": fact,
        "relevant_articles": [article],
        "response": "x | 1",
        "num_correct_for_this_sample": 1,
    }


def user(*items):
    data = [
        {"context": [{"source": who, "content": text} for who, text in context], "continuation": said}
        | ({"continuation_prefix": prefix} if prefix else {})
        for context, said, prefix in items
    ]
    talks = {"task_behavior_collections": [{"type": "chat", "data": data}]}
    return {"user_hash": "a41c9e07", "user": PROFILE, "task": {"description": "Chat.", **talks}}


EARLIER = ([("neighbour", "Lovely day.")], "If you like sun.", "")
TALK = ([("neighbour", "Tea?"), ("user", "Always."), ("neighbour", "Milk?")], "Only in winter.", "")
ABOUT_A_FILM = ([], "3.5", "Three Forks (1999): ")
EXTRACTED = {
    "user_profile": {"name": "Mara"}, "history": ["If you like sun."],
    "context": [{"role": "user", "content": "Tea?"}], "next_question": "Which tea?",
}  # fmt: skip
SYSTEM = {"systemPrompt": "Be brief."}
EVERYTHING = "profile_and_history_and_context"


def users(**fmt):
    return {"userSimulation": fmt}


# Dataset, its records, preset, what the person's record holds, earlier exchanges, the words.
TALKS = {
    "system prompt": (
        {"chat": {}, **SYSTEM},
        [{"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]}],
        "chat",
        None,
        [("a", "b")],
        "c",
    ),
    "instruction": (
        {"instruction": {}, **SYSTEM},
        [{"instruction": "Q", "output": "A"}],
        "instruction",
        None,
        [],
        "Q",
    ),
    "settings": (
        {"character": TAMSIN},
        [line("Tamsin Oake", input=" The lake ")],
        "settings",
        None,
        [("x", "y")],
        "The lake",
    ),
    "settings of one's own": (
        {"character": {**TAMSIN, "settingsInstruction": "Say {text} now:"}, **SYSTEM},
        [line("Tamsin Oake", input="The lake")],
        "settings",
        None,
        [],
        "The lake",
    ),
    "background": (
        {"character": TAMSIN},
        [line("Tamsin Oake", input="Story 1")],
        "background",
        None,
        [],
        "Story 1",
    ),
    "scene": (
        {"character": FURINA},
        [line("芙宁娜", source_title="第一幕")],
        "imitation",
        None,
        [],
        "第一幕",
    ),
    "no scene": ({"character": FURINA}, [line("芙宁娜")], "imitation-without-scene", None, [], ""),
    "Chinese settings": ({"character": FURINA}, [line("芙宁娜", input="你好")], "settings", None, [], "你好"),
    "a case": (
        {"sampled": {}},
        [case("甲盗窃。", "264")],
        "legal",
        {"relevant_articles": ["264"]},
        [("x", "y")],
        "甲盗窃。",
    ),
    "an English case": (
        {"sampled": {}, **SYSTEM},
        [case("Mira rang it.", "H3")],
        "legal",
        case("x", "H3"),
        [],
        "Mira rang it.",
    ),
    "a case of a changed law": (
        {"sampled": {"changedArticlesUri": "file:///changed"}, **SYSTEM},
        [case("Mira rang it.", "H3")],
        "legal",
        {"relevant_articles": ["H3"]},
        [],
        "Mira rang it.",
    ),
    "a user": (users(), [user(TALK)], "user", user(), [("Tea?", "Always.")], "Milk?"),
    "with history": (
        users(ablationConfig=EVERYTHING),
        [user(TALK, EARLIER)],
        "user",
        user(EARLIER),
        [("Tea?", "Always.")],
        "Milk?",
    ),
    "detailed": (
        users(promptStyle="detailed"),
        [user(TALK)],
        "user",
        user(EARLIER),
        [("Tea?", "Always.")],
        "Milk?",
    ),
    "flat": (users(promptStyle="flat"), [user(TALK)], "user", user(), [("Tea?", "Always.")], "Milk?"),
    "without dialogue": (
        users(ablationConfig="profile_and_history"),
        [user(ABOUT_A_FILM, EARLIER)],
        "user",
        user(EARLIER),
        [],
        "Three Forks (1999):",
    ),
    "extracted": (users(ablationConfig=EVERYTHING), [EXTRACTED], "user", EXTRACTED, [], "Tea?"),
}


def made_of(folder, dataset, records, tokenizer):
    """The prompt's ids of the first sample, and the presets as a model's folder has them."""
    folder.mkdir()
    data = write_jsonl(folder / "data.jsonl", records)
    if "sampled" in dataset:
        (folder / "articles.json").write_text(json.dumps(ARTICLES), "utf-8")
        (folder / "changed.json").write_text(json.dumps(CHANGED), "utf-8")
        files = {"articlesUri": f"file://{folder}/articles.json"}
        if dataset["sampled"]:
            files["changedArticlesUri"] = f"file://{folder}/changed.json"
        dataset = {**dataset, "sampled": files}
    spec = small_spec({"maxLength": 1024}, datasets=[{"uri": f"file://{data}", **dataset}])
    done = prepare(spec, tokenizer, StorageOptions(), folder / "made")
    save_presets(folder, spec.datasets, done.reports)
    sample = done.first[0].sample
    learned = [at for at, weight in enumerate(sample.weights) if weight]
    gaps = [at for before, at in pairwise(learned) if at != before + 1]
    return sample.ids[: (gaps or learned)[-1 if gaps else 0]], read_presets(folder)


@pytest.mark.engine
@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral"])
def test_a_talk_asks_what_training_asked(tmp_path, family):
    tokenizer, wrong = load_family(family), {}
    for number, (name, (dataset, records, preset, record, past, text)) in enumerate(TALKS.items()):
        folder = tmp_path / str(number)
        trained, presets = made_of(folder, dataset, records, tokenizer)
        given = None if record is None else str(write_jsonl(folder / "record.jsonl", [record]))
        how = asking(presets, AsOptions(preset, given), tmp_path)
        asked = tokenizer.prompt_ids(tokenizer.asked(how.ask([Exchange(*each) for each in past], text)))
        if asked != trained:
            wrong[name] = (tokenizer.decode(asked), tokenizer.decode(trained))
    assert wrong == {}


class Report:
    def __init__(self, *kinds):
        self.kinds = dict.fromkeys(kinds, 1)


def found(*pairs):
    datasets = [{"uri": "file:///d", **dataset} for dataset, _ in pairs]
    spec = small_spec({}, datasets=datasets)
    return presets_of(spec.datasets, [Report(*kinds) for _, kinds in pairs])


def test_presets_are_what_was_trained_on_each_once():
    character = {"character": TAMSIN}
    presets = found(
        (character, ["imitation"]),
        (character, ["settings", "imitation", "instruction"]),
        ({"character": FURINA}, ["settings"]),
        ({"chat": {}}, ["chat"]),
        ({"sampled": {}}, ["sampled"]),
        ({"text": {}, **SYSTEM}, ["text"]),
    )
    assert [preset.name for preset in presets] == ["imitation", "settings", "settings-2"]
    assert "芙宁娜" in presets[2].about


def test_presets_of_the_model_below_are_kept_where_their_names_are_free(tmp_path):
    base, upper, top = (tmp_path / name for name in ("base", "upper", "top"))
    for folder in (base, upper, top):
        folder.mkdir()
    report = [Report("settings", "background")]
    first = small_spec({}, datasets=[{"uri": "file:///d", "character": TAMSIN}])
    second = small_spec({}, datasets=[{"uri": "file:///d", "character": FURINA}])
    save_presets(base, first.datasets, report)
    save_presets(upper, second.datasets, [Report("settings")])
    save_presets(top, [], [], (base, upper))
    assert [(p.name, p.about[:3]) for p in read_presets(top)] == [
        ("settings", "芙宁娜"),
        ("background", "Tam"),
    ]
    save_presets(tmp_path, [], [])
    assert not (tmp_path / PRESETS).exists()


def test_the_card_shows_the_messages(tmp_path):
    (preset,) = found(({"character": {**FURINA, "settingsInstruction": "```\nhm"}}, ["settings"]))
    card = card_section([preset])
    assert "### settings" in card
    assert "````json\n" in card
    assert json.loads(card.partition("````json\n")[2].partition("\n````")[0]) == [
        {"role": "user", "content": "```\nhm\n{text}"}
    ]
    assert card_section([]) == ""


def test_a_damaged_file_is_named(tmp_path):
    for text in ("{", "[]", '{"version": 1, "presets": [{"name": "x"}]}', '{"version": 1, "other": 2}'):
        (tmp_path / PRESETS).write_text(text)
        with pytest.raises(ModelError, match=r"tunesmith_presets.json cannot be read: "):
            read_presets(tmp_path)


def test_which_preset_is_meant(tmp_path):
    one = found(({"character": TAMSIN}, ["settings"]))
    two = found(({"character": TAMSIN}, ["settings", "background"]))
    assert asking(one, AsOptions(), tmp_path).note.startswith("As settings (Tamsin Oake: answers a question")
    assert asking(two, AsOptions("background"), tmp_path).note.startswith("As background (")
    for presets, options in (
        ([], AsOptions()), ([], AsOptions("none")), (two, AsOptions("none")), (two, AsOptions(system="S")),
    ):  # fmt: skip
        assert asking(presets, options, tmp_path).note == ""
    plain = asking([], AsOptions(system="S"), tmp_path).ask([Exchange("a", "b")], "c")
    assert [message.content for message in plain.messages] == ["S", "a", "b", "c", ""]


REFUSED = {
    "several": (2, {}, "--as: say how to ask this model."),
    "each named": (2, {}, "--as background: Tamsin Oake: background: type one of Story 1\n"),
    "none named": (2, {}, "--as none: only your text"),
    "unknown": (2, {"name": "x"}, "--as x: this model has no such preset."),
    "no presets": (0, {"name": "x"}, "--as x: this model has no presets; leave --as out."),
    "system": (1, {"name": "settings", "system": "S"}, "--system: use it with --as none"),
    "record": (1, {"record": "x"}, "--record: only a preset of a simulated user or of cases"),
    "articles": (1, {"articles": "x"}, "--articles: only a preset of cases"),
    "changed articles": (
        1,
        {"changed_articles": "x"},
        "--changed-articles: only a preset of cases with a changed law",
    ),
}


@pytest.mark.parametrize(("number", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(tmp_path, number, options, words):
    presets = found(({"character": TAMSIN}, ["settings", "background"][:number])) if number else []
    with pytest.raises(UsageError) as caught:
        asking(presets, AsOptions(**options), tmp_path)
    assert words in caught.value.message


def test_records_that_cannot_be_used(tmp_path):
    cases = found(({"sampled": {"articlesUri": f"file://{tmp_path}/a.json"}}, ["legal"]))
    simulated = found((users(), ["user"]))
    (tmp_path / "a.json").write_text(json.dumps(ARTICLES), "utf-8")
    for presets, records, words in (
        (simulated, None, "--as user needs a file with one record in the dataset's format"),
        (simulated, [user(), user()], "must have one record, has 2."),
        (simulated, ["{"], "record.jsonl, line 1: "),
        (simulated, [{"task": 3}], "task is not an object"),
        (cases, [{"fact": "x"}], "relevant_articles is missing."),
        (cases, [case("x", "999")], "relevant_articles names 999, which is not in the file of articles."),
    ):
        path = None if records is None else str(write_jsonl(tmp_path / "record.jsonl", records))
        with pytest.raises(UsageError) as caught:
            asking(presets, AsOptions(record=path), tmp_path)
        assert words in caught.value.message


def test_a_record_whose_own_prompt_shows_both_laws_is_legal(tmp_path):
    """As a RejectionSampleJob over a changed law writes them."""
    laws = Laws(ARTICLES, CHANGED)
    asked = prompt_messages(case_from(case("Mira rang it.", "H3")), laws.articles, laws.changed)
    record = {
        **case("Mira rang it.", "H3"),
        "prompt": [{"role": m.role, "content": m.content} for m in asked],
    }
    assert is_legal(record, laws)
    assert not is_legal(record, Laws(ARTICLES))


def test_records_and_articles_are_read_in_the_encoding_of_training(tmp_path):
    presets = found(
        ({"sampled": {"articlesUri": f"file://{tmp_path}/a.json"}, "encoding": "gb18030"}, ["legal"]),
        ({**users(), "encoding": "gb18030"}, ["user"]),
    )
    save = {"a.json": ARTICLES, "case.json": [case("甲盗窃。", "264")], "user.json": [user()]}
    for name, values in save.items():
        text = json.dumps(values, ensure_ascii=False).replace("Mara", "玛拉玛拉")
        (tmp_path / name).write_bytes(text.encode("gb18030"))
    legal = asking(presets, AsOptions("legal", str(tmp_path / "case.json")), tmp_path)
    assert "盗窃公私财物。" in legal.ask([], legal.first).messages[0].content
    mara = asking(presets, AsOptions("user", str(tmp_path / "user.json")), tmp_path)
    assert "玛拉玛拉" in mara.ask([], "Tea?").messages[0].content


def test_a_case_of_the_record_is_asked_first_and_other_articles_may_be_given(tmp_path):
    presets = found(({"sampled": {"articlesUri": "file:///gone.json"}}, ["legal"]))
    record = write_jsonl(tmp_path / "record.jsonl", [case("Mira rang it.", "H3")])
    (tmp_path / "a.json").write_text(json.dumps({"H3": "Ring it."}), "utf-8")
    how = asking(presets, AsOptions(record=str(record), articles=str(tmp_path / "a.json")), tmp_path)
    assert how.first == "Mira rang it."
    assert "H3: Ring it." in how.ask([], how.first).messages[0].content


def test_other_articles_of_a_changed_law_may_be_given(tmp_path):
    files = {"articlesUri": "file:///gone.json", "changedArticlesUri": "file:///gone.json"}
    presets = found(({"sampled": files}, ["legal"]))
    record = write_jsonl(tmp_path / "record.jsonl", [case("Mira rang it.", "H3")])
    given = {"articles": ARTICLES, "changed_articles": CHANGED}
    for name, texts in given.items():
        (tmp_path / name).write_text(json.dumps(texts), "utf-8")
    options = {name: str(tmp_path / name) for name in given}
    how = asking(presets, AsOptions(record=str(record), **options), tmp_path)
    said = how.ask([], how.first).messages[0].content
    assert "Articles as they were:\nH3: Do not ring the bell." in said
    assert "Articles as they are now:\nH3: Ring the bell." in said


@pytest.mark.engine
def test_the_page_is_true(tmp_path, monkeypatch):
    """Every command of docs/outputs.md is read as it is meant, and every preset has a row."""
    given = []
    monkeypatch.setattr("tunesmith.local.chat.talk", lambda options, console: given.append(options) or 0)
    page = (Path(__file__).parents[2] / "docs/outputs.md").read_text("utf-8").partition("## Talking")[2]
    commands = re.search(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1].splitlines()
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    assert [options.as_name for options in given] == ["settings", "user", "legal", "none"]
    assert (given[1].record, given[2].articles, given[3].system) == (
        "mara.json",
        "articles.jsonl",
        "Be brief.",
    )
    names = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))))
    kinds = {character.BACKGROUND, character.SETTINGS, character.IMITATION, character.WITHOUT_SCENE}
    assert {*kinds, USER, LEGAL, "chat", "instruction", "sampled"} == names
