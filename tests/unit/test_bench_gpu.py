"""What `make gpu` would try: the manifests that it runs are taken, and its table says what was seen."""

import json
import sys
from pathlib import Path

import pytest

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
