"""--set: what it says, and which manifests it changes."""

import copy

import pytest
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE
from tests.cases import each

from tunesmith.errors import UsageError
from tunesmith.local.overrides import absolute, apply_override, parse_override


@each(
    ("text", "path", "value"),
    [
        ("training.maxSteps=10", ["training", "maxSteps"], 10),
        ("spec.training.maxSteps=10", ["training", "maxSteps"], 10),
        (" training.maxSteps =10", ["training", "maxSteps"], 10),
        ("training.learningRate=2e-4", ["training", "learningRate"], 2e-4),
        ("datasets[0].limit=5", ["datasets", 0, "limit"], 5),
        ("previews[1].messages[0].content=a: b", ["previews", 1, "messages", 0, "content"], {"a": "b"}),
        ("datasets[10]={uri: s3://a/b, chat: {}}", ["datasets", 10], {"uri": "s3://a/b", "chat": {}}),
        ("method={full: {}}", ["method"], {"full": {}}),
        ("hub.offline=true", ["hub", "offline"], True),
        ("run.suspend=no", ["run", "suspend"], "no"),
        ('datasets[0].systemPrompt="12"', ["datasets", 0, "systemPrompt"], "12"),
        ("datasets[0].systemPrompt=a=b=c", ["datasets", 0, "systemPrompt"], "a=b=c"),
        ("validation=", ["validation"], None),
        ("deepspeed.config.a-b/c=1", ["deepspeed", "config", "a-b/c"], 1),
        ("datasets[0].systemPrompt=简短", ["datasets", 0, "systemPrompt"], "简短"),
    ],
)
def test_what_it_says(text, path, value):
    assert parse_override(text) == (path, value)


@each(
    "text",
    [
        "",
        "x",
        "=3",
        "training.=3",
        ".a=3",
        "a..b=3",
        "a[b]=3",
        "a[0=3",
        "a[0]b=3",
        "[0]=3",
        "a[-1]=3",
        "a b=3",
    ],
)
def test_what_cannot_be_meant(text):
    with pytest.raises(UsageError, match=r"write FIELD=VALUE, such as training\.maxSteps=10") as caught:
        parse_override(text)
    assert text in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("value", ["[1", "{a: b", "a: b: c", "*x", "@x", "x\x00y", "{a: 1, a: 2}", "010"])
def test_a_value_that_is_not_yaml(value):
    with pytest.raises(UsageError, match=r"--set training\.maxSteps=.*(YAML|twice|another number)") as caught:
        parse_override(f"training.maxSteps={value}")
    assert "--set, document" not in caught.value.message


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("model.uri", True),
        ("datasets[0].uri", True),
        ("model.adapterUri", True),
        ("output.uri", True),
        ("prompts.legalJudgement.articlesUri", True),
        ("model.revision", False),
        ("tracking.wandb.project", False),
        ("datasets[0]", False),
    ],
)
def test_paths_become_absolute_in_addresses_only(field, changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_override(f"{field}=./my-model")[1] == (f"{tmp_path}/my-model" if changed else "./my-model")


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("a b%20c") == f"{tmp_path}/a b%20c"
    assert absolute("../x/./y/") == f"{tmp_path.parent}/x/y"
    assert absolute("~/m") == "/home/me/m"
    assert absolute("/m") == "/m"
    for uri in ("s3://b/k", "hf://org/name", "file:///x"):
        assert absolute(uri) == uri


def documents():
    return [copy.deepcopy(document) for document in (FINE_TUNE, SAMPLE, DIALOGUE)]


def applied(text, docs):
    apply_override(docs, *parse_override(text))
    return docs


def test_only_manifests_that_have_the_field_change():
    tune, sample, talk = applied("model.uri=/m", documents())
    assert tune["spec"]["model"]["uri"] == sample["spec"]["model"]["uri"] == "/m"
    assert talk == DIALOGUE


def test_a_new_field_goes_to_the_kinds_that_know_it():
    tune, sample, talk = applied("training.maxSteps=3", documents())
    assert tune["spec"]["training"] == {"maxSteps": 3}
    assert (sample, talk) == (SAMPLE, DIALOGUE)
    assert all("hub" in document["spec"] for document in applied("hub.offline=true", documents()))


def test_a_field_nobody_knows_goes_to_all_so_that_each_refuses_it():
    assert all(document["spec"]["trainin"] == 3 for document in applied("trainin=3", documents()))


def test_an_empty_value_and_null_parents():
    tune = copy.deepcopy(FINE_TUNE)
    tune["spec"]["training"] = None
    assert applied("training.maxSteps=3", [tune])[0]["spec"]["training"] == {"maxSteps": 3}
    assert applied("training=", [tune])[0]["spec"]["training"] is None


def test_items_of_a_list_are_manifests_too():
    listed = {"kind": "List", "apiVersion": "v1", "items": documents()}
    applied("training.maxSteps=3", [listed])
    assert listed["items"][0]["spec"]["training"] == {"maxSteps": 3}
    assert listed["items"][1] == SAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "datasets[1].limit=3",
        "datasets[1]=x",
        "model.uri.x=3",
        "model[0]=3",
        "datasets.limit=3",
        "output[0].x=3",
    ],
)
def test_nowhere_to_put_it(text):
    with pytest.raises(UsageError, match="no manifest has this field") as caught:
        applied(text, [copy.deepcopy(FINE_TUNE)])
    assert caught.value.message.startswith(f"--set {text.partition('=')[0]}:")


@pytest.mark.parametrize("odd", [None, 3, "x", [], {}, {"spec": None}, {"spec": []}, {"kind": ["x"]}])
def test_odd_documents_are_left_to_the_checks_that_follow(odd):
    tune = copy.deepcopy(FINE_TUNE)
    applied("model.uri=/m", [odd, tune])
    assert tune["spec"]["model"]["uri"] == "/m"
