"""What a job will need is looked for before it starts: packages, Secrets, verifiers, and files in storage."""

import sys
from dataclasses import replace

import pytest
import yaml
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE
from good_manifests import changed as changed_at

from tunesmith import cli
from tunesmith.api.manifest import parse_document
from tunesmith.api.rules import MACHINE
from tunesmith.artifacts.store import StorageOptions
from tunesmith.errors import GpuMissingError, PermanentError, StoragePermanentError
from tunesmith.jobs import preflight
from tunesmith.names import ENV_RULES, MLFLOW_VARIABLES, Reason
from tunesmith.plan.needs import input_uris, packages

WANDB = {"wandb": {"project": "p"}}
PAGED = {"optimizer": "paged_adamw_8bit"}
PYTHON = {"python": {"function": "no_such_package:judge"}}


def changed(manifest, **fields):
    return changed_at(manifest, {f"spec.{field}": value for field, value in fields.items()})


def spec_of(manifest, **fields):
    return parse_document(changed(manifest, **fields), "job.yaml", 1).spec


def test_each_field_that_needs_a_package_names_it():
    wanted = {
        ("tracking.wandb", "wandb"): spec_of(FINE_TUNE, tracking=WANDB),
        ("tracking.mlflow", "mlflow"): spec_of(FINE_TUNE, tracking={"mlflow": {"experiment": "e"}}),
        ("tracking.tensorboard", "tensorboard"): spec_of(FINE_TUNE),
        ("method.qlora", "bitsandbytes"): spec_of(FINE_TUNE, method={"qlora": {}}),
        ("training.optimizer", "bitsandbytes"): spec_of(
            FINE_TUNE, training={"optimizer": "paged_adamw_8bit"}
        ),
        ("deepspeed", "deepspeed"): spec_of(FINE_TUNE, deepspeed={"zeroStage": 2}),
        ("engine.vllm", "vllm"): spec_of(SAMPLE),
        ("verifier.jsonSchema", "jsonschema"): spec_of(SAMPLE, verifier={"jsonSchema": {"schema": {}}}),
    }
    missing = [
        need for need, spec in wanted.items() if need not in {(p.field, p.module) for p in packages(spec)}
    ]
    assert missing == []


def test_every_module_that_is_named_can_be_one():
    """A name that is written wrongly would refuse every job."""
    import importlib.metadata as metadata

    specs = [
        spec_of(FINE_TUNE, method={"qlora": {}}, deepspeed={"zeroStage": 2}, tracking=WANDB),
        spec_of(SAMPLE, verifier={"jsonSchema": {"schema": {}}}, engine={"transformers": {}}),
        spec_of(SAMPLE, verifier={"regex": {"pattern": "a"}}, engine={"transformers": {}}),
        spec_of(DIALOGUE),
    ]
    modules = {package.module for spec in specs for package in packages(spec)}
    assert modules - metadata.packages_distributions().keys() - {"vllm"} == set()


def test_what_is_missing_is_named_with_its_field_and_remedy(monkeypatch):
    monkeypatch.setattr(preflight, "find_spec", lambda module: None)
    with pytest.raises(PermanentError) as raised:
        preflight.refuse_unready(spec_of(FINE_TUNE, tracking=WANDB))
    assert raised.value.reason == Reason.PACKAGE_MISSING
    assert (
        "spec.tracking.wandb: the package wandb is not installed here: pip install 'tunesmith[wandb]', "
        "or remove tracking.wandb." in raised.value.message
    )


def test_a_secret_that_is_not_set_is_missing_unless_nobody_is_asked(monkeypatch):
    monkeypatch.delenv("TUNESMITH_SECRET_KEYS_API", raising=False)
    ref = {"name": "keys", "key": "api"}
    big = DIALOGUE["spec"]["endpoints"]["big"]
    big = {**big, "openai": {**big["openai"], "apiKeySecretRef": ref}}
    endpoints = {"big": big, "small": big}
    for manifest in (
        changed(FINE_TUNE, tracking={"wandb": {"project": "p", "apiKeySecretRef": ref}}),
        changed(FINE_TUNE, hub={"tokenSecretRef": ref}),
        changed(DIALOGUE, endpoints=endpoints),
    ):
        (lack,) = {lack.message for lack in preflight.problems(spec_of(manifest))}
        assert lack == "Key api of Secret keys is missing; outside a cluster, set TUNESMITH_SECRET_KEYS_API"
    assert preflight.problems(spec_of(DIALOGUE, endpoints=endpoints, dryRun=True)) == []


