import json

import pytest
import yaml
from admission import refusals
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed
from hostile import STEERING
from tests.cases import each
from tests.manifests import parse_text
from wrong_objects import OBJECTS
from wrong_texts import GOOD_TEXT, LOCAL, SETS, TEXTS

from tunesmith.api.checkpoints import checkpoint_problems
from tunesmith.api.crd import crd
from tunesmith.api.references import duplicate_problems, in_order, missing_problems
from tunesmith.names import Kind

CRDS = {kind: crd(kind) for kind in Kind}


def dump(*documents):
    return yaml.safe_dump_all(documents, allow_unicode=True)


@pytest.mark.parametrize("good", [FINE_TUNE, SAMPLE, DIALOGUE], ids=lambda d: d["kind"])
def test_the_manifests_that_the_table_changes_are_right(good):
    jobs, problems = parse_text(dump(good), "file.yaml")
    assert problems == []
    assert len(jobs) == 1
    assert refusals(CRDS[Kind(good["kind"])], good) == []


@each("wrong", OBJECTS + LOCAL, ids=lambda wrong: wrong.id)
def test_one_mistake_gives_one_problem_that_names_the_field(wrong):
    text = dump(wrong.document)
    if "nan" not in wrong.id and "infinite" not in wrong.id:
        text = json.dumps(wrong.document)
    jobs, problems = parse_text(text, "file.yaml")
    assert jobs == []
    assert [problem.path for problem in problems] == [wrong.path], [str(problem) for problem in problems]
    assert wrong.words in problems[0].message


@each("wrong", OBJECTS, ids=lambda wrong: wrong.id)
def test_the_api_server_refuses_it_too(wrong):
    assert refusals(CRDS[Kind(wrong.document["kind"])], wrong.document)


@each(("text", "path", "words"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_a_text_that_is_no_manifest_is_one_problem_with_its_place(text, path, words):
    jobs, problems = parse_text(text, "file.yaml")
    assert jobs == []
    assert [problem.path for problem in problems] == [path], [str(problem) for problem in problems]
    assert words in str(problems[0])


@pytest.mark.parametrize(("documents", "path", "words"), [r[1:] for r in SETS], ids=[r[0] for r in SETS])
def test_manifests_that_go_wrong_together(documents, path, words):
    jobs, problems = parse_text(dump(*documents), "file.yaml")
    assert problems == []
    problems = [*duplicate_problems(jobs), *missing_problems(jobs), *checkpoint_problems(jobs)]
    problems += in_order(jobs)[1]
    assert [problem.path for problem in problems] == [path], [str(problem) for problem in problems]
    assert words in problems[0].message


def test_every_cel_rule_is_broken_by_a_row_of_the_table():
    said = "\n".join(line for w in OBJECTS for line in refusals(CRDS[Kind(w.document["kind"])], w.document))
    unbroken = {
        rule["message"]
        for definition in CRDS.values()
        for rule in rules_below(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        if rule["message"] not in said and "oldSelf" not in rule["rule"]
    }
    assert unbroken == set()


def rules_below(node):
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", [])
        for child in node.values():
            yield from rules_below(child)
    elif isinstance(node, list):
        for child in node:
            yield from rules_below(child)


def test_every_mistake_of_a_manifest_is_told_at_once():
    text = GOOD_TEXT.replace("lora: {}", "lora: {r: 0, alpha: x}").replace("hf://org", "http://org")
    problems = parse_text(text + "  color: red\n", "file.yaml")[1]
    paths = ["spec.color", "spec.method.lora.alpha", "spec.method.lora.r", "spec.model.uri"]
    assert sorted(problem.path for problem in problems) == paths


def test_a_bad_document_does_not_hide_the_others():
    jobs, problems = parse_text(f"{GOOD_TEXT}---\nkind: x\n---\n{GOOD_TEXT}", "file.yaml")
    assert [job.document for job in jobs] == [1, 3]
    assert [problem.document for problem in problems] == [2]


SECRETS = {
    "password": {"spec.storage.endpointUrl": "https://user:hunter2@host"},
    "password-as-data": {"spec.datasets[0].uri": "https://user:hunter2@host/x"},
    "key-for-reference": {"spec.hub.tokenSecretRef": "hunter2"},
    "key-for-name": {"spec.hub.tokenSecretRef": {"name": "hunter2_", "key": "a"}},
    "key-for-unknown-field": {"spec.hub.token": "hunter2"},
}


@pytest.mark.parametrize("changes", SECRETS.values(), ids=SECRETS)
def test_no_secret_stands_in_a_message(changes):
    problems = parse_text(dump(changed(FINE_TUNE, changes)), "file.yaml")[1]
    assert len(problems) == 1
    assert "hunter2" not in str(problems[0])


def test_a_problem_says_where_it_is():
    text = GOOD_TEXT.replace("{lora: {}}", "{}")
    problem = parse_text(f"---\n{text}", "a/file.yaml")[1][0]
    assert str(problem) == (
        "a/file.yaml, document 1 (FineTuneJob tune): spec.method: "
        "set exactly one of full, lora, qlora and none"
    )


def test_of_very_many_mistakes_the_first_are_told_and_the_rest_is_counted():
    many = changed(FINE_TUNE, {f"spec.learningRrate{number}": 1 for number in range(1000)})
    jobs, problems = parse_text(json.dumps(many), "file.yaml")
    assert jobs == []
    assert len(problems) == 101
    assert str(problems[-1]).endswith(": spec: has 900 more problems")


@each(
    "document",
    [
        changed(FINE_TUNE, {"metadata.name": f"a{STEERING}"}),
        changed(FINE_TUNE, {f"spec.a{STEERING}": 1}),
        changed(FINE_TUNE, {"kind": f"FineTuneJob{STEERING}"}),
        changed(FINE_TUNE, {"spec.model.uri": f"s3://a/{STEERING}"}),
    ],
)
def test_a_problem_never_steers_the_terminal_that_shows_it(document):
    shown = "\n".join(map(str, parse_text(json.dumps(document), f"file{STEERING}.yaml")[1]))
    assert shown
    assert not set(STEERING) & set(shown)
