"""Which of a data set's files are read: its configurations and splits, as card and file names say. Pure.

Errors are DataError and name what there is to choose from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape, has_magic
from pathlib import PurePosixPath
from typing import Any

from tunesmith.artifacts.hub.patterns import TRAIN, Splits, default_splits, matching
from tunesmith.errors import DataError

CARD = "README.md"
PARQUET_BRANCH = "refs/convert/parquet"
_DEFAULT = "default"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
# What a configuration may say besides its files: nothing that changes how they are read.
_KNOWN = ("config_name", "data_files", "data_dir", "default", "description", "version", "features")
_COMMIT = re.compile("[0-9a-f]{40}")
_CONVERTED = re.compile(r"([^/]+)/([^/]+)/\d{4,}\.parquet")
# The container by a file's ending; of two that are equally frequent, the earlier one is meant.
_CONTAINERS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
}
_PACKED = (".gz", ".zst")
_SHOWN = 20
_PART = " A part of a split is chosen by limit or subset, several splits by a dataset each."


@dataclass(frozen=True, slots=True)
class FilesChoice:
    """What a manifest says about which files it means."""

    config: str | None = None
    split: str | None = None
    data_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration of a data set: the patterns of each split, relative to a folder ("" is the root)."""

    name: str
    splits: Splits
    folder: str = ""
    default: bool = False


@dataclass(frozen=True, slots=True)
class Repository:
    """A data set's repository at one commit: its address, its files, and what its card says ("" if none).

    `revision` is the branch, tag or commit as the manifest has it.
    """

    uri: str
    paths: Sequence[str]
    card: str = ""
    revision: str = ""


def chosen_files(repository: Repository, choice: FilesChoice) -> list[str]:
    """Return the paths of the files that are meant. Raises DataError."""
    if choice.data_files:
        named = {path for pattern in choice.data_files for path in _meant(repository, pattern, "dataFiles")}
        return sorted(named)
    found = configurations(repository)
    configuration = _chosen_configuration(repository.uri, found, choice.config)
    split = _chosen_split(repository.uri, configuration, choice)
    return _of_one_container(repository, configuration, split)


def configurations(repository: Repository) -> list[Configuration]:
    """Return every configuration, as the card names them or as the files' names tell. Raises DataError."""
    of_card = _card_configurations(repository)
    if of_card:
        return of_card
    _refuse_script(repository)
    return _converted(repository) or [Configuration(_DEFAULT, default_splits(repository.paths))]


def _card_configurations(repository: Repository) -> list[Configuration]:
    listed = _front_matter(repository).get("configs")
    if not listed:
        return []
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise _card_problem(repository, "configs is not a list of configurations")
    return [_configuration(repository, each) for each in listed]


def _front_matter(repository: Repository) -> Mapping[str, Any]:
    import yaml

    found = _FRONT_MATTER.match(repository.card.removeprefix("\ufeff"))
    try:
        values = yaml.safe_load(found[1]) if found else {}
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _card_problem(repository, "its front matter is not YAML") from None
    return values if isinstance(values, Mapping) else {}


def _configuration(repository: Repository, given: Mapping[str, Any]) -> Configuration:
    name, folder = _name(repository, given.get("config_name", _DEFAULT)), given.get("data_dir") or ""
    if not isinstance(folder, str):
        raise _card_problem(repository, f"data_dir of the configuration {name} is not a text")
    others = [str(key) for key in given if key not in _KNOWN]
    if others:
        raise _card_problem(
            repository,
            f"the configuration {name} sets {', '.join(others)}, which is not followed; if the files can be "
            "read without it, name them in dataFiles",
        )
    folder = folder.removeprefix("./").strip("/")
    splits = _card_splits(repository, name, given.get("data_files"))
    if splits is None:
        splits = default_splits(_inside(repository.paths, folder))
    return Configuration(name, splits, folder, default=given.get("default") is True)


def _card_splits(repository: Repository, name: str, given: object) -> Splits | None:
    """Return the splits of `data_files`, in any of its forms; None if it is absent."""
    match given:
        case None:
            return None
        case str():
            return {TRAIN: [given]}
        case list() if given and all(isinstance(each, str) for each in given):
            return {TRAIN: given}
        case list() if given and all(isinstance(each, Mapping) for each in given):
            splits = {_name(repository, each.get("split")): _texts(each.get("path")) for each in given}
            if all(splits.values()) and len(splits) == len(given):
                return splits
    raise _card_problem(
        repository, f"data_files of the configuration {name} is neither paths nor a list of split and path"
    )


def _name(repository: Repository, given: object) -> str:
    """A name that a card gives; YAML may read it as a number. Nothing larger is ever written out."""
    if isinstance(given, str | int | float):
        return str(given)
    raise _card_problem(repository, "a configuration or split has a name that is not text")


def _texts(given: object) -> list[str]:
    listed: list[Any] = given if isinstance(given, list) else [given]
    return listed if all(isinstance(each, str) for each in listed) else []


