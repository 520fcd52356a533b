"""Names and configurations of other tools: hints where they are pasted, and manifests made of them."""

import json

import pytest
import yaml
from good_manifests import FINE_TUNE, SAMPLE, changed
from hostile import STEERING
from tests.manifests import parse_text

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.flags import FIELD_OF
from tunesmith.api.manifest import parse_document, parse_documents
from tunesmith.errors import UsageError
from tunesmith.local.convert_config import convert
from tunesmith.local.tool_reading import read_settings, tool_of

TRL = """
#!/bin/sh
accelerate launch trl sft \\
    --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name trl-lib/Capybara \\
    --learning_rate 2.0e-4 --num_train_epochs 1 --use_peft --lora_r 32 \\
    --lora_target_modules q_proj v_proj --packing --eos_token '<|im_end|>' --output_dir=/tmp/x
"""
LLAMA_FACTORY = {
    "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct", "stage": "sft", "finetuning_type": "lora",
    "lora_rank": 8, "lora_target": "all", "dataset": "identity,alpaca_en_demo", "template": "llama3",
    "cutoff_len": 2048, "max_samples": 1000, "output_dir": "saves/sft", "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8, "learning_rate": 1e-4, "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "bf16": True,
}  # fmt: skip
AXOLOTL = {
    "base_model": "org/llama", "load_in_4bit": True, "adapter": "qlora", "lora_model_dir": None,
    "datasets": [{"path": "org/alpaca", "type": "alpaca"}, {"path": "./own.jsonl", "type": "completion"}],
    "val_set_size": 0.1, "output_dir": "./out", "sequence_len": 2048, "sample_packing": True, "lora_r": 32,
    "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_linear": True, "wandb_project": "p",
    "gradient_accumulation_steps": 4, "micro_batch_size": 2, "num_epochs": 1, "optimizer": "adamw_bnb_8bit",
    "lr_scheduler": "cosine", "learning_rate": 2e-4, "special_tokens": {"pad_token": "<pad>"},
}  # fmt: skip


def problems_of(manifest, changes):
    _, problems = parse_documents([changed(manifest, changes)], "job.yaml")
    return {problem.path: problem.message for problem in problems}


# --- Hints ------------------------------------------------------------------------------------------------


def test_names_of_other_tools_lead_to_their_fields():
    pasted = {
        "training.max_epochs": "training.numTrainEpochs",
        "training.epochs": "training.numTrainEpochs",
        "training.lr": "training.learningRate",
        "lr": "training.learningRate",
        "learningRate": "training.learningRate",
        "training.batch_size": "training.perDeviceTrainBatchSize",
        "training.grad_accum": "training.gradientAccumulationSteps",
        "method.lora_r": "method.lora.r",
        "lora_alpha": "method.lora.alpha",
        "val_ratio": "validation.ratio",
        "wandb_project": "tracking.wandb.project",
        "output_dir": "output.uri",
    }
    wrong = {}
    for field, right in pasted.items():
        message = problems_of(FINE_TUNE, {f"spec.{field}": 1}).get(f"spec.{field}", "")
        if message != f"unknown field; write {right} instead":
            wrong[field] = message
    assert wrong == {}


def test_whole_modules_beside_an_adapter_are_refused_with_what_to_do():
    for field in (
        "spec.method.lora.modulesToSave",
        "spec.method.lora.modules_to_save",
        "spec.additional_target",
    ):
        message = problems_of(FINE_TUNE, {field: ["lm_head"]})[field]
        assert "unknown field; whole modules are not trained beside an adapter" in message
        assert "Name them in targetModules" in message


def test_a_name_is_no_hint_where_the_kind_has_no_such_block():
    assert "training" not in problems_of(SAMPLE, {"spec.epochs": 3})["spec.epochs"]


def test_a_single_value_in_place_of_a_block_is_shown_as_a_block():
    pasted = {
        "spec.method": ("full", "write method: {full: {}}"),
        "spec.datasets[0].subset": (0.2, "write subset: {ratio: 0.2}"),
        "spec.datasets[0].chat": (True, "write chat: {}"),
        "spec.validation": (0.1, "write validation: {ratio: 0.1}"),
        "spec.deepspeed": (2, "write deepspeed: {zeroStage: 2}"),
        "spec.model": ("hf://org/model", 'write model: {uri: "hf://org/model"}'),
        "spec.output": ("s3://models/x", 'write output: {uri: "s3://models/x"}'),
        "spec.training.earlyStopping": (3, "write earlyStopping: {patience: 3}"),
    }
    wrong = {}
    for field, (value, hint) in pasted.items():
        message = problems_of(FINE_TUNE, {field: value}).get(field, "")
        if not message.endswith(f"; {hint}"):
            wrong[field] = message
    assert wrong == {}


def test_a_hint_never_repeats_a_secret():
    for field in ("spec.storage.secretRef", "spec.hub.tokenSecretRef"):
        assert "hunter2" not in problems_of(FINE_TUNE, {field: "hunter2"})[field]


def test_every_field_that_is_hinted_at_exists():
    """Each is set in the kind that has its block, with whatever value: it may be wrong, but not unknown."""
    unknown = []
    for field in sorted(set(FIELD_OF.values())):
        block = field.partition(".")[0].partition("[")[0]
        document = FINE_TUNE if block in {f.alias for f in FineTuneSpec.model_fields.values()} else SAMPLE
        found = problems_of(document, {f"spec.{field}": "x"})
        unknown += [f"{path}: {text}" for path, text in found.items() if "unknown field" in text]
    assert unknown == []


# --- Conversion -------------------------------------------------------------------------------------------


