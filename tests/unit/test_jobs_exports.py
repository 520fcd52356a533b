"""What a save, an export or an evaluation will need, tried on a model without weights."""

import json
import shutil
from pathlib import Path

import pytest
from tests.cases import each
from tests.fixtures.adapters import make_adapter
from tests.fixtures.base_model import LEARNED, OWN, make_base_model
from tests.fixtures.steps import small_spec
from tests.support import chat_records, write_jsonl

from tunesmith.api.common import ModelSource
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prepare import prepare
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import ModelError
from tunesmith.jobs.inputs import Inputs
from tunesmith.tokens.chat import ChatTokenizer

METHODS = {"full": {}, "lora": {"r": 4}, "qlora": {"r": 4}}
PROMPTS = {"uri": "s3://data/prompts.jsonl", "chat": {}}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch
    import torch


@pytest.fixture(scope="module")
def below(tmp_path_factory, tiny_model):
    return make_adapter(tiny_model, tmp_path_factory.mktemp("below") / "adapter", r=6)


@pytest.fixture
def exports(tmp_path):
    """Exports of a job on a model, with its data prepared."""
    from tunesmith.jobs.exports import Exports

    def made(model, method, adapters=(), settings=None, **spec):
        data = write_jsonl(tmp_path / "train.jsonl", chat_records(4))
        settings = METHODS[method] if settings is None else settings
        datasets = [{"uri": f"file://{data}", "chat": {}}]
        job = small_spec({}, method={method: settings}, datasets=datasets, **spec)
        tokenizer = ChatTokenizer.load(model)
        samples = tmp_path / f"samples-{len(list(tmp_path.iterdir()))}"
        prepared = prepare(job, tokenizer, StorageOptions(), samples)
        files = ModelFiles(model, tuple(adapters), ModelSource(uri="hf://org/m"))
        return Exports(
            "job", job, Inputs(files, tokenizer, samples, prepared), torch.float32, tmp_path / "scratch"
        )

    return made


def changed(model: Path, folder: Path, name: str, values: dict) -> Path:
    """A copy of a model with other values in one of its files."""
    shutil.copytree(model, folder)
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))
    return folder


def test_what_is_fine_passes_and_writes_no_weights(exports, tiny_model, below, monkeypatch):
    import safetensors.torch
    from transformers import modeling_utils

    before = modeling_utils.safe_save_file, safetensors.torch.save_file
    for method in METHODS:
        for adapters in ((), (below,)):
            exports(tiny_model, method, adapters).rehearse()
    assert (modeling_utils.safe_save_file, safetensors.torch.save_file) == before


def test_no_weights_are_read_or_made(exports, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "model.safetensors").unlink()
    for method in METHODS:
        exports(model, method).rehearse()


def test_the_whole_folder_is_tried_but_for_weights(exports, tiny_model, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "tunesmith.jobs.exports.save_presets",
        lambda folder, *rest: seen.update({method: sorted(p.name for p in folder.iterdir())}) or [],
    )
    common = {"chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    for method, own in (("full", {"config.json"}), ("lora", {"README.md", "adapter_config.json"})):
        exports(tiny_model, method).rehearse()
        assert set(seen[method]) == common | own


@each(
    "name, values, words",
    [
        (
            "config.json",
            {"eos_token_id": "two"},
            "so it is not trained: Validation error for field 'eos_token_id': TypeError: ",
        ),
        ("tunesmith_presets.json", {"presets": 3}, "tunesmith_presets.json"),
    ],
)
def test_what_a_save_would_refuse(exports, tiny_model, tmp_path_factory, name, values, words):
    made = exports(tiny_model, "lora")
    model = changed(tiny_model, tmp_path_factory.mktemp("bad") / "model", name, values)
    made._inputs = Inputs(
        ModelFiles(model, (), ModelSource(uri="hf://org/m")),
        made._inputs.tokenizer,
        made._inputs.samples,
        made._inputs.prepared,
    )
    with pytest.raises(ModelError) as caught:
        made.rehearse()
    assert words in caught.value.message


def test_a_tokenizer_that_cannot_be_saved(exports, tiny_model, monkeypatch):
    made = exports(tiny_model, "lora")

    def fail(*_):
        raise ValueError("the vocabulary's file is missing\nessay")

    monkeypatch.setattr(type(made._inputs.tokenizer.tokenizer), "save_pretrained", fail)
    with pytest.raises(ModelError, match=r"so it is not trained: the vocabulary's file is missing\. Fix the"):
        made.rehearse()


def test_a_method_that_does_not_fit(exports, tiny_model, tmp_path, below):
    with pytest.raises(
        ModelError, match=r"^spec\.method\.lora\.targetModules: the model has no module named no"
    ):
        exports(tiny_model, "lora", settings={"targetModules": "q_proj,no"}).rehearse()
    tied = make_adapter(tiny_model, tmp_path / "tied", target_modules=["embed_tokens"])
    with pytest.raises(ModelError, match="changes an embedding that this model ties"):
        exports(tiny_model, "full", (tied,)).rehearse()


@each(
    "vllm, settings, words",
    [
        ({"maxModelLen": 513}, {"r": 4}, "engine.vllm.maxModelLen 513 exceeds the model's 512 positions"),
        (
            {},
            {"r": 507},
            "The adapter will have rank 513, with those that it starts from; vLLM supports 512 at most",
        ),
        ({"maxModelLen": 512}, {"r": 506}, None),
    ],
)
def test_what_an_evaluations_engine_would_refuse(exports, tiny_model, below, vllm, settings, words):
    evaluation = {
        "name": "a",
        "prompts": PROMPTS,
        "verifier": {"exactMatch": {"field": "answer"}},
        "engine": {"vllm": vllm},
    }
    made = exports(tiny_model, "lora", (below,), settings, evaluation=[evaluation])
    if words is None:
        made.rehearse()
        return
    with pytest.raises(ModelError) as caught:
        made.rehearse()
    assert caught.value.message.startswith(f"spec.evaluation[0]: {words}")


def test_the_card_of_an_adapter_of_experts_says_who_reads_it():
    from tunesmith.jobs.card import experts_note

    said = experts_note(["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    assert said.startswith(
        "The adapter is on experts that are single tensors (mlp.experts.down_proj, mlp.exp"
    )
    assert "vLLM does not read it" in said


def test_the_card_says_where_a_reply_ends(exports, tmp_path):
    base = make_base_model(tmp_path / "base")
    folder = tmp_path / "folder"
    folder.mkdir()
    for method, more in (("full", ""), ("lora", " With an adapter, transformers and vLLM read that file of")):
        from tunesmith.training.rehearsal import empty_model

        made = exports(base, method)
        made.write_card(empty_model(made._spec, made._inputs.files), folder, "made", [])
        said = (
            f"A reply ends with `{LEARNED}` (1) or `{OWN}` (2); `generation_config.json` names all of them."
        )
        assert said + more in (folder / "README.md").read_text()
