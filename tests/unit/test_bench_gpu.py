"""What `make gpu` would try: the manifests that it runs are taken, and its table says what was seen."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tunesmith.sampling.statistics import SamplingStatistics

FOLDER = Path(__file__).parents[2] / "bench" / "gpu"


@pytest.fixture
def modules(monkeypatch):
    for name in ("bench", "figures", "jobs", "place", "small"):  # others have modules of these names
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(FOLDER))
    import bench
    import jobs

    return bench, jobs


def test_manifests_are_taken(modules, tmp_path, monkeypatch):
    from tunesmith.local.manifests import load_jobs

    bench, jobs = modules
    (tmp_path / "model").mkdir()
    place = bench.Place("cuda", tmp_path, tmp_path / "model")
    taken = []

    def run(place, job):
        path = tmp_path / "job.json"
        path.write_text(json.dumps({**job, "spec": job["spec"] | {"output": {"uri": "file:///out"}}}))
        taken.append(load_jobs([path], [])[0].kind)
        raise InterruptedError

    monkeypatch.setattr(jobs, "run", run)
    monkeypatch.setattr(jobs, "started", lambda *args, **kwargs: '{"memory": {"total": 1}}')
    for name, job in jobs.JOBS.items():
        with pytest.raises(InterruptedError):
            job(place)
        assert taken, name
    assert taken == ["FineTuneJob", "FineTuneJob", "RejectionSampleJob", "FineTuneJob", "FineTuneJob"]


@pytest.mark.usefixtures("modules")
def test_specs_of_cases_are_taken():
    from small import Case, spec_of

    for method in ("full", "lora", "qlora"):
        assert spec_of(Case(method=method)).training.max_steps == 1
    assert spec_of(Case(deepspeed={"zeroStage": 2})).deepspeed is not None


def test_every_case_of_the_checks_is_taken(modules, tmp_path, monkeypatch):
    bench, jobs = modules
    from small import spec_of

    taken = []

    def run(self, case, **kwargs):
        taken.append(spec_of(case).training.optimizer)
        raise InterruptedError

    monkeypatch.setattr(bench.Place, "run", run)
    small = [check for name, check in bench.CHECKS.items() if name not in jobs.JOBS]
    for check in small:
        with pytest.raises(InterruptedError):
            check(bench.Place("cpu", tmp_path, tmp_path))
    assert len(taken) == len(small)
    assert {"paged_adamw_32bit", "paged_adamw_8bit"} < set(taken)


def test_a_check_that_fails_is_named_and_the_table_has_its_error(modules):
    bench, _ = modules

    def wrong():
        raise bench.CheckError("Traceback\nloss differs by 0.5")

    results = [bench.tried("good", lambda: {"loss": 1.5e-7}), bench.tried("bad", wrong)]
    machine = {"card": "none", "python": "3.11", "versions": {"torch": "2.13"}}
    text = bench.table({"machine": machine, "checks": results, "figures": []})
    assert "| good | passed | loss 1.5e-07 |" in text
    assert "| bad | **failed** | loss differs by 0.5 |" in text


def test_readme_names_every_check(modules):
    bench, _ = modules
    text = (FOLDER / "README.md").read_text("utf-8")
    unnamed = [name for name in bench.CHECKS if f"`{name}`" not in text and "on two" not in name]
    assert unnamed == []


def test_a_cpu_takes_few_steps_and_has_a_bound_of_its_own(modules, tmp_path, monkeypatch):
    bench, jobs = modules
    seen = {}

    def run(place, job):
        seen[place.device] = job["spec"]["training"]["maxSteps"], job["spec"]["resources"]["gpusPerNode"]
        for folder in (tmp_path / "out", tmp_path / "out" / "checkpoint-1"):
            folder.mkdir(exist_ok=True)
            loss = 2.2 if folder.name == "out" else 3.1
            (folder / "metrics.jsonl").write_text(f'{{"eval_loss": 3.1}}\n{{"eval_loss": {loss}}}\n')
        return tmp_path / "out"

    monkeypatch.setattr(jobs, "run", run)
    on_a_gpu, on_a_cpu = (bench.Place(device, tmp_path, tmp_path) for device in ("cuda", "cpu"))
    assert jobs.fine_tune(on_a_gpu)["validation_loss"] == 2.2
    monkeypatch.setitem(jobs.BELOW, "cpu", 2.1)
    with pytest.raises(bench.CheckError, match=r"2\.2\]: the last is not below 2\.1"):
        jobs.fine_tune(on_a_cpu)
    assert seen["cuda"] == (24, 1)
    assert seen["cpu"][0] <= 6
    assert seen["cpu"][1] == 0


def test_the_sampler_counts_the_replies_that_the_job_wrote(modules, tmp_path, monkeypatch):
    bench, jobs = modules
    counted = SamplingStatistics(8).values()
    place = bench.Place("cpu", tmp_path, tmp_path)
    monkeypatch.setattr(jobs, "run", lambda *args: tmp_path)
    (tmp_path / "sampling_stats.json").write_text(json.dumps(counted | {"generations": 256}))
    assert jobs.sampler(place) == {"replies": 256, "accepted": 0}
    (tmp_path / "sampling_stats.json").write_text(json.dumps(counted))
    with pytest.raises(bench.CheckError, match="no reply was sampled"):
        jobs.sampler(place)


def test_the_job_is_that_of_the_quick_start(modules, tmp_path):
    bench, jobs = modules
    manifest = yaml.safe_load((jobs.QUICKSTART / "finetune.yaml").read_text("utf-8"))
    spec = jobs.tuning(bench.Place("cuda", tmp_path, tmp_path))["spec"]
    assert {**spec["training"], "evalSteps": 8} == manifest["spec"]["training"]
    assert spec["method"] == manifest["spec"]["method"]


def test_vllm_gets_a_share_of_a_card_but_not_of_main_memory(modules, tmp_path):
    bench, jobs = modules
    shares = {
        device: jobs.engine(bench.Place(device, tmp_path, tmp_path))["vllm"].get("gpuMemoryUtilization")
        for device in ("cuda", "cpu")
    }
    assert shares == {"cuda": 0.3, "cpu": None}


def test_a_cpu_leaves_out_what_only_a_gpu_can_do(modules, tmp_path, monkeypatch, capsys):
    bench, jobs = modules
    ran = []
    monkeypatch.setattr(bench, "CHECKS", dict.fromkeys(("padded", *jobs.ONLY_ON_A_GPU), ran.append))
    monkeypatch.setattr(bench, "FIGURES", {})
    monkeypatch.setattr(bench, "machine", lambda: {"card": "none", "python": "3.11", "versions": {}})
    monkeypatch.setattr(bench, "tried", lambda name, work: ran.append(name) or {"name": name, "passed": True})
    monkeypatch.setattr(sys, "argv", ["bench.py", "--device", "cpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="0"):
        bench.main()
    assert ran == ["padded"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "out of memory"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "only a GPU can do this: out of memory" in capsys.readouterr().err


@pytest.mark.usefixtures("modules")
def test_what_a_rank_said_is_shown_not_what_torchrun_says_after_it():
    import place

    said = "[rank1]: Traceback\n[rank1]: ModelError: no model\nRoot Cause\n====="
    with pytest.raises(place.CheckError, match=r"^\[rank1\]: Traceback\n\[rank1\]: ModelError: no model$"):
        place.started([sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"], "cpu")
    with pytest.raises(place.CheckError, match=r"^alone$"):
        place.started([sys.executable, "-c", "print('alone'); raise SystemExit(1)"], "cpu")


def test_packages_are_found_however_they_write_their_names(modules, monkeypatch):
    bench, _ = modules
    found = [SimpleNamespace(name=name, version="1") for name in ("liger_kernel", "TRL", "other")]
    monkeypatch.setattr(bench, "distributions", lambda: found)
    answer = SimpleNamespace(stdout='{"card": "none"}')
    monkeypatch.setattr(bench.subprocess, "run", lambda *args, **kwargs: answer)
    assert bench.machine()["versions"] == {"trl": "1", "liger-kernel": "1"}


@pytest.mark.usefixtures("modules")
def test_a_step_of_a_case_takes_its_samples_once():
    from small import Case, spec_of

    training = spec_of(Case(samples=6)).training
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (6, 1)
