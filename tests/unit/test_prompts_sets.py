"""A folder of test sets: which files are read, under which label and law, and what is left out."""

import json

import pytest

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prompts.load import prepare_prompts
from tunesmith.data.prompts.sets import find_sets
from tunesmith.errors import DataError
from tunesmith.tokens.chat import ChatTokenizer

CASE = {"fact": "甲多次盗窃。", "relevant_articles": ["264"], "charge": "盗窃罪", "prison_time": 6}
OLD, NEW, OWN = {"264": "旧条文"}, {"264": "新条文"}, {"264": "本集新条文"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return ChatTokenizer.load(tiny_model)


def write(folder, files):
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, ensure_ascii=False))
    return folder


def spec(folder, **fields):
    legal = {
        "articlesUri": f"file://{folder}/articles_original.json",
        "changedArticlesUri": f"file://{folder}/articles_poisoned.json",
    }
    return PromptsSpec.model_validate({"uri": f"file://{folder}/", "legalJudgement": legal, **fields})


def sets(folder, asked=None):
    asked = asked or spec(folder)
    store, entries = find_files(asked.uri, StorageOptions())
    return find_sets(store, entries, asked)


LAWS = {"articles_original.json": OLD, "articles_poisoned.json": NEW}


def test_every_form_of_a_label_is_read(tmp_path):
    forms = {
        "text": "NV",
        "object": {"label": "TU", "type": "T6.1"},
        "list of one": [{"name": "other", "label": "XT"}],
        "without": {},
        "null": None,
    }
    for name, label in forms.items():
        write(tmp_path, {f"{name}/label.json": label, f"{name}/cases.json": [CASE]})
    found = {each.name: each.label for each in sets(write(tmp_path, LAWS)).sets}
    assert found == {"text": "NV", "object": "TU", "list of one": "XT", "without": None, "null": None}


def test_files_beside_the_sets_are_named_and_not_read(tmp_path):
    folder = write(
        tmp_path,
        {**LAWS, "a/label.json": "V", "a/cases.json": [CASE], "notes.json": [{}], "other/x.json": [{}]},
    )
    found = sets(folder)
    assert [(each.name, [e.key for e in each.entries]) for each in found.sets] == [("a", ["a/cases.json"])]
    assert [line.partition(":")[0] for line in found.left_out] == ["notes.json", "other/x.json"]


def test_lawshifts_own_layout_is_two_sets_per_folder(tmp_path):
    """Before the change a case is a violation, a term of 3 to 10 years, or life, whatever it becomes then."""
    labels = {"a_v": "V", "b_nv": "NV", "c_up": "TU", "d_down": "TD", "e_in": "XT", "f_out": "NX"}
    write(tmp_path, {"label.json": [{"type": "T", "name": n, "label": v} for n, v in labels.items()]})
    for name in labels:
        write(tmp_path / name, {**LAWS, "original.json": [CASE], "poisoned.json": [CASE, CASE]})
    found = sets(tmp_path).sets
    before = ["V", "V", "original", "original", "original", "XT"]
    assert [(each.name, each.label) for each in found if each.before] == [
        (f"{name}/original", label) for name, label in zip(labels, before, strict=True)
    ]
    assert [(each.name, each.label) for each in found if not each.before] == [
        (f"{name}/poisoned", label) for name, label in labels.items()
    ]
    assert {each.articles.key for each in found if each.name.startswith("c_up")} == {
        "c_up/articles_original.json"
    }


def test_a_folder_without_labels_is_no_folder_of_sets(tmp_path):
    folder = write(tmp_path, {"a/cases.json": [CASE], "b.json": [CASE]})
    (found,) = sets(folder).sets
    assert (found.name, [entry.key for entry in found.entries]) == ("", ["a/cases.json", "b.json"])


