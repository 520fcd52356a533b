"""What the pods of a sampling job agree on, as values: shards, tasks, engines, fingerprints, progress."""

import json
import threading
import time
from collections import Counter
from dataclasses import asdict
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.manifests import parse_text

from tunesmith.api.common import ModelSource, StorageSpec
from tunesmith.api.generation import EngineSpec, SamplingSpec, VerifierSpec
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import StoragePermanentError, StorageTemporaryError
from tunesmith.jobs.engine_pool import EnginePool, visible_devices
from tunesmith.jobs.engine_settings import EngineSettings
from tunesmith.jobs.progress import Progress, Trouble
from tunesmith.jobs.rendezvous import SinglePod, wait_for, wait_for_all
from tunesmith.jobs.retry import retry_with_check
from tunesmith.jobs.sampling import SharedProgress, shard_size
from tunesmith.names import Reason
from tunesmith.plan.build import build
from tunesmith.plan.pod_template import engines_of
from tunesmith.plan.progress import to_status

MANIFEST = """
apiVersion: tunesmith.dev/v1alpha1
kind: RejectionSampleJob
metadata: {{name: sample}}
spec:
  model: {{uri: hf://org/model}}
  prompts: {{uri: s3://bucket/prompts.jsonl, instruction: {{}}}}
  verifier: {{regex: {{pattern: x}}}}
  engine: {engine}
  resources: {{gpusPerNode: {gpus}}}
  output: {{uri: s3://bucket/out}}
"""


def job(engine="{vllm: {}}", gpus=1):
    jobs, problems = parse_text(MANIFEST.format(engine=engine, gpus=gpus), "job.yaml")
    assert not problems
    return jobs[0]


@pytest.mark.parametrize(
    ("prompts", "engines", "size"), [(0, 1, 1), (7, 1, 1), (80, 1, 10), (80, 8, 1), (10**6, 8, 64)]
)
def test_shards_are_small_enough_for_all_engines_to_end_together(prompts, engines, size):
    assert shard_size(prompts, engines) == size


@pytest.mark.parametrize(
    ("engine", "gpus", "engines"),
    [
        ("{vllm: {}}", 2, 2),
        ("{vllm: {tensorParallelSize: 2}}", 4, 2),
        ("{vllm: {tensorParallelSize: 4}}", 4, 1),
        ("{transformers: {}}", 8, 8),
        ("{transformers: {}}", 0, 1),
    ],
)
def test_engines_of_a_pod(engine, gpus, engines):
    made = job(engine, gpus)
    assert engines_of(made.spec, gpus) == engines
    plan = build(made, {})
    pod = plan.child["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    assert {"name": "TUNESMITH_ENGINES", "value": str(engines)} in pod["env"]
    assert plan.child["spec"]["nprocPerNode"] == "1"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("{vllm: {gpuMemoryUtilization: 0.5, tensorParallelSize: 2}}", "{vllm: {}}", True),
        ("{transformers: {batchSize: 3, stuckSeconds: 60}}", "{transformers: {}}", True),
        ("{vllm: {maxModelLen: 100}}", "{vllm: {}}", False),
        ("{vllm: {}}", "{transformers: {}}", False),
    ],
)
def test_how_engines_are_laid_out_is_not_what_the_result_is(one, other, same):
    first, second = (build(job(engine, 2), {}).run.result_fields() for engine in (one, other))
    assert (first == second) is same


def test_a_task_comes_out_of_its_file_as_it_went_in(tmp_path):
    task = EngineSettings(
        model=ModelSource(uri="hf://org/model"),
        files=ModelFiles(Path("/base"), (Path("/one"), Path("/two")), ModelSource(uri="hf://org/base")),
        sampling=SamplingSpec(num_samples=3, seed=5),
        engine=EngineSpec.model_validate({"transformers": {}}),
        verifier=VerifierSpec.model_validate({"numeric": {"field": "answer"}}),
        verifier_path="evaluation[1].verifier",
        output="s3://bucket/out",
        storage=StorageSpec(),
        job="uid",
        attempt=2,
        pod=3,
        prompts=Path("/prompts"),
        journal=Path("/journal"),
        day=date(2026, 1, 2),
    )
    task.save(tmp_path / "task.json")
    assert EngineSettings.load(tmp_path / "task.json") == task
    assert task.writer(1) == "pod-3-engine-1"


@pytest.mark.parametrize(("named", "devices"), [("", []), ("3", ["3"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])])
def test_devices_are_those_the_environment_names(named, devices):
    assert visible_devices({"CUDA_VISIBLE_DEVICES": named}) == devices


def test_one_pod_counts_its_own_shards_by_name():
    pods = SinglePod()
    assert [pods.next_shard("a"), pods.next_shard("a"), pods.next_shard("b")] == [0, 1, 0]
    assert pods.get("x") is None
    pods.set("x", "1")
    assert wait_for(pods, "x", lambda: None) == "1"


def test_waiting_is_given_up_when_the_check_says_so():
    def check():
        raise StorageTemporaryError("Enough.")

    with pytest.raises(StorageTemporaryError, match="Enough"):
        wait_for(SinglePod(), "never", check, every=0)


def test_waiting_for_all_ends_without_those_that_never_come():
    pods = SinglePod()
    pods.set("a", "yes")
    wait_for_all(pods, ["a", "b"], seconds=0)


def shown(total, size=1, clock=time.monotonic):
    progress, pods = Progress(), SinglePod()
    draw = SimpleNamespace(
        name="sampling",
        prompts=range(total),
        world=SimpleNamespace(rank=0, size=size),
        pods=pods,
        progress=progress,
        phase="sampling",
    )
    return SharedProgress(draw, clock), progress, pods


