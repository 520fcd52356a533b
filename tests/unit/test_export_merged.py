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
from tunesmith.export.weight_files import WeightFiles, write_shards

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