def converted(text, tool=None):
    settings = read_settings(text, "config")
    made = convert(settings, tool or tool_of(settings), "demo")
    parse_document(made.document, "config", 1)
    return made


def test_a_trl_command_becomes_a_job():
    made = converted(TRL)
    spec = made.document["spec"]
    assert spec["model"] == {"uri": "hf://Qwen/Qwen2.5-0.5B"}
    lora = {"r": 32, "alpha": 32, "dropout": 0.05, "targetModules": "q_proj,v_proj"}
    assert spec["method"] == {"lora": lora}
    assert spec["output"] == {"uri": "file:///tmp/x"}
    assert spec["training"] == {
        "learningRate": 2e-4, "numTrainEpochs": 1, "perDeviceTrainBatchSize": 8,
        "gradientAccumulationSteps": 1, "lrScheduler": "linear", "warmupSteps": 0, "weightDecay": 0.0,
        "saveSteps": 500, "maxLength": 1024,
    }  # fmt: skip
    assert "eos_token: <|im_end|> has no corresponding field." in made.notes
    assert spec["datasets"] == [{"uri": "hf://datasets/trl-lib/Capybara", "chat": {}, "split": "train"}]


def test_data_sets_on_the_hub_keep_what_is_chosen_of_them():
    made = converted(f"{TRL.rstrip()} --dataset_config main --dataset_train_split train_sft")
    on_hub = {"uri": "hf://datasets/trl-lib/Capybara", "chat": {}, "split": "train_sft", "config": "main"}
    assert made.document["spec"]["datasets"] == [on_hub]
    parts = [
        {"path": "org/set", "type": "chat_template", "name": "main", "split": "train"},
        {"path": "org/files", "type": "completion", "data_files": "x.jsonl"},
    ]
    spec = converted(json.dumps({**AXOLOTL, "datasets": parts})).document["spec"]
    assert spec["datasets"] == [
        {"uri": "hf://datasets/org/set", "chat": {}, "config": "main", "split": "train"},
        {"uri": "hf://datasets/org/files", "text": {}, "dataFiles": ["x.jsonl"]},
    ]


def test_no_limit_of_length_is_none_here_and_said():
    """TRL's null is a value: nothing is cut. In other tools a null is as good as absent."""
    made = converted("model_name_or_path: org/m\nmax_length: null\nlearning_rate: null\n")
    assert "maxLength" not in made.document["spec"]["training"]
    assert made.document["spec"]["training"]["learningRate"] == 2e-5
    assert [note for note in made.notes if note.startswith("max_length: null means no limit")]
    assert "at most 4,096 tokens" in made.text("x")
    others = {"llamafactory": ("cutoff_len", 2048), "axolotl": ("sequence_len", 512)}
    for tool, (setting, length) in others.items():
        made = converted(f"base_model: org/m\n{setting}: null\nmax_length: null\n", tool)
        assert made.document["spec"]["training"]["maxLength"] == length, tool


def test_a_llama_factory_file_becomes_a_job():
    made = converted(yaml.safe_dump(LLAMA_FACTORY))
    spec = made.document["spec"]
    assert spec["method"] == {"lora": {"r": 8, "alpha": 16, "dropout": 0.0, "targetModules": "all-linear"}}
    assert [dataset["limit"] for dataset in spec["datasets"]] == [1000, 1000]
    assert spec["training"]["maxLength"] == 2048
    assert "warmupSteps" not in spec["training"]
    assert any(note.startswith("warmup_ratio: 0.1 ") for note in made.notes)


def test_an_axolotl_file_becomes_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = converted(json.dumps(AXOLOTL)).document["spec"]
    assert spec["method"] == {"qlora": {"r": 32, "alpha": 16, "dropout": 0.05}}
    assert spec["datasets"] == [
        {"uri": "hf://datasets/org/alpaca", "instruction": {}},
        {"uri": f"file://{tmp_path}/own.jsonl", "text": {}},
    ]
    assert spec["validation"] == {"ratio": 0.1}
    assert spec["training"]["optimizer"] == "paged_adamw_8bit"
    assert spec["tracking"] == {"wandb": {"project": "p"}}


def test_nothing_is_dropped_in_silence():
    """Every setting that is given is in the manifest, asks for nothing, or stands in the notes."""
    strange = {
        "base_model": "org/m",
        "datasets": [{"path": "a/b", "field": "x"}],
        "zzz": 1,
        "loraplus_lr_ratio": 2,
    }
    notes = " ".join(converted(json.dumps(strange)).notes)
    assert [name for name in ("zzz", "loraplus_lr_ratio", "field") if name not in notes] == []


def test_the_text_is_the_manifest_with_its_notes_above():
    made = converted(TRL)
    text = made.text("train.sh")
    assert text.startswith("# Converted from train.sh by `tunesmith convert-config`.\n# To check:\n# - ")
    (job,), problems = parse_text(text, "job.yaml")
    assert (job.name, problems) == ("demo", [])


def test_what_is_no_configuration_is_refused():
    for text in ("", "hello", "- a\n- b\n", "'"):
        with pytest.raises(UsageError):
            read_settings(text, "config")


def test_no_setting_breaks_out_of_the_notes():
    strange = {
        "base_model": "org/m",
        "datasets": [{"path": "a/b"}],
        f"zzz{STEERING}\nkind: X\u2028y: z\x85w: v": 1,
    }
    made = converted(json.dumps(strange))
    text = made.text(f"a\nb: c{STEERING}")
    assert not set(STEERING) & set(text)
    assert yaml.safe_load(text) == made.document
