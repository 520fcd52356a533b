"""The articles of law that prompts quote, of the manifest or of one test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import Entry, ReadableStore, StorageOptions
from tunesmith.data.files.encodings import UTF_8
from tunesmith.data.files.records import BadRecord, RecordProblem, read_records
from tunesmith.data.formats.legal import Laws
from tunesmith.data.prompts.formats import articles_of
from tunesmith.data.prompts.sets import PromptSet
from tunesmith.errors import DataError


def read_articles(uri: str, options: StorageOptions, encoding: str = UTF_8) -> dict[str, str]:
    """Return the articles' texts by id. Raises DataError, whose message names the file."""
    store, entries = find_files(uri, options)
    return _articles(store, entries, uri, encoding)


def read_laws(
    articles_uri: str | None, changed_uri: str | None, options: StorageOptions, encoding: str = UTF_8
) -> Laws | None:
    """The articles of both files, None without the first. Raises DataError, whose message names the file."""
    if articles_uri is None:
        return None
    changed = None if changed_uri is None else read_articles(changed_uri, options, encoding)
    return Laws(read_articles(articles_uri, options, encoding), changed)


def _articles(store: ReadableStore, entries: Sequence[Entry], uri: str, encoding: str) -> dict[str, str]:
    values: list[Mapping[str, Any]] = []
    for record in read_records(store, entries, encoding=encoding):
        if isinstance(record, BadRecord):
            raise DataError(f"The articles in {uri} cannot be used: {record}.")
        values.append(record.value)
    try:
        return articles_of(values)
    except RecordProblem as problem:
        raise DataError(f"The articles in {uri} cannot be used: {problem.message}.") from None


class LawsOfSets:
    """The articles of each set: its own files, else those that the manifest names, read once when needed."""

    def __init__(self, spec: PromptsSpec, options: StorageOptions) -> None:
        self._legal, self._encoding = spec.legal_judgement, spec.encoding
        self._read = cache(partial(read_articles, options=options, encoding=spec.encoding))

    def of(self, each: PromptSet, store: ReadableStore) -> tuple[dict[str, str], dict[str, str] | None]:
        """Return the old law and the new one, None if only one is to be shown. Raises DataError."""
        if self._legal is None:
            return {}, None
        old = self._texts(each.articles, store, self._legal.articles_uri)
        uri = self._legal.changed_articles_uri
        return old, None if uri is None or each.before else self._texts(each.changed, store, uri)

    def _texts(self, own: Entry | None, store: ReadableStore, uri: str) -> dict[str, str]:
        if own is None:
            return self._read(uri)
        return _articles(store, [own], f"{store.uri}/{own.key}", self._encoding)
