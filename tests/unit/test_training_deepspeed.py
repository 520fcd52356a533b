"""From spec.deepspeed to a DeepSpeed configuration: what is set, what is taken, what is refused."""

import logging
import pickle

import pytest
from hostile import DEEPSPEED_SECTIONS
from tests.cases import each
from tests.fixtures.steps import small_spec

from tunesmith.errors import PermanentError
from tunesmith.names import Reason
from tunesmith.training.deepspeed.config import (
    deepspeed_config,
    precision,
    problem,
    refuse_wrong,
    tied_to_processes,
    zero_stage,
)
from tunesmith.training.deepspeed.runtime import check, name_states

ZERO2 = {"zero_optimization": {"stage": 2}}


def spec_of(training=None, dtype="auto", method=None, **deepspeed):
    asked = {"deepspeed": deepspeed} if deepspeed else {}
    spec = small_spec(training or {}, method=method or {"full": {}}, **asked)
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})


def made(spec, dtype="float32", world=4, gpu=False):
    return deepspeed_config(spec, dtype=dtype, world=world, gpu=gpu)


@each("dtype", ["float32", "bfloat16", "float16"])
@each("stage", [0, 1, 2, 3])
def test_of_a_stage(stage, dtype):
    config = made(spec_of({"perDeviceTrainBatchSize": 3, "maxGradNorm": 0.7}, zeroStage=stage), dtype)
    assert config == {
        "train_micro_batch_size_per_gpu": 3,
        "train_batch_size": 12,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.7,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
        "zero_optimization": {"stage": stage}
        | ({"stage3_gather_16bit_weights_on_model_save": True} if stage == 3 else {}),
        "zero_force_ds_cpu_optimizer": False,
    }


@pytest.mark.parametrize("gpu", [False, True])
def test_offload(gpu):
    memory = {"device": "cpu", "pin_memory": gpu}
    some = made(spec_of(zeroStage=1, offload="optimizer"), gpu=gpu)["zero_optimization"]
    both = made(spec_of(zeroStage=3, offload="all"), gpu=gpu)["zero_optimization"]
    assert some == {"stage": 1, "offload_optimizer": memory}
    assert (both["offload_optimizer"], both["offload_param"]) == (memory, memory)