def test_of_mlflows_secret_one_key_is_enough_and_none_is_missing(monkeypatch):
    for key in MLFLOW_VARIABLES:
        monkeypatch.delenv(f"TUNESMITH_SECRET_TEAM_{key}", raising=False)
    monkeypatch.setattr(preflight, "find_spec", lambda module: True)
    tracking = {"mlflow": {"experiment": "e", "secretRef": {"name": "team"}}}
    (lack,) = preflight.problems(spec_of(FINE_TUNE, tracking=tracking))
    assert lack.field == "tracking.mlflow.secretRef"
    assert lack.message.endswith("outside a cluster, set TUNESMITH_SECRET_TEAM_MLFLOW_TRACKING_TOKEN")
    monkeypatch.setenv("TUNESMITH_SECRET_TEAM_MLFLOW_TRACKING_USERNAME", "me")
    assert preflight.problems(spec_of(FINE_TUNE, tracking=tracking)) == []


def test_a_tracking_server_is_no_storage():
    tracking = {"mlflow": {"experiment": "e", "trackingUri": "https://mlflow.example"}}
    assert "https://mlflow.example" not in dict(input_uris(spec_of(FINE_TUNE, tracking=tracking))).values()


def test_a_verifier_that_does_not_load_is_found(monkeypatch):
    monkeypatch.setenv(ENV_RULES, replace(MACHINE, python_modules=("no_such_package",)).text())
    sampler = changed(SAMPLE, verifier=PYTHON, engine={"transformers": {}})
    evaluation = {"name": "e", "prompts": SAMPLE["spec"]["prompts"], "verifier": PYTHON}
    for manifest, field in (
        (sampler, "verifier.python.function"),
        (changed(FINE_TUNE, evaluation=[evaluation]), "evaluation[0].verifier.python.function"),
    ):
        (lack,) = preflight.problems(spec_of(manifest))
        assert (lack.field, lack.reason) == (field, Reason.INVALID_MANIFEST)
        assert "no_such_package:judge cannot be imported: ModuleNotFoundError" in lack.message


def test_every_address_a_job_reads_is_looked_at(tmp_path):
    spec = spec_of(
        FINE_TUNE,
        model={"uri": f"file://{tmp_path}/model"},
        datasets=[{"uri": f"file://{tmp_path}/data.jsonl", "chat": {}}],
        validation={"uri": f"file://{tmp_path}/held_out.jsonl", "chat": {}},
        output={"uri": f"file://{tmp_path}/out"},
    )
    assert dict(input_uris(spec)) == {
        "model.uri": f"file://{tmp_path}/model",
        "datasets[0].uri": f"file://{tmp_path}/data.jsonl",
        "validation.uri": f"file://{tmp_path}/held_out.jsonl",
    }
    (tmp_path / "model").mkdir()
    for name in ("model/config.json", "data.jsonl"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(StoragePermanentError, match=r"^spec\.validation\.uri: There is no file .*held_out"):
        preflight.check_inputs(spec, StorageOptions())
    (tmp_path / "held_out.jsonl").write_text("{}")
    preflight.check_inputs(spec, StorageOptions())


@pytest.mark.engine
def test_run_refuses_all_jobs_before_the_first_starts(monkeypatch, capsys, tmp_path):
    """The second job's mistake is found before the first one has trained anything."""
    second = changed(SAMPLE, verifier=PYTHON, engine={"transformers": {}})
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump_all([FINE_TUNE, second]), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tunesmith", "run", "-f", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert (
        f"jobs.yaml, document 2 (RejectionSampleJob {second['metadata']['name']}): spec.verifier.python"
        in error
    )
    assert not (tmp_path / ".tunesmith").exists()


def test_a_login_of_this_machine_is_used(monkeypatch, tmp_path):
    from tunesmith.training.trackers import _logged_in

    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not _logged_in("https://wandb.test")
    (tmp_path / "netrc").write_text("machine wandb.test\n  login user\n  password key\n")
    assert _logged_in("https://wandb.test")
    assert not _logged_in("https://another.test")
    (tmp_path / "netrc").write_text("nonsense")
    assert not _logged_in("https://wandb.test")


@pytest.mark.engine
def test_a_pod_with_gpus_does_not_train_without_them(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    preflight.refuse_missing_gpus(0)
    with pytest.raises(GpuMissingError, match=r"given 8 GPU\(s\), and torch .* finds none"):
        preflight.refuse_missing_gpus(8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    preflight.refuse_missing_gpus(8)
