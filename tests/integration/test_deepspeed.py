"""FineTuneJob with DeepSpeed by the real command: ZeRO on two processes, stopped, killed and gone on with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kills import first_step, forget_logs, started, wait_for_checkpoint, wait_for_step
from tests.support import Ended, chat_records, finetune, logs_of, metrics_of, run_job, write_jsonl


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global load_file, torch
    import torch
    from safetensors.torch import load_file


pytestmark = pytest.mark.slow
USERS = Path(__file__).parents[2] / "examples/user-simulation/users.jsonl"
TWO = ("--processes", "2")


def manifest_01(home: Path, name: str, model: Path) -> dict[str, Any]:
    """The first manifest of the examples, in small: full fine-tuning with ZeRO-3 that stops early."""
    data = home / "users.jsonl"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(USERS, data)
    simulated = {"expand": True, "ablationConfig": "profile_and_context", "promptStyle": "simple"}
    return finetune(
        name,
        model=model,
        data=data,
        output=home / name,
        datasets=[{"uri": f"file://{data}", "userSimulation": simulated}],
        method={"full": {}},
        deepspeed={"zeroStage": 3},
        validation={"ratio": 0.25},
        previews=[{"name": "bees", "user": "Do you like visitors?", "generation": {"maxNewTokens": 3}}],
        training={
            "maxSteps": 60, "evalSteps": 4, "saveSteps": 3, "saveTotalLimit": 2, "learningRate": 0.3,
            "lrScheduler": "constant", "weightDecay": 0.1, "maxLength": 512, "loggingSteps": 2,
            "perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 3,
            "earlyStopping": {"patience": 3, "threshold": 0.001},
        },
    )  # fmt: skip


def small(home: Path, name: str, model: Path, stage: int, method: dict[str, Any]) -> dict[str, Any]:
    """A few steps over more than one epoch, with dropout where there is an adapter."""
    return finetune(
        name,
        model=model,
        data=write_jsonl(home / "train.jsonl", chat_records(30)),
        output=home / name,
        method=method,
        deepspeed={"zeroStage": stage},
        validation={"ratio": 0.2},
        training={"maxSteps": 14, "saveSteps": 3, "evalSteps": 5, "loggingSteps": 2},
    )


def ran(home: Path, document: dict[str, Any]) -> Ended:
    ended = run_job(home, document, *TWO)
    assert ended.code == 0, ended.text + logs_of(home)
    return ended


def outcome(output: Path) -> dict[str, Any]:
    """All that must be the same whether or not a run was killed."""
    result = json.loads((output / "result.json").read_text("utf-8"))
    weights = {path.name: path.read_bytes() for path in (output / "final_model").glob("*.safetensors")}
    assert weights
    return {
        "metrics": metrics_of(output),
        **{key: result[key] for key in ("steps", "usedStep", "validationLoss", "previews")},
        **weights,
    }


def killed_after(home: Path, document: dict[str, Any], step: int) -> None:
    """Start, kill everything after a step, and go on to the end."""
    with started(home, document, *TWO, env={}) as run:
        wait_for_step(run, step)
        run.kill("tree")
        run.ended()
    forget_logs(home)
    ran(home, document)
    assert 1 < first_step(home) <= step + 3


@pytest.mark.parametrize(
    "killed", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["whole", "killed"]
)
def test_manifest_01_in_small(tmp_path: Path, tiny_model: Path, killed: bool) -> None:
    home, other = tmp_path / "whole", tmp_path / "killed"
    ran(home, manifest_01(home, "job", tiny_model))
    whole = outcome(home / "job")
    losses = {row["step"]: row["eval_loss"] for row in whole["metrics"] if "eval_loss" in row}
    best = min(losses, key=lambda at: losses[at])
    assert whole["usedStep"] == best < whole["steps"] < 60
    assert whole["validationLoss"]["after"] == losses[best] != whole["validationLoss"]["before"]
    # What is resumed from is sharded, beside the model that others load. The final weights are those of the
    # best one, as DeepSpeed's own script has them.
    saved = home / "job" / f"checkpoint-{best}"
    assert_loads_as_it_is(saved)
    assert len(list(saved.glob(f"global_step{best}/*_optim_states.pt"))) == 2
    final, gathered = (
        load_file(folder / "model.safetensors") for folder in (home / "job/final_model", saved)
    )
    recovered = recover(saved)
    assert final.keys() == gathered.keys()
    assert all(torch.equal(final[name], recovered[name]) for name in final)
    assert all(torch.equal(final[name], gathered[name]) for name in final)
    log = (home / ".tunesmith/jobs/default/job-ftj/logs/rank-1.log").read_text("utf-8")
    assert not re.search(r"FutureWarning|\[(INFO|WARNING)\]", log)  # DeepSpeed's own chatter

    if killed:
        killed_after(other, manifest_01(other, "job", tiny_model), 5)
        assert outcome(other / "job") == whole


def assert_loads_as_it_is(checkpoint: Path) -> None:
    """By plain transformers, as any model: no weight is missing, and the tokenizer is there."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, report = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not report["missing_keys"]
    assert AutoTokenizer.from_pretrained(checkpoint).chat_template