def test_progress_adds_up_all_pods():
    tell, progress, pods = shown(10, size=2)
    pods.set("sampling/tally/1", '[{"prompts": 2, "replies": 8, "accepted": 2, "tokens": 9}, null]')
    tell.tell(Counter(prompts=3, replies=12, accepted=3, tokens=7))
    said = progress.snapshot()
    assert (said["step"], said["total"], said["accepted"], said["acceptanceRate"]) == (5, 10, 5, 0.25)
    assert to_status(said)["text"] == "5/10"


def test_the_memory_of_engines_gpus_is_shown_while_they_have_it():
    tell, progress, _ = shown(10, size=1)
    tell.tell(Counter(ready=1), None, 5_000_000_000)
    assert progress.snapshot()["gpuMemoryBytes"] == 5_000_000_000
    tell.tell(Counter(ready=1))
    assert "gpuMemoryBytes" not in progress.snapshot()


def test_of_several_engines_the_fullest_gpu_is_shown():
    pool = EnginePool([], 2, lambda: None)
    assert pool.gpu_memory is None
    for number, memory in enumerate((7, 9)):
        pool._note(number, {"silent": 0.0, "gpuMemoryBytes": memory})
    pool._note(1, {"silent": 0.0})
    assert pool.gpu_memory == 9


def test_what_any_pods_engines_wait_for_is_told_until_it_is_over():
    tell, progress, pods = shown(10, size=2)
    other = Trouble("StorageUnavailable", "Away.", "2026-05-01T12:00:00Z")
    pods.set("sampling/tally/1", json.dumps([{}, asdict(other)]))
    tell.tell(Counter(restarts=1), Trouble("Stuck", "Engine 0 hangs.", "2026-05-01T12:00:09Z"))
    said = to_status(progress.snapshot())
    assert (said["trouble"], said["engineRestarts"]) == (asdict(other), 1)
    pods.set("sampling/tally/1", "[{}, null]")
    tell.refresh()
    assert progress.snapshot()["trouble"]["message"] == "Engine 0 hangs."
    tell.tell(Counter(restarts=1))
    assert "trouble" not in progress.snapshot()


def test_a_trouble_stands_since_it_began_and_the_oldest_is_told():
    now = [1777636800.0]
    progress = Progress(lambda: now[0])
    storage, disk = progress.teller("storage"), progress.teller("disk")
    storage(StorageTemporaryError("Away."))
    now[0] += 60
    storage(StorageTemporaryError("Still away."))
    disk(StorageTemporaryError("Full.", reason=Reason.DISK_FULL))
    said = {"reason": "StorageUnavailable", "message": "Still away.", "since": "2026-05-01T12:00:00Z"}
    assert progress.snapshot()["trouble"] == said
    storage(None)
    assert progress.snapshot()["trouble"]["since"] == "2026-05-01T12:01:00Z"
    disk(None)
    assert progress.snapshot() == {"phase": "starting"}


def test_prompts_counted_twice_after_an_engine_died_do_not_pass_the_total():
    tell, progress, _ = shown(10)
    tell.tell(Counter(prompts=14, replies=40))
    assert progress.snapshot()["step"] == 10


def test_before_the_first_reply_the_engines_start():
    tell, progress, _ = shown(10)
    tell.tell(Counter())
    assert progress.snapshot()["phase"] == "sampling: starting the engines"


def test_tokens_per_second_count_from_when_the_engines_are_ready_not_from_the_first_reply():
    now = [0.0]
    tell, progress, _ = shown(10, clock=lambda: now[0])
    tell.tell(Counter())
    now[0] = 100.0  # the engines are loaded
    tell.tell(Counter(ready=1))
    assert progress.snapshot()["phase"] == "sampling"
    now[0] = 165.0  # a whole batch ends at once
    tell.tell(Counter(ready=1, prompts=2, replies=8, tokens=195))
    assert progress.snapshot()["tokensPerSecond"] == 3.0
    assert progress.snapshot()["secondsLeft"] == 4 * 65


def test_what_cannot_succeed_is_not_tried_for_ever():
    def refuse():
        raise StoragePermanentError("No such bucket.")

    with pytest.raises(StoragePermanentError, match="bucket"):
        retry_with_check("Work", refuse, lambda: None)


def test_work_that_is_called_off_raises_why():
    begun = threading.Event()

    def away():
        begun.set()
        raise StorageTemporaryError("Away.")

    def check():
        if begun.is_set():
            raise StorageTemporaryError("Told to stop.")

    with pytest.raises(StorageTemporaryError, match="Told to stop"):
        retry_with_check("Work", away, check)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([{"name": "a", "base": 0.5, "tuned": 1.0}], [{"name": "a", "base": 0.5, "tuned": 1.0}]),
        ([{"name": "a", "base": None, "tuned": 2}], [{"name": "a"}]),
        ([{"base": 0.5}, "x", {"name": ""}, {"name": "n" * 254}], None),
        (
            [{"name": "a", "models": [{"name": "m", "accuracy": 0.5}, {"accuracy": 1}, {"name": "n"}]}],
            [{"name": "a", "models": [{"name": "m", "accuracy": 0.5}, {"name": "n"}]}],
        ),
        ("nonsense", None),
        ([{"name": str(at)} for at in range(20)], [{"name": str(at)} for at in range(16)]),
    ],
    ids=["right", "no share", "no name", "models", "no list", "too many"],
)
def test_evaluations_in_the_status_make_sense(said, kept):
    assert to_status({"evaluations": said}).get("evaluations") == kept
