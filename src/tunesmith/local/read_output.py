"""Read what outputs of jobs hold, finished or not, to compare them. Does not depend on how they differ."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import read_manifest
from tunesmith.artifacts.store import StorageOptions, Store
from tunesmith.data.files.json_list import read_json_list
from tunesmith.data.record import Record
from tunesmith.errors import UsageError
from tunesmith.names import (
    BEFORE_KEY,
    CHECKPOINT_PREFIX,
    EVALUATION,
    FINGERPRINT_KEY,
    METRICS_KEY,
    REJECTED_KEY,
    RESULT_KEY,
    SAMPLED_DATA_KEY,
    SAMPLING_STATS_KEY,
    STATS_KEY,
    VALIDATION_LOSSES_KEY,
    Kind,
)
from tunesmith.plan.models import TUNED, model_key
from tunesmith.report.comparison import ComparedOutput

_CHUNK = 1 << 20
_RESULTS = {
    Kind.FINE_TUNE: RESULT_KEY,
    Kind.REJECTION_SAMPLE: SAMPLING_STATS_KEY,
    Kind.DIALOGUE_GEN: STATS_KEY,
}


def is_output(uri: str, options: StorageOptions) -> bool:
    """Return whether a job has begun to write there."""
    return open_store(uri, options).exists(FINGERPRINT_KEY)


def read_output(uri: str, name: str, options: StorageOptions) -> ComparedOutput:
    """Read one output. Raises UsageError if there is none, and what its store does."""
    store = open_store(uri, options)
    if not store.exists(FINGERPRINT_KEY):
        raise UsageError(
            f"There is no output of a job at {uri} ({FINGERPRINT_KEY} is missing): "
            "name what output.uri of its manifest names."
        )
    fingerprint = _object(store, FINGERPRINT_KEY)
    kind = kind_of(fingerprint.get("spec") or {})
    finished = read_manifest(store, "") is not None
    result = _object(store, _RESULTS[kind]) if finished else {}
    return ComparedOutput(
        (result.get("job") or {}).get("name") or name,
        uri,
        kind,
        finished,
        fingerprint,
        result,
        _rows(store) if kind == Kind.FINE_TUNE else (),
        _object(store, BEFORE_KEY) if kind == Kind.FINE_TUNE and not finished else {},
        _scores(store, kind, result) if finished else {},
        _validation(store, finished) if kind == Kind.FINE_TUNE else {},
    )


def kind_of(spec: Mapping[str, Any]) -> Kind:
    """Return the kind of job that has these settings: each has a field that no other has."""
    if "roles" in spec:
        return Kind.DIALOGUE_GEN
    return Kind.REJECTION_SAMPLE if "prompts" in spec else Kind.FINE_TUNE


def _object(store: Store, key: str) -> dict[str, Any]:
    """Return a JSON object of an output, an empty one if it does not exist."""
    if not store.exists(key):
        return {}
    try:
        found = json.loads(store.read(key))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{store.uri}/{key} is not a JSON object: Tunesmith has not written it.")
    return found


def _rows(store: Store) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; of an unfinished output those beside its newest checkpoint."""
    key = METRICS_KEY
    if not store.exists(key):
        key = _beside_checkpoint(store, key)
    if not key:
        return []
    return [json.loads(line) for line in store.read(key).splitlines() if line.strip()]


def _validation(store: Store, finished: bool) -> dict[str, Any]:
    """Return the losses by record of the last validation; of an unfinished output as `_rows`."""
    key = VALIDATION_LOSSES_KEY if finished else _beside_checkpoint(store, VALIDATION_LOSSES_KEY)
    return _object(store, key) if key else {}


def _beside_checkpoint(store: Store, name: str) -> str:
    """Return the key of a file beside the newest checkpoint that has it, "" if none has."""
    steps = [
        int(step)
        for entry in store.list(CHECKPOINT_PREFIX)
        if entry.key.endswith(f"/{name}")
        and (step := entry.key.partition("/")[0].removeprefix(CHECKPOINT_PREFIX)).isdecimal()
    ]
    return f"{CHECKPOINT_PREFIX}{max(steps)}/{name}" if steps else ""


def _scores(store: Store, kind: Kind, result: Mapping[str, Any]) -> dict[str, dict[str, tuple[int, int]]]:
    if kind == Kind.REJECTION_SAMPLE:
        return {"": _of_rows(store, "")}
    found = {}
    for number, each in enumerate(result.get("evaluation") or [] if kind == Kind.FINE_TUNE else []):
        names = [model["name"] for model in each["models"]]
        subject = TUNED if TUNED in names else each["compared"]["subject"]
        found[each["name"]] = _of_rows(store, f"{EVALUATION}/{number}/{model_key(subject)}/")
    return found


def _of_rows(store: Store, prefix: str) -> dict[str, tuple[int, int]]:
    """Return accepted and judged replies by prompt, out of both files of a sampling."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name in _ids(store, f"{prefix}{SAMPLED_DATA_KEY}"):
        counts[name][0] += 1
        counts[name][1] += 1
    for name in _ids(store, f"{prefix}{REJECTED_KEY}"):
        counts[name][1] += 1
    return {name: (hits, trials) for name, (hits, trials) in counts.items()}


def _ids(store: Store, key: str) -> Iterator[str]:
    """Yield the prompt's id of each record, in a JSON list or in lines; nothing is kept in memory."""
    if not store.exists(key):
        return
    with store.open(key) as file:
        if key.endswith(".jsonl"):
            yield from (str(json.loads(line)["id"]) for line in file)
            return
        chunks = iter(lambda: file.read(_CHUNK), b"")
        for record in read_json_list(key, chunks):
            if isinstance(record, Record):
                yield str(record.value["id"])