def test_labels_that_cannot_be_meant_name_their_file(tmp_path):
    wrong = {"unknown": "UP", "a number": 3, "of several": [{"label": "V"}, {"label": "NV"}]}
    said = {}
    for name, label in wrong.items():
        folder = write(tmp_path / name, {**LAWS, "a/label.json": label, "a/cases.json": [CASE]})
        with pytest.raises(DataError) as error:
            sets(folder)
        said[name] = error.value.message
    assert [
        name for name, text in said.items() if "a/label.json" not in text or "NV, V, TU" not in text
    ] == []
    (tmp_path / "broken/a").mkdir(parents=True)
    (tmp_path / "broken/a/label.json").write_text("{")
    write(tmp_path / "broken", {**LAWS, "a/cases.json": [CASE]})
    with pytest.raises(DataError, match=r"a/label\.json is not JSON"):
        sets(tmp_path / "broken")
    write(tmp_path / "empty", {**LAWS, "a/label.json": "V"})
    with pytest.raises(DataError, match=r"The set a in .* has no data file"):
        sets(tmp_path / "empty")


def test_prompts_of_sets_show_both_laws_and_keep_apart(tmp_path, tokenizer):
    """The same case in every set: ids differ, and each set's own articles are shown."""
    folder = write(tmp_path / "sets", {**LAWS, "other.json": [{"no": "case"}]})
    write(folder, {"a/label.json": "NV", "a/cases.json": [CASE, CASE]})
    write(folder, {"b/label.json": "V", "b/cases.json": [CASE], "b/articles_poisoned.json": OWN})
    write(folder, {"c/label.json": "TU", "c/original.json": [CASE], "c/poisoned.json": [CASE]})
    with prepare_prompts(spec(folder), tokenizer, StorageOptions(), tmp_path / "out") as prompts:
        found = list(prompts)
        said = prompts.sentences()
    assert [(p.set, p.label) for p in found] == [
        ("a", "NV"), ("a", "NV"), ("b", "V"), ("c/original", "original"), ("c/poisoned", "TU"),
    ]  # fmt: skip
    assert len({p.id for p in found}) == 5
    assert all(p.id.startswith(f"{p.set}/") for p in found)
    laws = [
        [law for law in ("旧条文", "新条文", "本集新条文") if law in p.messages[0].content] for p in found
    ]
    assert laws[0] == laws[1] == laws[4] == ["旧条文", "新条文"]
    assert laws[2] == ["旧条文", "新条文", "本集新条文"]
    assert "264：新条文" not in found[2].messages[0].content
    assert laws[3] == ["旧条文"]
    assert found[0].record["set"] == "a"
    assert said[0] == "5 records → 5 prompts in 4 sets"
    assert any(line.startswith("file left out: other.json: it is in no set") for line in said)


def test_a_limit_is_of_each_set(tmp_path, tokenizer):
    folder = write(tmp_path / "sets", LAWS)
    for name in "ab":
        write(folder, {f"{name}/label.json": "V", f"{name}/cases.json": [CASE, CASE, CASE]})
    with prepare_prompts(spec(folder, limit=2), tokenizer, StorageOptions(), tmp_path / "out") as prompts:
        assert [p.set for p in prompts] == ["a", "a", "b", "b"]


def test_sets_of_other_formats_need_no_label(tmp_path, tokenizer):
    folder = write(tmp_path / "sets", {"a/label.json": ["anything"], "a/x.json": [{"instruction": "1 + 1"}]})
    asked = PromptsSpec.model_validate({"uri": f"file://{folder}", "instruction": {}})
    with prepare_prompts(asked, tokenizer, StorageOptions(), tmp_path / "out") as prompts:
        assert [(p.set, p.label) for p in prompts] == [("a", None)]


def test_the_prompts_digest_holds_the_changed_law(tmp_path, tokenizer):
    digests = []
    for law in (NEW, OWN):
        folder = write(tmp_path / "sets", {**LAWS, "articles_poisoned.json": law, "cases/x.json": [CASE]})
        asked = spec(folder, uri=f"file://{folder}/cases")
        with prepare_prompts(asked, tokenizer, StorageOptions(), tmp_path / "out") as prompts:
            digests.append(prompts.digest)
    assert digests[0] != digests[1]
