"""A folder of test sets: the files of each set, and the sets' labels.

A subfolder with a `label.json` is a set: all data files in it, except the articles' files. Files beside the
subfolders belong to no set. LawShift's own layout is read too: one `label.json` at the top that lists the
subfolders by name, and in each subfolder `original.json`, before the law was changed, and `poisoned.json`,
after: two sets. Does not depend on the content of records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from tunesmith.api.data_formats import LegalJudgementFormat
from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.store import Entry, ReadableStore
from tunesmith.data.formats.legal import LABELS
from tunesmith.errors import DataError

LABEL_KEY = "label.json"
BEFORE, AFTER = "original", "poisoned"
# Content of a set of this label if the law is unchanged: violations, terms of 3 to 10 years, or life.
_BEFORE_CHANGE = {"V": "V", "NV": "V", "TU": "original", "TD": "original", "XT": "original", "NX": "XT"}
_NO_SET = "it is in no set: its folder has no label.json"


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Files that are read as one set. `name` is "" if there are no sets.

    `label` is the direction of the set's changed law. `articles` and `changed` are the set's own files,
    used instead of those of the manifest; `before`: the law is not changed for this set.
    """

    name: str
    entries: tuple[Entry, ...]
    label: str | None = None
    articles: Entry | None = None
    changed: Entry | None = None
    before: bool = False


@dataclass(frozen=True, slots=True)
class FoundSets:
    """The sets in order of their names, and each file that belongs to none, with the reason."""

    sets: tuple[PromptSet, ...]
    left_out: tuple[str, ...] = ()


def find_sets(store: ReadableStore, entries: Sequence[Entry], spec: PromptsSpec) -> FoundSets:
    """Sort a location's files into sets. Raises DataError for a label that cannot be read."""
    folders = _labelled(store, entries, spec)
    if not folders:
        return FoundSets((PromptSet("", tuple(entries)),))
    files: dict[str, list[Entry]] = {folder: [] for folder in folders}
    beside = []
    for entry in entries:
        folder = next((str(p) for p in PurePosixPath(entry.key).parents if str(p) in files), None)
        if folder is not None:
            files[folder].append(entry)
        elif PurePosixPath(entry.key).name not in (LABEL_KEY, *_law_files(spec.legal_judgement)):
            beside.append(f"{entry.key}: {_NO_SET}")
    found = [
        each
        for folder in sorted(folders)
        for each in _pair(_set(_name(store, folder), files[folder], folders[folder], spec.legal_judgement))
    ]
    for each in found:
        if not each.entries:
            raise DataError(f"The set {each.name} in {store.uri} has no data file beside its {LABEL_KEY}.")
    return FoundSets(tuple(found), tuple(beside))


def _labelled(store: ReadableStore, entries: Sequence[Entry], spec: PromptsSpec) -> dict[str, str | None]:
    """Return the folders that are sets, each with its label; "." is the location itself."""
    if len(entries) == 1:
        return {}
    named = [entry.key for entry in entries if PurePosixPath(entry.key).name == LABEL_KEY]
    if spec.legal_judgement is None:
        return {str(PurePosixPath(key).parent): None for key in named}
    labels: dict[str, str | None] = {}
    for key in named:
        folder, value = str(PurePosixPath(key).parent), _read(store, key)
        listed = _listed(value, entries, folder)
        labels |= listed or {folder: _label(value, f"{store.uri}/{key}")}
    return labels


def _read(store: ReadableStore, key: str) -> Any:
    try:
        return json.loads(store.read(key).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise DataError(f"{store.uri}/{key} is not JSON.") from None


def _listed(value: Any, entries: Sequence[Entry], folder: str) -> dict[str, str | None]:
    """Return the labels of the subfolders in a list of `{name, label}`; empty if it has none of them."""
    if not isinstance(value, list):
        return {}
    below = {str(parent) for entry in entries for parent in PurePosixPath(entry.key).parents}
    rows = [row for row in value if isinstance(row, Mapping) and isinstance(row.get("name"), str)]
    places = {str(PurePosixPath(folder) / row["name"]): row for row in rows}
    return {
        place: _label(row, f"{LABEL_KEY}, {row['name']}") for place, row in places.items() if place in below
    }


def _label(value: Any, where: str) -> str | None:
    """Return the label in `"NV"`, `{"label": "NV"}` or a list of one of these; None if there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        value = value.get("label")
    if value is None:
        return None
    if not isinstance(value, str) or value.strip() not in LABELS:
        shown = json.dumps(value, ensure_ascii=False)[:40]
        raise DataError(f"{where}: the label is {shown}; valid are {', '.join(LABELS)}.")
    return value.strip()


def _name(store: ReadableStore, folder: str) -> str:
    return folder if folder != "." else store.uri.rsplit("/", 1)[-1]


def _law_files(legal: LegalJudgementFormat | None) -> list[str]:
    """Return the names of the articles' files, the old law's first."""
    uris = (legal.articles_uri, legal.changed_articles_uri) if legal is not None else ()
    return [uri.rstrip("/").rsplit("/", 1)[-1] for uri in uris if uri is not None]


def _set(
    name: str, entries: Sequence[Entry], label: str | None, legal: LegalJudgementFormat | None
) -> PromptSet:
    """Return one folder's set, with its own files of articles."""
    laws = _law_files(legal)
    own = {PurePosixPath(entry.key).name: entry for entry in entries}
    data = tuple(e for e in entries if PurePosixPath(e.key).name not in (LABEL_KEY, *laws))
    old, new = ([own.get(law) for law in laws] + [None, None])[:2]
    return PromptSet(name, data, label, old, new)


def _pair(found: PromptSet) -> list[PromptSet]:
    """Return LawShift's two sets in one folder, before and after the change; else the set itself."""
    halves = {PurePosixPath(entry.key).name.partition(".")[0]: entry for entry in found.entries}
    # A file of articles that the manifest does not name is not a set of cases.
    halves = {name: entry for name, entry in halves.items() if not name.startswith("articles")}
    if set(halves) != {BEFORE, AFTER}:
        return [found]
    before = _BEFORE_CHANGE.get(found.label or "", found.label)
    return [
        replace(found, name=f"{found.name}/{BEFORE}", entries=(halves[BEFORE],), label=before, before=True),
        replace(found, name=f"{found.name}/{AFTER}", entries=(halves[AFTER],)),
    ]