def test_partitions_within_a_node_must_divide_the_processes():
    spec = spec_of(config={"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 4}})
    assert made(spec, world=8) is not None
    with pytest.raises(
        PermanentError, match=r"zero_hpz_partition_size 4 does not divide .* processes, 6\. Set"
    ):
        made(spec, world=6)


@each("stage", [1, 2])
def test_what_ties_a_checkpoint_to_the_number_of_processes(stage):
    elastic = spec_of(config={"zero_optimization": {"stage": stage, "elastic_checkpoint": True}})
    assert tied_to_processes(elastic) == "deepspeed.config zero_optimization.elastic_checkpoint"
    assert tied_to_processes(spec_of(config={"zero_optimization": {"stage": stage}})) == ""
    assert tied_to_processes(spec_of(zeroStage=stage)) == tied_to_processes(spec_of()) == ""


def test_none_without_deepspeed():
    spec = spec_of()
    assert made(spec) is None
    assert (problem(spec), zero_stage(spec), precision(spec, "bfloat16")) == ("", 0, "bfloat16")


def test_a_configuration_is_taken_as_it_is_but_for_the_batches(caplog):
    given = {
        "train_batch_size": 64,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": 8,
        "gradient_clipping": 0.3,
        "communication_data_type": "fp32",
        "zero_optimization": {"stage": 3, "overlap_comm": False, "reduce_bucket_size": 1000},
    }
    spec = spec_of(config=given)
    with caplog.at_level(logging.WARNING):
        config = made(spec)
    assert config["zero_optimization"] == {
        **given["zero_optimization"],
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    kept = ("gradient_clipping", "communication_data_type")
    assert {key: config[key] for key in kept} == {key: given[key] for key in kept}
    batches = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [config[key] for key in batches] == [8, 2, 1]
    assert "train_batch_size 64, gradient_accumulation_steps 8 is ignored" in caplog.text
    assert spec.deepspeed.config == given


def test_auto_is_what_training_says():
    config = made(
        spec_of(
            {"maxGradNorm": 0.5},
            config={
                "zero_optimization": {
                    "stage": 2,
                    "reduce_bucket_size": "auto",
                    "allgather_bucket_size": "auto",
                },
                "gradient_clipping": "auto",
                "bf16": {"enabled": "auto"},
                "fp16": {"enabled": "auto"},
            },
        ),
        "bfloat16",
    )
    assert config["gradient_clipping"] == 0.5
    # transformers fills in what follows from the model's width; for the rest DeepSpeed has defaults.
    assert config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": "auto"}
    assert (config["bf16"], config["fp16"]) == ({"enabled": True}, {"enabled": False})


@pytest.mark.parametrize(
    ("given", "loaded", "computed"),
    [
        ({"bf16": {"enabled": True}}, "float32", "bfloat16"),
        ({"fp16": {"enabled": True, "initial_scale_power": 8}}, "bfloat16", "float16"),
        ({"bf16": {"enabled": False}}, "bfloat16", "float32"),
        ({"bf16": {"enabled": "auto"}}, "bfloat16", "bfloat16"),
        ({}, "bfloat16", "bfloat16"),
    ],
)
def test_precision(given, loaded, computed):
    spec = spec_of(config=ZERO2 | given)
    assert precision(spec, loaded) == computed
    config = made(spec, computed)
    enabled = [name for name in ("bf16", "fp16") if config[name]["enabled"]]
    assert enabled == {"bfloat16": ["bf16"], "float16": ["fp16"], "float32": []}[computed]
    assert {k: v for k, v in config["fp16"].items() if k != "enabled"} == {
        k: v for k, v in given.get("fp16", {}).items() if k != "enabled"
    }


@each(
    ("changes", "said"),
    [
        ({"config": ZERO2 | {"optimizer": {"type": "AdamW"}}}, "deepspeed.config: leave out optimizer; set"),
        ({"config": ZERO2 | {"scheduler": {"type": "WarmupLR"}}}, "leave out scheduler; set training.lr"),
        ({"config": ZERO2 | {"tensor_parallel": {"autotp_size": 2}}}, "tensor_parallel is not supported"),
        ({"config": {"zero_optimization": {"stage": "auto"}}}, "stage must be 0, 1, 2 or 3"),
        ({"config": {"zero_optimization": {"stage": 4}}}, "stage must be 0, 1, 2 or 3"),
        ({"config": {"zero_optimization": 3}}, "zero_optimization must be an object with fields"),
        (
            {"config": {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}},
            "zero_optimization.offload_param.device nvme needs an operator that must be compiled",
        ),
        ({"config": {"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}}, "must be compiled"),
        ({"config": {"zero_optimization": {"stage": 1, "compute_grad_norm": False}}}, "norm must not"),
        ({"config": ZERO2 | {"zero_force_ds_cpu_optimizer": True}}, "zero_force_ds_cpu_optimizer needs an"),
        ({"config": ZERO2 | {"bf16": {"enabled": True}, "fp16": {"enabled": True}}}, "cannot both be"),
        ({"config": ZERO2 | {"bf16": {"enabled": True}}, "dtype": "float32"}, "but model.dtype is float32"),
        ({"config": ZERO2 | {"bf16": {"enabled": False}}, "dtype": "bfloat16"}, "bf16 is not enabled, but"),
        ({"zeroStage": 2, "training": {"optimizer": "paged_adamw_8bit"}}, "optimizer paged_adamw_8bit"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(changes, said):
    spec = spec_of(**changes)
    assert said in problem(spec)
    with pytest.raises(PermanentError) as caught:
        refuse_wrong(spec)
    assert caught.value.reason == Reason.INVALID_MANIFEST


def test_no_section_writes_a_file_imports_a_module_or_talks_to_a_server():
    taken = [name for name in DEEPSPEED_SECTIONS if not problem(spec_of(config=ZERO2 | {name: {}}))]
    assert taken == []
    assert "supported: train_batch_size, " in problem(spec_of(config=ZERO2 | {"wandb": {}}))


@pytest.mark.engine
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_takes_what_is_made(stage):
    check(made(spec_of(zeroStage=stage, offload={0: "none", 3: "all"}.get(stage, "optimizer")), "bfloat16"))


@pytest.mark.engine
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"zero_optimization": {"stage": 2, "overlap_com": True}}, "overlap_com"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": "large"}}, "reduce_bucket_size"),
        (ZERO2 | {"communication_data_type": "fp12"}, "communication_data_type"),
        (ZERO2 | {"fp16": {"enabled": False, "loss_scale_windows": 3}}, "loss_scale_windows"),
    ],
)
def test_what_deepspeed_refuses_is_one_sentence(given, said):
    with pytest.raises(PermanentError, match=r"^deepspeed\.config: DeepSpeed rejects it: ") as caught:
        check(made(spec_of(config=given)))
    assert said in caught.value.message
    assert "\n" not in caught.value.message


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.engine
def test_a_checkpoint_that_somebody_has_planted_runs_nothing(tmp_path, monkeypatch):
    import torch
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # as `tunesmith.jobs` sets it
    name_states()
    engine = TorchCheckpointEngine()
    torch.save({"optimizer": Evil(str(tmp_path / "ran"))}, tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"(io|_io)\.open"):
        engine.load(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()
    own = {
        "stage": ZeroStageEnum(2),
        "at": fragment_address(1, 2),
        "scaler": DynamicLossScaler(1, 2, 3, 4, 5, 6),
    }
    torch.save(own, tmp_path / "own.pt")
    assert engine.load(str(tmp_path / "own.pt")).keys() == own.keys()
