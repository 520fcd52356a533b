"""Which files of a data set's repository a pattern means, and which split a file is of by its name.

As the hub documents it and the `datasets` library does it: globs in which `*` stays within a folder and `**`
does not, and words in the names of folders and files where nobody has said which files belong together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

TRAIN = "train"
_WORDS = {
    TRAIN: ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SEPARATOR = "[-._ 0-9]"
_SHARD = re.compile(r"data/(?P<split>[^/]+)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_SHARDS = "data/{}-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]*.*"
_OF_FOLDERS = ("**/{0}/**", "**/{0}{1}*/**", "**/*{1}{0}/**", "**/*{1}{0}{1}*/**")
_OF_FILES = ("**/{0}{1}*", "**/*{1}{0}{1}*")
_NOT_DATA = (
    "README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip",
    "dataset_dict.json",
)  # fmt: skip

Splits = Mapping[str, Sequence[str]]
"""The patterns of each split."""


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    """Return the files that a pattern means, in their order. Raises ValueError for what is no pattern.

    Hidden files, folders that begin with `__`, and files about the data are meant only if it names them.
    """
    from fsspec.utils import glob_translate  # type: ignore[import-untyped]

    if "://" in pattern or "::" in pattern or ".." in pattern.split("/"):
        raise ValueError("it leads out of the data set")
    pattern = pattern.removeprefix("./").lstrip("/")
    found = re.compile(glob_translate(pattern))
    asked = PurePosixPath(pattern)
    return [
        path
        for path in paths
        if found.match(path)
        and (PurePosixPath(path).name not in _NOT_DATA or PurePosixPath(path).name == asked.name)
        and _special(PurePosixPath(path)) == _special(asked)
    ]


def _special(path: PurePosixPath) -> tuple[int, int]:
    """Return how many parts are hidden, and how many folders begin with `__`."""
    hidden = sum(part.startswith(".") and set(part) != {"."} for part in path.parts)
    return hidden, sum(part.startswith("__") for part in path.parent.parts)


def default_splits(paths: Sequence[str]) -> Splits:
    """Return the splits of files that no card speaks of: by shards in `data/`, folders, files, or all train.

    Empty if there is no file.
    """
    shards = {shard["split"] for path in paths if (shard := _SHARD.fullmatch(path))}
    if shards:
        return {split: [_SHARDS.format(split)] for split in sorted(shards, key=_order)}
    for patterns in (_OF_FOLDERS, _OF_FILES):
        splits = {
            split: [pattern.format(word, _SEPARATOR) for word in words for pattern in patterns]
            for split, words in _WORDS.items()
        }
        found = {name: each for name, each in splits.items() if any(matching(one, paths) for one in each)}
        if found:
            return found
    return {TRAIN: ["**"]} if matching("**", paths) else {}


def _order(split: str) -> tuple[int, str]:
    known = list(_WORDS)
    return (known.index(split) if split in known else len(known)), split
