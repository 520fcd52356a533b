"""Adapters merged into their base, file by file: the same model, and what cannot be merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cases import each
from tests.fixtures.adapters import change_config, load_base, logits, make_adapter
from tests.fixtures.base_model import make_base_model

from tunesmith.api.common import ModelSource
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import ModelError, PermanentError
from tunesmith.export import merged as merging
from tunesmith.export.folder import write_merged
from tunesmith.export.refuse import refuse_forms, scratch_bytes
from tunesmith.export.weight_files import WeightFiles, write_shards
from tunesmith.names import Reason

pytestmark = pytest.mark.engine
EVERYWHERE = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, PeftModel, AutoModelForCausalLM
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM


def files_of(base: Path, *adapters: Path) -> ModelFiles:
    return ModelFiles(base, adapters, ModelSource(uri="hf://org/m"))


def by_peft(base: Path, *adapters: Path):
    model = load_base(base)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model


def loaded(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder)


@each(
    "configs",
    [
        [EVERYWHERE],
        [{"r": 3, "use_rslora": True}],
        [{"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 5}}],
        [EVERYWHERE, {"r": 2}],
        [],
    ],
)
def test_merged_weights_are_those_that_peft_merges(tiny_model, tmp_path, configs):
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    adapters = [
        make_adapter(tiny_model, tmp_path / "x" / str(n), seed=n, **config)
        for n, config in enumerate(configs)
    ]
    write_merged(files_of(tiny_model, *adapters), tmp_path / "x/out")
    assert torch.equal(logits(loaded(tmp_path / "x/out")), logits(by_peft(tiny_model, *adapters)))
    names = {path.name for path in (tmp_path / "x/out").iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert "adapter_config.json" not in names


def test_each_weight_keeps_its_type_unless_another_is_asked_for(tiny_model, tmp_path):
    base = tmp_path / "base"
    loaded(tiny_model).to(torch.bfloat16).save_pretrained(base)
    adapter = make_adapter(tiny_model, tmp_path / "a")
    for dtype, kind in ((None, "BF16"), (torch.float32, "F32")):
        write_merged(files_of(base, adapter), tmp_path / kind, dtype)
        with WeightFiles(tmp_path / kind) as weights:
            assert {info.type for info in weights.tensors.values()} == {kind}
            whole = weights.read("model.layers.0.self_attn.q_proj.weight")
        expected = by_peft(base, adapter).model.layers[0].self_attn.q_proj.weight
        assert torch.equal(whole, expected.to(whole.dtype))
    assert json.loads((tmp_path / "F32/config.json").read_text())["dtype"] == "float32"


def test_ends_and_tokenizer_are_the_tuned_models(tiny_model, tmp_path):
    adapter = make_adapter(tiny_model, tmp_path / "a")
    (adapter / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_model / name, adapter / name)
    (adapter / "chat_template.jinja").write_text("mine")
    (adapter / "README.md").write_text("the adapter's card")
    write_merged(files_of(tiny_model, adapter), tmp_path / "out")
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [2, 1]
    assert json.loads((tmp_path / "out/config.json").read_text())["eos_token_id"] == [2, 1]
    assert (tmp_path / "out/chat_template.jinja").read_text() == "mine"
    assert not (tmp_path / "out/README.md").exists()


def test_shards_are_bounded_and_have_an_index(tiny_model, tmp_path):
    with WeightFiles(tiny_model) as weights:
        sizes = {name: info.bytes for name, info in weights.tensors.items()}
        largest = max(sizes.values())
        write_shards(tmp_path, sizes, weights.read, limit=largest)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert all(path.stat().st_size < largest + 20_000 for path in files)
    shutil.copyfile(tiny_model / "config.json", tmp_path / "config.json")
    assert torch.equal(logits(loaded(tmp_path)), logits(load_base(tiny_model)))


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("experts")
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def test_adapters_of_experts_are_merged_and_written_by_the_names_of_the_base(experts, tmp_path):
    adapter = make_adapter(experts, tmp_path / "a", target_parameters=EXPERTS)
    write_merged(files_of(experts, adapter), tmp_path / "out")
    ours, theirs = logits(loaded(tmp_path / "out")), logits(by_peft(experts, adapter))
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(ours, logits(load_base(experts)), atol=1e-2)
    with WeightFiles(experts) as base, WeightFiles(tmp_path / "out") as out:
        assert base.tensors.keys() == out.tensors.keys()


def test_experts_are_rounded_once(experts, tmp_path):
    """The sum of the base and of all adapters is in float32; each rounds nothing on its own."""
    base = tmp_path / "base"
    loaded(experts).to(torch.bfloat16).save_pretrained(base)
    adapters = [make_adapter(experts, tmp_path / str(n), seed=n, target_parameters=EXPERTS) for n in range(2)]
    write_merged(files_of(base, *adapters), tmp_path / "out")
    exact = by_peft(base, *adapters).state_dict()
    made = loaded(tmp_path / "out").state_dict()
    for name, weight in exact.items():
        assert torch.equal(made[name].to(torch.bfloat16), weight.to(torch.bfloat16)), name


def test_of_several_files_those_count_that_transformers_loads(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    with WeightFiles(model) as weights:
        known, size = set(weights.tensors), weights.bytes
        (model / "other").mkdir()
        write_shards(model / "other", {"x": 8}, lambda name: torch.zeros(2))
    shutil.copyfile(model / "other/model.safetensors", model / "consolidated.safetensors")
    stale = {"metadata": {}, "weight_map": {"x": "consolidated.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(stale))
    with WeightFiles(model) as weights:
        assert (set(weights.tensors), weights.bytes) == (known, size)


def test_a_checkpoints_notes_are_no_part_of_the_model_and_its_templates_are(tiny_model, tmp_path):
    adapter = make_adapter(tiny_model, tmp_path / "checkpoint-4")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tiny_model / name, adapter / name)
    for name in ("health.json", "window.json", "trainer_state.json"):
        (adapter / name).write_text("{}")
    (adapter / "additional_chat_templates").mkdir()
    (adapter / "additional_chat_templates/tools.jinja").write_text("tools")
    write_merged(files_of(tiny_model, adapter), tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert not names & {"health.json", "window.json", "trainer_state.json"}
    assert "additional_chat_templates/tools.jinja" in names


def test_what_could_not_be_merged_is_refused_before_anything_is_computed(tiny_model, tmp_path):
    tied = make_adapter(tiny_model, tmp_path / "tied", target_modules=["lm_head"])
    with pytest.raises(ModelError, match="ties to its other embedding"):
        refuse_forms(files_of(tiny_model, tied), merged=True, gguf=None, folder=tmp_path)
    refuse_forms(files_of(tiny_model, tied), merged=False, gguf=None, folder=tmp_path)
    plain = make_adapter(tiny_model, tmp_path / "plain")
    refuse_forms(files_of(tiny_model, plain), merged=True, gguf=None, folder=tmp_path / "not/there/yet")


def test_scratch_is_enough_for_the_forms(tiny_model, tmp_path, monkeypatch):
    base = tmp_path / "base"
    loaded(tiny_model).to(torch.bfloat16).save_pretrained(base)
    files = files_of(base)
    with WeightFiles(base) as weights:
        whole = weights.bytes
        sizes = {
            (merged, gguf): scratch_bytes(files, weights, merged=merged, gguf=gguf) / whole
            for merged, gguf in ((True, None), (False, "F32"), (False, "BF16"), (True, "Q8_0"))
        }
    assert sizes == {(True, None): 3, (False, "F32"): 3, (False, "BF16"): 2, (True, "Q8_0"): 3}
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, whole))
    with pytest.raises(PermanentError, match=r"resources.scratch.size of a job, TMPDIR") as caught:
        refuse_forms(files, merged=True, gguf=None, folder=tmp_path)
    assert caught.value.reason is Reason.DISK_FULL


def test_what_needs_more_memory_than_there_is_says_so(experts, tmp_path, monkeypatch):
    adapter = make_adapter(experts, tmp_path / "a", target_parameters=EXPERTS)
    monkeypatch.setattr(merging, "free_main_memory", lambda: 1000)
    with pytest.raises(PermanentError, match=r"needs 0.0 GiB of main memory.*resources.memory"):
        write_merged(files_of(experts, adapter), tmp_path / "out")


def test_what_cannot_be_merged_is_named(tiny_model, tmp_path):
    other = make_adapter(tiny_model, tmp_path / "other")
    wide = make_base_model(tmp_path / "wide")
    with pytest.raises(ModelError, match=r"made for another model: model.layers.0.self_attn.q_proj.weight"):
        write_merged(files_of(wide, other), tmp_path / "out")
    tied = make_adapter(tiny_model, tmp_path / "tied", target_modules=["lm_head"])
    with pytest.raises(ModelError, match="ties to its other embedding"):
        write_merged(files_of(tiny_model, tied), tmp_path / "out")
    dora = change_config(make_adapter(tiny_model, tmp_path / "dora"), use_dora=True)
    with pytest.raises(ModelError, match="not plain LoRA"):
        write_merged(files_of(tiny_model, dora), tmp_path / "out")
    shutil.copytree(tiny_model, tmp_path / "quantised")
    config = tmp_path / "quantised/config.json"
    values = json.loads(config.read_text()) | {"quantization_config": {"quant_method": "bitsandbytes"}}
    config.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"stored quantised \(bitsandbytes\)"):
        write_merged(files_of(tmp_path / "quantised", other), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config.json is missing"):
        write_merged(files_of(tmp_path / "empty"), tmp_path / "out")
