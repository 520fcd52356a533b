"""Read MovieLens as published, `ratings.csv` beside `movies.csv`, as records of user simulation.

Depends on the columns of the two files, not on how the records are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from tunesmith.artifacts.store import Entry
from tunesmith.data.files.encodings import UTF_8
from tunesmith.data.files.records import SkippedFile, read_records
from tunesmith.data.record import BadRecord, Opener, Record
from tunesmith.errors import DataError

RATINGS, MOVIES = "ratings.csv", "movies.csv"
TASK = "Rate each film from 0.5 to 5 stars."
_COLUMNS = ("userId", "movieId", "rating")
_OF_RATINGS, _OF_MOVIES = (*_COLUMNS, "timestamp"), ("movieId", "title", "genres")


def is_movielens(entries: Sequence[Entry]) -> bool:
    """Return whether a location has MovieLens' ratings."""
    return any(_name(entry) == RATINGS for entry in entries)


def read_movielens(
    store: Opener, entries: Sequence[Entry], encoding: str = UTF_8
) -> Iterator[Record | BadRecord]:
    """Yield one record per rating, in the nested shape. Raises DataError without a movies.csv beside it."""
    ratings = [entry for entry in entries if _name(entry) == RATINGS]
    movies = [entry for entry in entries if _name(entry) == MOVIES]
    if len(ratings) != 1 or len(movies) != 1:
        raise DataError(
            f"{RATINGS} needs {MOVIES} beside it: use the folder with both, as MovieLens is published."
        )
    titles: dict[str, str] = {}
    others: dict[str, dict[str, Any]] = {}
    for record in read_records(store, movies, encoding=encoding):
        if isinstance(record, BadRecord):
            yield record
        elif "movieId" not in record.value or not record.value.get("title"):
            yield BadRecord(record.place, "movieId or title is missing")
        else:
            titles[record.value["movieId"]] = _title(record.value)
            left = _left(record.value, MOVIES, _OF_MOVIES)
            if left:
                others[record.value["movieId"]] = left
    for record in read_records(store, ratings, encoding=encoding):
        yield record if isinstance(record, BadRecord) else _rating(record, titles, others)


def other_files(entries: Sequence[Entry]) -> list[SkippedFile]:
    """Return the other files beside the two, which are not read."""
    others = (entry.key for entry in entries if _name(entry) not in (RATINGS, MOVIES))
    return [SkippedFile(key, f"only {RATINGS} and {MOVIES} of MovieLens are read") for key in others]


def _name(entry: Entry) -> str:
    name = PurePosixPath(entry.key).name
    return name.removesuffix(".gz").removesuffix(".zst")


def _title(movie: Mapping[str, Any]) -> str:
    genres = str(movie.get("genres") or "").replace("|", ", ")
    return (
        f"{movie['title']} [{genres}]" if genres and genres != "(no genres listed)" else str(movie["title"])
    )


def _left(row: Mapping[str, Any], file: str, known: Sequence[str]) -> dict[str, Any]:
    """Return the columns that are not read, under names for the count of unread fields."""
    return {f"{file}: {name}": value for name, value in row.items() if name not in known and value}


def _rating(
    record: Record, titles: Mapping[str, str], others: Mapping[str, Mapping[str, Any]]
) -> Record | BadRecord:
    row = record.value
    missing = [name for name in _COLUMNS if not row.get(name)]
    if missing:
        return BadRecord(record.place, f"{missing[0]} is missing")
    title = titles.get(row["movieId"])
    if title is None:
        return BadRecord(record.place, f"movieId {row['movieId']} is not in {MOVIES}")
    item = {
        "context": [],
        "continuation": row["rating"],
        "continuation_prefix": f"{title}: ",
        "timestamp": row.get("timestamp"),
    }
    task = {"description": TASK, "task_behavior_collections": [{"type": "rating", "data": [item]}]}
    left = _left(row, RATINGS, _OF_RATINGS) | dict(others.get(row["movieId"], {}))
    return Record(record.place, {"user_hash": row["userId"], "task": task, **left})
