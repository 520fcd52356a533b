"""The workflows of .github: they run the same make targets as .ci/run, with pinned actions and few rights."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from release.changes import changes
from tests.cases import each

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in FILES}
JOBS = {(file, name): job for file, found in WORKFLOWS.items() for name, job in found["jobs"].items()}
STEPS = [(file, name, step) for (file, name), job in JOBS.items() for step in job.get("steps", [])]
MAKEFILE = (ROOT / "Makefile").read_text()
# A job that may do more than read names each right here, and why.
RIGHTS = {
    ("release.yml", "dist"): {"id-token", "attestations"},  # signs the check sums
    ("release.yml", "images"): {"packages", "id-token"},  # pushes and signs
    ("release.yml", "chart"): {"packages", "id-token"},
    ("release.yml", "package-index"): {"id-token"},  # trusted publishing: no password anywhere
    ("release.yml", "site"): {"pages", "id-token"},
    ("release.yml", "announce"): {"contents"},  # creates the release page
}


def targets(command):
    """The targets of each call of make in a step."""
    for words in re.findall(r"\bmake ([^&|\n]*)", command):
        plain = re.sub(r'"[^"]*"', "", words)
        yield from (word for word in plain.split() if re.fullmatch(r"[a-z][a-z-]*", word))


def test_every_target_that_a_workflow_makes_is_in_the_makefile():
    made = {target for _, _, step in STEPS for target in targets(step.get("run", ""))}
    known = {"test", "coverage", "dist", "dist-test", "images", "publish", "docs", "lint-workflows"}
    assert known == made
    assert {target for target in made if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)} == set()
    assert list(targets((ROOT / ".ci/run").read_text())) == ["test"]


def test_the_tests_run_on_every_python_that_the_package_is_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert WORKFLOWS["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"] == said
    assert project["requires-python"] == f">={said[0]},<3.{int(said[-1][2:]) + 1}"


def test_actions_are_pinned_by_commit_with_the_version_beside():
    lines = [line.strip() for path in FILES for line in path.read_text().splitlines() if "uses:" in line]
    pinned = re.compile(r"(- )?uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in lines if not pinned.fullmatch(line) and "uses: ./" not in line] == []
    commits = {}
    for line in lines:
        if "@" in line:
            action, _, commit = line.removeprefix("- ").removeprefix("uses: ").partition("@")
            commits.setdefault(action, set()).add(commit)
    assert {action: found for action, found in commits.items() if len(found) > 1} == {}


def test_no_job_has_a_right_that_is_not_said():
    assert [found["permissions"] for found in WORKFLOWS.values()] == [{}] * len(WORKFLOWS)
    wrote = {
        job: {right for right, how in given.get("permissions", {}).items() if how == "write"}
        for job, given in JOBS.items()
    }
    assert {job: rights for job, rights in wrote.items() if rights} == RIGHTS


def test_no_address_of_a_registry_or_owner_is_written_down():
    found = re.compile(r"https?://|\b[a-z0-9-]+\.(io|com|org|dev)\b(?!/)|\b[a-z0-9-]+\.(io|com|org|dev)/")
    assert {path.name: m[0] for path in FILES if (m := found.search(path.read_text()))} == {}
    named = {name for path in FILES for name in re.findall(r"vars\.(\w+)", path.read_text())}
    page = (ROOT / "docs/releasing.md").read_text("utf-8")
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_what_is_published_was_tested_before():
    def before(name):
        needs = JOBS["release.yml", name].get("needs", [])
        return set(needs) | {earlier for one in needs for earlier in before(one)}

    for name in ("images", "chart", "package-index", "site", "announce"):
        assert {"test", "dist"} <= before(name), name


def test_zizmor_finds_nothing():
    beside = Path(sys.executable).with_name("zizmor")
    zizmor = str(beside) if beside.exists() else shutil.which("zizmor")
    if zizmor is None:
        pytest.skip("zizmor is not installed: pip install zizmor")
    words = [zizmor, "--offline", "--quiet", "--min-severity", "medium", str(ROOT / ".github")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


LOG = "# Changelog\n\n## 0.2.0\n\n- New.\n\n### More\n\n- x\n\n## 0.1.0 (2026)\n\n- Old.\n"


@each(("version", "text"), [("0.2.0", "- New.\n\n### More\n\n- x\n"), ("0.1.0", "- Old.\n")])
def test_the_release_page_has_the_changes_of_its_version(version, text):
    assert changes(LOG, version) == text


def test_a_version_without_changes_is_not_announced():
    with pytest.raises(ValueError, match=r"no heading '## 0\.3\.0'"):
        changes(LOG, "0.3.0")
