"""Hooks of mkdocs: links that lead out of docs/ lead to copies on the site, so that it is whole by itself.

The README is the site's first page. A file of the repository that any page links to is copied under its own
path; a folder is its README, or a list of what it holds.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Pages that are not in docs/, and their place on the site.
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "DEVELOPMENT.md": "project/development.md",
    "SECURITY.md": "project/security.md",
}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)")
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links(text: str) -> list[re.Match[str]]:
    """Return the links of a page to other files, without those in code."""
    hidden = _CODE.sub(lambda code: " " * len(code[0]), text)
    return list(_LINK.finditer(hidden))


def target(page: str, link: str) -> str:
    """Return the path in the repository that a link of a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def site_path(path: str) -> str:
    """Return where a file or folder of the repository is on the site."""
    path = with_readme(path)
    return PLACES.get(path) or (f"{path}/index.md" if is_folder(path) else path).removeprefix("docs/")


def in_repository(path: str) -> str:
    """Return the file, or the folder with a slash, whose page is at a path of the site."""
    if path in PLACES.values():
        return next(source for source, place in PLACES.items() if place == path)
    folder = path.removesuffix("index.md")
    if folder != path and is_folder(folder):
        return folder
    return path if (ROOT / path).exists() else f"docs/{path}"


def is_folder(path: str) -> bool:
    """Return whether a path of the repository is that of a folder."""
    return (ROOT / path).is_dir()


def text_of(path: str) -> str:
    """Return the text of a page or, of a folder, the page with what it holds; "" for any other file."""
    where = ROOT / path
    if is_folder(path):
        return listing(where)
    return where.read_text("utf-8") if where.suffix == ".md" else ""


def with_readme(path: str) -> str:
    """Return a folder's README instead of the folder, if it has one."""
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def linked(pages: list[str]) -> set[str]:
    """Return pages, the files and folders that they lead to, and those that these lead to."""
    waiting, seen = list(pages), set(pages)
    while waiting:
        page = waiting.pop()
        base = f"{page}/" if is_folder(page) else page
        found = {with_readme(target(base, link[0])) for link in links(text_of(page))}
        new = {path for path in found - seen if path[:2] != ".." and (ROOT / path).exists()}
        waiting += new
        seen |= new
    return seen


def listing(folder: Path) -> str:
    """Return a page with what a folder holds."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name[0] not in "._")
    return f"# {folder.name}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the copies."""
    pages = [f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")]
    for path in sorted(linked([*PLACES, *pages])):
        where = ROOT / path
        if is_folder(path):
            files.append(File.generated(config, site_path(path), content=listing(where)))
        elif not path.startswith("docs/"):
            files.append(File.generated(config, site_path(path), abs_src_path=str(where)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn the links of a page as it is in the repository into those of the site."""
    source = page.file.src_uri
    path, parts, end = in_repository(source), [], 0
    for link in links(markdown):
        place = site_path(target(path, link[0]))
        parts += [markdown[end : link.start()], posixpath.relpath(place, posixpath.dirname(source) or ".")]
        end = link.end()
    return "".join([*parts, markdown[end:]])
