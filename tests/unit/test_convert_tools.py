"""Configurations as people bring them: values, pairs of settings and files as each tool reads them."""

import json

import yaml

from tunesmith.errors import UsageError
from tunesmith.local.convert_config import convert
from tunesmith.local.tool_reading import read_settings, tool_of

TRL = {"model_name_or_path": "org/m", "dataset_name": "org/d"}
LLAMA_FACTORY = {"model_name_or_path": "org/m", "stage": "sft", "dataset": "own", "cutoff_len": 1024}
AXOLOTL = {"base_model": "org/m", "datasets": [{"path": "org/d", "type": "chat_template"}]}


def converted(settings, more=None):
    text = (
        settings
        if isinstance(settings, str)
        else yaml.safe_dump({**settings, **(more or {})}, sort_keys=False)
    )
    read = read_settings(text, "config")
    made = convert(read, tool_of(read), "demo")
    return made.document["spec"], " ".join(made.notes)


def differences(cases, settings):
    """Return the fields of each case that are not as expected; None stands for an absent field."""
    wrong = []
    for more, expected in cases:
        spec, notes = converted(settings, more)
        for path, value in expected.items():
            node = notes if path == "note" else spec
            for part in path.split(".") if path != "note" else ():
                node = node[int(part)] if isinstance(node, list) else (node or {}).get(part)
            if value not in node if path == "note" else node != value:
                wrong.append((more, path, node))
    return wrong


def test_what_is_no_supervised_fine_tuning_of_text_is_refused_in_one_line():
    refused = {
        "stage: dpo": {**LLAMA_FACTORY, "stage": "dpo"},
        "finetuning_type: freeze": {**LLAMA_FACTORY, "finetuning_type": "freeze"},
        "infer_backend": {"model_name_or_path": "org/m", "template": "x", "infer_backend": "vllm"},
        "image_max_pixels": {**LLAMA_FACTORY, "image_max_pixels": 9},
        "rl": {**AXOLOTL, "rl": "dpo"},
        "processor_type": {**AXOLOTL, "processor_type": "AutoProcessor"},
        "beta": {**TRL, "beta": 0.1},
        "accelerate": {"compute_environment": "x", "distributed_type": "FSDP", "num_processes": 8},
        "DeepSpeed": {"zero_optimization": {"stage": 2}, "train_batch_size": "auto"},
        "LLaMA-Factory v1": {"model": "org/m", "train_dataset": "x.yaml", "micro_batch_size": 1},
        "no model": {"learning_rate": 0.1},
        "trl runs dpo": "trl dpo --model_name_or_path org/m --dataset_name org/d",
        "runs scripts/dpo.py": "python scripts/dpo.py --model_name_or_path org/m",
    }
    wrong = {}
    for named, settings in refused.items():
        try:
            converted(settings)
            wrong[named] = "was converted"
        except UsageError as error:
            if named.removeprefix("trl ") not in str(error) or "\n" in str(error):
                wrong[named] = str(error)
    assert wrong == {}


def test_steps_are_numbers_also_where_a_tool_takes_shares_or_minus_one():
    cases = [
        ({"max_steps": -1}, {"training.maxSteps": None}),
        ({"max_steps": 50, "warmup_ratio": 0.1}, {"training.warmupSteps": 5}),
        ({"max_steps": 50, "warmup_steps": 0.1}, {"training.warmupSteps": 5}),
        ({"warmup_steps": 0.1}, {"training.warmupSteps": None, "note": "warmup_ratio: 0.1"}),
        ({"warmup_ratio": 0.0}, {"training.warmupSteps": 0}),
        ({"max_steps": 50, "save_steps": 0.5}, {"training.saveSteps": 25}),
        ({"save_steps": 0.5}, {"note": "save_steps: 0.5"}),
        ({"save_strategy": "no"}, {"training.saveSteps": None, "note": "save_strategy: no"}),
        ({"save_strategy": "steps", "save_steps": 7}, {"training.saveSteps": 7}),
        ({"max_length": "500_000"}, {"training.maxLength": 500_000}),
    ]
    assert differences(cases, TRL) == []
    assert "maxSteps" not in converted(TRL, {"max_steps": -1})[1]