def assert_holds_what_is_final(output: Path) -> None:
    """The last checkpoint's model is the final one, whichever stage gathered it."""
    last = max(output.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    for path in (output / "final_model").glob("*.safetensors"):
        assert (last / path.name).read_bytes() == path.read_bytes()


def recover(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Whole weights of a checkpoint, put together by DeepSpeed's own script for it."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    return dict(get_fp32_state_dict_from_zero_checkpoint(str(checkpoint)))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("stage", "method"),
    [
        (0, {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}),
        (1, {"full": {}}),
        (2, {"full": {}}),
        (2, {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}),
        (3, {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}),
        (3, {"qlora": {"r": 4, "alpha": 8, "dropout": 0.1}}),
    ],
    ids=["0-lora", "1-full", "2-full", "2-lora", "3-lora", "3-qlora"],
)
def test_killed_and_gone_on_with(
    tmp_path: Path, tiny_model: Path, stage: int, method: dict[str, Any]
) -> None:
    home, other = tmp_path / "whole", tmp_path / "killed"
    ran(home, small(home, "job", tiny_model, stage, method))
    assert_holds_what_is_final(home / "job")
    killed_after(other, small(other, "job", tiny_model, stage, method), 7)
    assert outcome(other / "job") == outcome(home / "job")


@pytest.mark.soak
def test_killed_after_it_stopped_early(tmp_path: Path, tiny_model: Path) -> None:
    """It trains no further, and comes to the same model."""
    document = manifest_01(tmp_path, "job", tiny_model)
    ran(tmp_path, document)
    whole = outcome(tmp_path / "job")
    (tmp_path / "job/manifest.json").unlink()
    ran(tmp_path, document)
    assert outcome(tmp_path / "job") == whole


@pytest.mark.soak
@pytest.mark.parametrize("stage", [2, 3])
def test_offload_from_a_checkpoint_on_when_memory_ran_out(
    tmp_path: Path, tiny_model: Path, stage: int
) -> None:
    """An attempt without offload is killed; the next one is told that its memory ran out."""

    def document(name: str) -> dict[str, Any]:
        lora = {"lora": {"r": 4, "alpha": 8, "dropout": 0}}
        made = small(tmp_path, name, tiny_model, stage, lora)
        made["spec"]["training"] |= {"gradientCheckpointing": True, "saveSteps": 2, "maxSteps": 6}
        return made

    def losses(name: str) -> list[float]:
        return [row["loss"] for row in metrics_of(tmp_path / name) if "loss" in row]

    whole = run_job(tmp_path / "home-whole", document("whole"), warm=False, timeout=600)
    assert whole.code == 0, whole.text
    home = tmp_path / "home-less"
    with started(home, document("less"), env={}) as run:
        wait_for_checkpoint(run, 2, 600)
        run.kill("tree")
        run.ended()
    notes = json.loads((tmp_path / "less" / "memory.json").read_text("utf-8"))
    notes["attempts"]["1"] |= {"tokensPerDevice": 10, "samplesPerDevice": 1}
    (tmp_path / "less" / "memory.json").write_text(json.dumps(notes), "utf-8")
    (count,) = home.glob(".tunesmith/jobs/*/*/attempt.json")
    count.write_text(json.dumps({"attempt": 1, "outOfMemory": [1]}), "utf-8")
    ended = run_job(home, document("less"), warm=False, timeout=600)
    assert ended.code == 0, ended.text + logs_of(home)
    after = json.loads((tmp_path / "less" / "memory.json").read_text("utf-8"))["attempts"]["2"]
    assert after["offload"] == ("all" if stage == 3 else "optimizer")
    assert losses("less") == pytest.approx(losses("whole"), rel=1e-5)