def _refuse_script(repository: Repository) -> None:
    """Raise DataError for a data set that only a program of its own can load."""
    script = f"{repository.uri.partition('@')[0].rsplit('/', 1)[-1]}.py"
    if script in repository.paths:
        converted = f"{repository.uri.partition('@')[0]}@{PARQUET_BRANCH}"
        raise DataError(
            f"{repository.uri} is loaded by a program of its own, {script}, and code of a data set is never "
            f"run. The hub has most such sets as Parquet too: write {converted}; or name files in dataFiles."
        )


def _converted(repository: Repository) -> list[Configuration]:
    """Return the configurations of the branch that the hub converts to: folders, and splits in them.

    Of a large split the hub converts the beginning, and says so in the name: nobody shall take it for all.
    """
    data = [path for path in repository.paths if not path.startswith(".") and path != CARD]
    found = [_CONVERTED.fullmatch(path) for path in data]
    by_commit = _COMMIT.fullmatch(repository.revision)  # which may be one of that branch
    if not (repository.revision == PARQUET_BRANCH or by_commit) or not all(found):
        return []
    splits: dict[str, dict[str, list[str]]] = {}
    for each in found:
        assert each is not None
        splits.setdefault(each[1], {}).setdefault(each[2], []).append(escape(each[0]))
    return [Configuration(name, of) for name, of in splits.items()]


def _chosen_configuration(uri: str, found: Sequence[Configuration], name: str | None) -> Configuration:
    names = [each.name for each in found]
    if name is not None:
        for each in found:
            if each.name == name:
                return each
        raise DataError(
            f"{uri} has no configuration {name}; it has {_listed(names)}. Set config to one of them."
        )
    defaults = [each for each in found if len(found) == 1 or each.default or each.name == _DEFAULT]
    if len(defaults) == 1:
        return defaults[0]
    raise DataError(f"{uri} has several configurations: {_listed(names)}. Set config to one of them.")


def _chosen_split(uri: str, configuration: Configuration, choice: FilesChoice) -> str:
    splits = list(configuration.splits)
    where = uri if configuration.name == _DEFAULT else f"{uri}, configuration {configuration.name},"
    if not splits:
        raise DataError(f"{where} has no data files. Name them in dataFiles.")
    if choice.split is not None and choice.split not in splits:
        part = _PART if any(sign in choice.split for sign in "[+") else ""
        raise DataError(
            f"{where} has no split {choice.split}; it has {_listed(splits)}. Set split to one of them.{part}"
        )
    if choice.split is None and len(splits) > 1:
        raise DataError(f"{where} has several splits: {_listed(splits)}. Set split to one of them.")
    return choice.split or splits[0]


def _of_one_container(repository: Repository, configuration: Configuration, split: str) -> list[str]:
    """Return the files of a split. Of several containers the most frequent is meant, as on the hub."""
    what = f"the split {split}"
    found: dict[str, None] = {}
    for pattern in configuration.splits[split]:
        found |= dict.fromkeys(
            _meant(repository, pattern, what, configuration.folder, may_lack=has_magic(pattern))
        )
    if not found:
        raise _nothing(repository, " ".join(configuration.splits[split]), what)
    containers = Counter(_container(path) for path in found)
    del containers[""]
    if not containers:
        shown = ", ".join(list(found)[:3])
        raise DataError(
            f"{repository.uri}: {what} has no file that can be read (Parquet, Arrow, JSON, CSV, TSV or "
            f"text), only {shown}."
        )
    order = list(dict.fromkeys(_CONTAINERS.values()))
    best = max(containers, key=lambda each: (containers[each], -order.index(each)))
    return sorted(path for path in found if _container(path) == best)


def _container(path: str) -> str:
    """Return the container by the name; "" for one that is not read."""
    lower = PurePosixPath(path.lower())
    ending = PurePosixPath(lower.stem).suffix if lower.suffix in _PACKED else lower.suffix
    return _CONTAINERS.get(ending, "")


def _meant(
    repository: Repository, pattern: str, what: str, folder: str = "", *, may_lack: bool = False
) -> list[str]:
    """Return the files that a pattern means. Raises DataError if there are none."""
    try:
        found = matching(pattern, _inside(repository.paths, folder))
    except ValueError as error:
        raise DataError(f"{repository.uri}: {what} has the pattern {pattern}: {error}.") from None
    if not found and not may_lack:
        raise _nothing(repository, pattern, what)
    return [f"{folder}/{path}" if folder else path for path in found]


def _nothing(repository: Repository, pattern: str, what: str) -> DataError:
    some = _listed(repository.paths) or "no file"
    return DataError(f"{repository.uri} has no file {pattern}, which {what} names; it has {some}.")


def _inside(paths: Iterable[str], folder: str) -> list[str]:
    if not folder:
        return list(paths)
    return [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]


def _card_problem(repository: Repository, what: str) -> DataError:
    return DataError(f"The card of {repository.uri} ({CARD}) cannot be followed: {what}.")


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])