def test_validation_is_what_the_tool_would_validate_on():
    on_hub = {"uri": "hf://datasets/org/d", "chat": {}}
    cases = [
        ({"eval_strategy": "no", "eval_steps": 5}, {"training.evalSteps": None, "note": "eval_steps: 5"}),
        ({"eval_steps": 5}, {"training.evalSteps": None, "validation": None}),
        (
            {"eval_strategy": "steps", "eval_steps": 5},
            {"training.evalSteps": 5, "validation": {**on_hub, "split": "test"}},
        ),
        (
            {"eval_strategy": "epoch", "dataset_test_split": "dev"},
            {"training.evalSteps": None, "validation": {**on_hub, "split": "dev"}},
        ),
    ]
    assert differences(cases, TRL) == []
    held_out = [{"path": "org/v", "type": "completion", "field": "body"}]
    text = {"uri": "hf://datasets/org/v", "text": {}, "columns": {"text": "body"}}
    cases = [
        ({"test_datasets": held_out, "eval_steps": 5}, {"validation": text, "training.evalSteps": 5}),
        ({"test_datasets": held_out * 2}, {"validation": None, "note": "org/v, org/v are left out"}),
        ({"eval_steps": 5}, {"training.evalSteps": None, "note": "training.evalSteps is left out"}),
    ]
    assert differences(cases, AXOLOTL) == []


def test_settings_of_a_method_that_is_not_asked_for_are_named_and_left_out():
    cases = [
        ({"lora_r": 8, "lora_alpha": 4}, {"method": {"full": {}}, "note": "lora_r: 8 has no effect"}),
        ({"adapter": "lora", "load_in_8bit": True}, {"note": "load_in_8bit: True is left out"}),
        ({"adapter": "lora", "lora_r": 8, "peft_use_rslora": True}, {"method.lora.useRslora": True}),
        (
            {"adapter": "lora", "lora_dropout": 0, "lora_target_parameters": ["experts.up"]},
            {"method.lora.targetParameters": ["experts.up"]},
        ),
        (
            {"adapter": "lora", "lora_target_modules": r"layers.\d+.(mlp|attn).up_proj"},
            {"method.lora.targetModules": None, "note": "regular expression"},
        ),
        ({"adapter": "lora", "lora_modules_to_save": ["lm_head"]}, {"note": "method.full"}),
    ]
    assert differences(cases, AXOLOTL) == []
    cases = [
        ({"use_peft": True}, {"note": "lora_target_modules is not set"}),
        ({"use_peft": True, "load_in_4bit": True}, {"method.qlora.doubleQuant": False}),
        (
            {"use_peft": True, "bnb_4bit_quant_type": "fp4"},
            {"note": "bnb_4bit_quant_type: fp4 has no effect"},
        ),
    ]
    assert differences(cases, TRL) == []


def test_values_that_mean_the_same_are_carried_over():
    cases = [
        ({"seed": 7}, {"training.seed": 7}),
        ({"gradient_checkpointing": "offload"}, {"training.gradientCheckpointing": True}),
        ({"batch_size": 8, "micro_batch_size": 2}, {"training.gradientAccumulationSteps": 4}),
        ({"float16": True}, {"model.dtype": "float16"}),
        ({"chat_template": "chatml"}, {"model.chatTemplate": {"name": "chatml"}}),
        ({"chat_template": "gemma3"}, {"model.chatTemplate": None, "note": "gemma3 is left out"}),
        ({"chat_template_jinja": "{{ x }}"}, {"model.chatTemplate": {"text": "{{ x }}"}}),
        ({"xformers_attention": True}, {"note": "xformers_attention"}),
        ({"attn_implementation": "xformers"}, {"note": "xformers as attention"}),
        ({"sample_packing": True}, {"note": "perDeviceTrainBatchSize counts samples"}),
        ({"train_on_inputs": True}, {"note": "train_on_inputs: True; labels are the replies alone"}),
        ({"wandb_name": "x"}, {"tracking": None, "note": "wandb_name: x has no effect"}),
        ({"lr_scheduler": "cosine", "learning_rate": 20}, {"note": "training.learningRate is left out"}),
        ({"tf32": True, "strict": False}, {"note": "no result depends on it here: tf32, strict"}),
        ({"temperature": 1}, {"sampling": None, "note": "temperature: 1"}),
    ]
    assert differences(cases, AXOLOTL) == []


