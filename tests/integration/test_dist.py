"""What `make dist` makes: the same bytes for the same commit. `make dist-test` installs all of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from release import chart as charts
from release import dist, smoke
from release.contents import forget_place
from release.sums import SUMS, digest, write_sums
from release.version import PLACES, ROOT, current, pages, with_version
from tests.cases import each
from tests.integration.test_chart import environment

from tunesmith.names import Kind
from tunesmith.plan.administrator import read_values

DATE = 1_700_000_000
REGISTRY = "mirror.example:5000/tunesmith"
PINNED = f"b.example/a@sha256:{0:064}"


def copied_tree(folder: Path) -> Path:
    """Copy what the package is built from, with other dates and rights, as another clone has."""
    for name in ("src", "operator"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    dist.build_python(folder, DATE)
    charts.package(folder, DATE, REGISTRY)
    return folder


def test_another_clone_builds_the_same_bytes(built: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    dist.build_python(tmp_path / "again", DATE, copied_tree(tmp_path / "clone"))
    charts.package(tmp_path / "again", DATE, REGISTRY)
    first, second = (
        {path.name: digest(path) for path in folder.iterdir()} for folder in (built, tmp_path / "again")
    )
    assert len(first) == 3
    assert first == second


def test_the_source_archive_builds_the_same_wheel(built: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(DATE))
    smoke.check_source(smoke.the_file(built, "*.tar.gz"), smoke.the_file(built, "*.whl"), tmp_path)


def test_the_wheel_has_both_packages_and_nothing_else(built: Path, tmp_path: Path) -> None:
    wheel = smoke.the_file(built, "*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    info = f"tunesmith-{current()}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"tunesmith", "tunesmith_operator", info}
    assert f"{info}/licenses/LICENSE" in names
    assert {"tunesmith/py.typed", "tunesmith_operator/__main__.py"} <= set(names)
    said = subprocess.run(
        [shutil.which("python3") or "python3", "-c", "import tunesmith; print(tunesmith.__version__)"],
        cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == current()


def test_the_source_archive_holds_no_file_of_a_work_tree(built: Path) -> None:
    with tarfile.open(smoke.the_file(built, "*.tar.gz")) as archive:
        parts = {name.split("/")[1] for name in archive.getnames() if "/" in name}
        owners = {(member.uid, member.uname, member.mtime) for member in archive}
    expected = {"src", "operator", "CHANGELOG.md", "README.md", "LICENSE", "pyproject.toml", "PKG-INFO"}
    assert parts == {*expected, ".gitignore"}
    assert owners == {(0, "", DATE)}


def test_the_chart_brings_crds_and_its_images_from_where_they_were_published(built: Path) -> None:
    import helm_python

    archive = smoke.the_file(built, "*.tgz")
    smoke.check_chart(archive)
    with helm_python.Chart.load(archive) as chart:
        rendered = chart.render({}, name="demo", namespace="ops")
    manifests = [text for name, text in rendered.items() if name.endswith(".yaml")]
    objects = [one for text in manifests for one in yaml.safe_load_all(text) if one]
    assert len([one for one in objects if one["kind"] == "CustomResourceDefinition"]) == len(Kind)
    deployments = [one for one in objects if one["kind"] == "Deployment"]
    image = deployments[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"{REGISTRY}/tunesmith-operator:{current()}"
    runtimes = json.loads(environment({"Deployment": deployments})["TUNESMITH_RUNTIMES"])
    assert runtimes == {"default": f"{REGISTRY}/tunesmith-training:{current()}"}


def test_the_list_of_contents_names_nothing_of_the_machine(tmp_path: Path) -> None:
    package = tmp_path / "a-1.dist-info"
    package.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/a").write_text("#!/here/bin/python3\n")
    (package / "direct_url.json").write_text('{"url": "file:///here/a-1-py3-none-any.whl"}')
    stays = "a/bin/b.py,sha256=b,2\na-1.dist-info/RECORD,,\n"
    (package / "RECORD").write_text(
        f"../../bin/a,sha256=a,1\n{stays}a-1.dist-info/direct_url.json,sha256=c,3\n"
    )
    forget_place(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "a-1.dist-info/RECORD"
    ]
    assert (package / "RECORD").read_text() == stays


@each(
    ("image", "expected"),
    [("a:1", f"{REGISTRY}/a:1"), ("team/a:1", "team/a:1"), (PINNED, PINNED)],
)
def test_render_puts_the_registry_before_the_names_that_the_chart_does(image: str, expected: str) -> None:
    import helm_python

    values = {
        "registry": REGISTRY,
        "runtimes": {"default": image, "own": {"image": image, "limitCpu": False}},
    }
    assert {one.image for one in read_values(values).runtimes.values()} == {expected}
    with helm_python.Chart.load(charts.CHART) as chart:
        text = chart.render(values, name="demo")["tunesmith/templates/deployment.yaml"]
    runtimes = json.loads(environment({"Deployment": [yaml.safe_load(text)]})["TUNESMITH_RUNTIMES"])
    assert runtimes == {"default": expected, "own": {"image": expected, "limitCpu": False}}


@each("registry", ["https://mirror.example", "mirror.example/", "mirror.example/a:b", "Mirror.example"])
def test_an_address_that_is_no_registry_is_refused(registry: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no registry"):
        charts.package(tmp_path, DATE, registry)


def test_the_sums_are_as_sha256sum_reads_them(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("b")
    (tmp_path / "a").write_text("a")
    write_sums(tmp_path)
    write_sums(tmp_path)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "a: OK\nb: OK\n")


def test_the_version_is_the_same_everywhere() -> None:
    stale = [
        str(path) for path in pages() if with_version(text := path.read_text("utf-8"), current()) != text
    ]
    assert stale == [], "`make generate` writes it"
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert heading
    assert heading[1] == current(), "CHANGELOG.md begins with the version"


@each(
    ("text", "expected"),
    [
        ("tunesmith-training:0.1.0-cpu", "tunesmith-training:9.8.7-cpu"),
        ("a/tunesmith-operator:0.1.0`", "a/tunesmith-operator:9.8.7`"),
        ("tunesmith-0.1.0.tgz and tunesmith-0.1.0-py3", "tunesmith-9.8.7.tgz and tunesmith-9.8.7-py3"),
        ("oci://$R/charts/tunesmith --version 0.1.0 \\", "oci://$R/charts/tunesmith --version 9.8.7 \\"),
        ('version: 0.1.0\nappVersion: "0.1.0"\n', 'version: 9.8.7\nappVersion: "9.8.7"\n'),
        ("trainer:0.1.0, version 0.1.0, kueue --version 0.1.0", None),
    ],
)
def test_only_versions_of_ours_are_written(text: str, expected: str | None) -> None:
    assert with_version(text, "9.8.7") == (expected or text)
    assert bool(PLACES.search(text)) == (expected is not None)
