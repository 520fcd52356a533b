"""The site of README and docs/: it builds, no link or anchor leads nowhere, and it needs no other host."""

import logging
import re
import shutil
from pathlib import Path

import pytest
from docs import mkdocs_hooks as hooks
from docs.mkdocs_hooks import in_repository, linked, links, listing, site_path, target
from tests.cases import each

ROOT = Path(__file__).resolve().parents[2]
# What a browser loads by itself, unlike a link.
LOADED = re.compile(
    r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]*)"|url\((//[^)]*)\)'
)


def build(folder, root=ROOT):
    """Build the site of a repository strictly; return what was complained about."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    complaints = []
    handler = logging.Handler()
    handler.emit = lambda record: complaints.append(record.getMessage())
    handler.setLevel(logging.WARNING)
    logging.getLogger("mkdocs").addHandler(handler)
    try:
        build(load_config(str(root / "mkdocs.yml"), site_dir=str(folder), strict=True))
    except Abort:
        assert complaints
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    return complaints


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    assert build(folder) == []
    return folder


def test_every_page_is_on_the_site(site):
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    found = [
        (site / page.parent / page.name.replace("README", "index")).with_suffix(".html") for page in pages
    ]
    assert [str(page) for page in found if not page.is_file()] == []
    assert "<h1" in (site / "index.html").read_text("utf-8")


def test_it_loads_nothing_from_other_hosts(site):
    texts = {path: path.read_text("utf-8") for path in site.rglob("*") if path.suffix in (".html", ".css")}
    assert len(texts) > 30
    assert {(path.name, *found) for path, text in texts.items() for found in LOADED.findall(text)} == set()


@pytest.fixture
def copy(tmp_path):
    """A repository with what the site is made of."""
    shutil.copytree(ROOT / "docs", tmp_path / "copy/docs")
    for path in ["mkdocs.yml", *linked(list(hooks.PLACES))]:
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_file():
            shutil.copy(ROOT / path, tmp_path / "copy" / path)
    return tmp_path / "copy"


def test_a_link_an_anchor_and_a_page_that_nobody_finds_are_errors(copy, tmp_path):
    with (copy / "docs/labels.md").open("a") as page:
        page.write("[a](../examples/gone.yaml) [b](data.md#gone) [c](gone.md) [d](#gone-too)\n")
    (copy / "docs/lonely.md").write_text("# Lonely\n")
    found = "\n".join(build(tmp_path / "site", copy))
    for words in ("examples/gone.yaml", "data.md#gone", "'gone.md'", "#gone-too", "lonely.md"):
        assert words in found, found


PLACES = {
    "README.md": "index.md",
    "docs/data.md": "data.md",
    "docs/adr/README.md": "adr/README.md",
    "SECURITY.md": "project/security.md",
    "examples/legal/README.md": "examples/legal/README.md",
    "charts/tunesmith/values.yaml": "charts/tunesmith/values.yaml",
}


@each(("path", "place"), PLACES.items(), ids=PLACES)
def test_each_file_has_its_place_and_is_found_from_there(path, place):
    assert site_path(path) == place
    assert in_repository(place) == path


def test_a_folder_is_its_readme_or_a_list():
    assert site_path("examples/legal") == "examples/legal/README.md"
    assert site_path("examples") == "examples/index.md"
    assert in_repository("examples/index.md") == "examples/"
    assert "- [legal/](legal/)\n" in listing(ROOT / "examples")
    assert target("examples/", "legal/") == "examples/legal"


def test_every_decision_is_in_the_list_of_them():
    folder = ROOT / "docs/adr"
    listed = {link[0] for link in links((folder / "README.md").read_text("utf-8"))}
    assert {path.name for path in folder.glob("0*.md")} <= listed


def test_links_in_code_and_to_other_hosts_are_none_of_ours():
    text = "[a](b.md) `[c](d.md)` [e](https://f.g) [h](#i) [j](k.md#l)\n```\n[m](n.md)\n```\n![o](p.png)\n"
    assert [link[0] for link in links(text)] == ["b.md", "k.md", "p.png"]


def test_what_a_linked_page_links_to_comes_too_and_nothing_from_outside(monkeypatch, tmp_path):
    monkeypatch.setattr("docs.mkdocs_hooks.ROOT", tmp_path / "here")
    (tmp_path / "here/folder").mkdir(parents=True)
    (tmp_path / "outside.md").touch()
    (tmp_path / "here/a.md").write_text("[b](b.md) [c](../outside.md) [d](gone.md)")
    (tmp_path / "here/b.md").write_text("[e](folder)")
    (tmp_path / "here/folder/f.yaml").touch()
    assert linked(["a.md"]) == {"a.md", "b.md", "folder", "folder/f.yaml"}