def test_words_are_values_as_in_the_tools_own_yaml():
    spec, notes = converted("base_model: org/m\nload_in_4bit: yes\nadapter: lora\nsave_strategy: no\n")
    assert "qlora" in spec["method"]
    assert "save_strategy: no is not offered" in notes


def test_datasets_keep_their_columns_slices_and_shares():
    path = {"uri": "hf://datasets/org/d"}
    usual = {"role": "from", "content": "value"}
    cases = {
        "columns": ({"field_messages": "talk"}, {"chat": {}, "columns": {"messages": "talk"}}),
        "usual": ({"field_messages": "conversations", "message_property_mappings": usual}, {"chat": {}}),
        "own": (
            {"type": {"field_instruction": "q", "field_output": "a"}},
            {"instruction": {}, "columns": {"instruction": "q", "output": "a"}},
        ),
        "first": ({"split": "train[:100]"}, {"chat": {}, "split": "train", "limit": 100}),
        "share": ({"split": "train[:20%]"}, {"chat": {}, "split": "train", "subset": {"ratio": 0.2}}),
        "revision": ({"revision": "v1"}, {"uri": "hf://datasets/org/d@v1", "chat": {}}),
    }  # fmt: skip
    wrong = {}
    for name, (part, expected) in cases.items():
        spec, notes = converted({**AXOLOTL, "datasets": [{"path": "org/d", **part}]})
        if spec["datasets"] != [path | expected] or "has no field" in notes:
            wrong[name] = spec["datasets"], notes
    assert wrong == {}
    _, notes = converted(
        {**AXOLOTL, "datasets": [{"path": "org/d", "type": "jeopardy", "roles_to_train": []}]}
    )
    assert "datasets[0].type: jeopardy is not known" in notes
    assert "datasets[0].roles_to_train: []" in notes


def test_files_of_this_machine_and_mixtures_are_datasets_of_their_own(tmp_path):
    files = {"path": "json", "type": "completion", "data_files": ["a.jsonl", "b.jsonl"], "split": "train"}
    spec, _ = converted({**AXOLOTL, "datasets": [files]})
    assert [dataset["uri"].rpartition("/")[2] for dataset in spec["datasets"]] == ["a.jsonl", "b.jsonl"]
    part = {"id": "org/d", "config": "c", "split": "s", "columns": ["messages"], "weight": 0.5}
    mixture = {"datasets": [part, {**part, "weight": 1.0}], "test_split_size": 0.1, "seed": 0}
    spec, notes = converted({"model_name_or_path": "org/m", "dataset_mixture": mixture})
    whole = {"uri": "hf://datasets/org/d", "chat": {}, "config": "c", "split": "s"}
    assert spec["datasets"] == [{**whole, "subset": {"ratio": 0.5}}, whole]
    assert spec["validation"] == {"ratio": 0.1}
    assert "dataset_seed: 0" in notes


def test_names_of_dataset_info_are_looked_up(tmp_path):
    info = {
        "alpaca": {"file_name": "a.json", "columns": {"prompt": "q", "response": "a"}, "num_samples": 9},
        "talks": {
            "hf_hub_url": "org/d",
            "subset": "c",
            "formatting": "sharegpt",
            "ranking": True,
            "ms_hub_url": "z",
        },
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    more = {"dataset": "alpaca, talks, other", "dataset_dir": str(tmp_path), "mask_history": True}
    spec, notes = converted(LLAMA_FACTORY, more)
    last = {"chat": {"trainOn": "lastAssistant"}}
    assert spec["datasets"] == [
        {
            "uri": f"file://{tmp_path}/a.json", "instruction": {}, "limit": 9,
            "columns": {"instruction": "q", "output": "a"},
        },
        {"uri": "hf://datasets/org/d", "config": "c", **last},
        {"uri": "s3://datasets/other", **last},
    ]  # fmt: skip
    assert "datasets[1].ranking: True" in notes
    assert "ms_hub_url" not in notes
    more = {"stage": "pt", "dataset": "alpaca,talks,other", "dataset_dir": str(tmp_path)}
    documents = converted(LLAMA_FACTORY, more)[0]["datasets"]
    assert [each["text"] for each in documents] == [{}, {}, {}]
    assert [each.get("columns") for each in documents] == [{"text": "q"}, {"text": "instruction"}, None]


def test_a_limit_and_a_configuration_may_stand_before_the_dataset():
    spec, _ = converted({"dataset_config": "c", "max_samples": 5, **TRL})
    assert spec["datasets"] == [
        {"uri": "hf://datasets/org/d", "chat": {}, "config": "c", "split": "train", "limit": 5}
    ]


def test_deepspeed_files_keep_stage_and_offload(tmp_path):
    file = tmp_path / "ds.json"
    zero = {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
    file.write_text(json.dumps({"zero_optimization": zero}))
    names = {
        str(file): {"zeroStage": 3, "offload": "all"},
        "ds_z2_offload_config.json": {"zeroStage": 2, "offload": "optimizer"},
        "deepspeed_configs/zero1.json": {"zeroStage": 1},
    }
    assert {name: converted(TRL, {"deepspeed": name})[0]["deepspeed"] for name in names} == names


def test_what_is_said_of_data_of_another_format_is_noted():
    cases = [
        ({"ablation_config": "simple"}, {"note": "ablation_config: simple has no", "datasets.0.chat": {}}),
        (
            {"report_to": "wandb", "run_name": ["a"]},
            {"tracking": {"wandb": {"project": "demo"}}, "note": "tracking.wandb.runName is left out"},
        ),
    ]
    assert differences(cases, TRL) == []


def test_processes_of_accelerate_are_those_of_all_machines():
    cases = [
        ({"num_machines": 2, "num_processes": 16}, {"resources": {"nodes": 2, "gpusPerNode": 8}}),
        ({"num_processes": 4}, {"resources": {"gpusPerNode": 4}}),
    ]
    assert differences(cases, TRL) == []


def test_a_split_of_trl_may_have_a_slice_and_its_format_is_said():
    whole = {"uri": "hf://datasets/org/d", "chat": {}, "split": "train"}
    cases = [
        ({"dataset_train_split": "train[:50]"}, {"datasets.0": {**whole, "limit": 50}}),
        ({}, {"datasets.0": whole, "note": "datasets[0]: chat reads messages"}),
        ({"dataset_text_field": "body"}, {"datasets.0.columns": {"text": "body"}}),
    ]
    assert differences(cases, TRL) == []


def test_no_secret_is_written_into_a_note():
    """The result is a file for Git; tokens of a vocabulary and of a batch are no secrets."""
    secret = "hf_abcdefghijklmnop"
    names = ("hub_token", "token", "wandb_api_key", "comet_api_key", "s3_secret_access_key", "db_password")
    given = dict.fromkeys(names, secret) | {"extra": {"hf_token": secret}, "pad_token": "<pad>"}
    notes = converted(TRL, given)[1]
    assert secret not in notes
    assert not [name for name in (*names, "extra") if f"{name} has no corresponding field" not in notes]
    assert "pad_token: <pad>" in notes
    of_datasets = converted(AXOLOTL, {"datasets": [{**AXOLOTL["datasets"][0], "auth_token": secret}]})[1]
    assert "datasets[0].auth_token has no field" in of_datasets
    assert secret not in of_datasets
