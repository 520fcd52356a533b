"""What a FineTuneJob needs before it starts: the model's files and the prepared samples, once a node.

The first rank of each node fetches and prepares while the others wait for a file, before any process group
exists, so that no collective waits for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.api.common import StorageSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.cache import prepare_once
from tunesmith.data.prepare import FIRST_SAMPLES
from tunesmith.data.prepared import Prepared
from tunesmith.data.table import Table
from tunesmith.engines.load import fetch_model, is_adapter, vocabulary_size
from tunesmith.errors import PermanentError
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.secrets import secret
from tunesmith.jobs.world import World
from tunesmith.names import Reason
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Model folder, tokenizer and tables; `prepared` has the whole report on each node's first rank."""

    model: Path
    tokenizer: ChatTokenizer
    samples: Path
    prepared: Prepared


def storage_options(storage: StorageSpec) -> StorageOptions:
    """How the manifest reaches S3; what it leaves open comes from the environment."""
    return StorageOptions(storage.endpoint_url, storage.region, storage.checksums)


def hub_token(spec: FineTuneSpec) -> str | None:
    """The hub's token from the Secret the manifest names, else what the hub's own variable holds."""
    return secret(spec.hub.token_secret_ref) or os.environ.get("HF_TOKEN")


def gather_inputs(spec: FineTuneSpec, world: World, progress: Progress, day: date) -> Inputs:
    """Fetch and prepare, or wait for the rank that does. `day` is for templates that print the date."""
    folder = world.node_folder
    ready = folder / "ready.json"
    if world.local_rank == 0:
        _clean(world)
        folder.mkdir(parents=True, exist_ok=True)
        inputs = _make(spec, folder, world.cache, progress, day)
        temp = ready.with_suffix(".tmp")
        told = {"model": str(inputs.model), "samples": str(inputs.samples)}
        temp.write_text(json.dumps(told), "utf-8")
        temp.rename(ready)
        return inputs
    while not ready.exists():
        time.sleep(0.1)  # torchrun ends this process if the first rank fails
    told = json.loads(ready.read_text("utf-8"))
    model, samples = Path(told["model"]), Path(told["samples"])
    held_out = Table(samples / "validation") if spec.validation.active else None
    tokenizer = ChatTokenizer.load(model, trust_remote_code=spec.model.trust_remote_code, today=day)
    return Inputs(model, tokenizer, samples, Prepared(Table(samples / "train"), held_out))


def _clean(world: World) -> None:
    """Remove what earlier starts left in the scratch folder."""
    if world.scratch.is_dir():
        for old in world.scratch.glob("launch-*"):
            shutil.rmtree(old, ignore_errors=True)


def _make(spec: FineTuneSpec, folder: Path, cache: Path, progress: Progress, day: date) -> Inputs:
    options = storage_options(spec.storage)
    progress.update(phase="fetching the model")
    model = fetch_model(spec.model, spec.hub, options, folder / "model", hub_token(spec))
    if is_adapter(model):
        raise PermanentError(
            f"model.uri {spec.model.uri} is a LoRA adapter; this version starts from whole models only.",
            reason=Reason.NOT_IMPLEMENTED,
        )
    tokenizer = ChatTokenizer.load(model, trust_remote_code=spec.model.trust_remote_code, today=day)
    progress.update(phase="preparing the data")

    def tell(name: str, records: int) -> None:
        progress.update(records=records)

    samples, prepared = prepare_once(
        cache, spec, tokenizer, options, tell, first=FIRST_SAMPLES, vocab_size=vocabulary_size(model)
    )
    for report in prepared.reports:
        log.info("%s: %s", report.name, "; ".join(report.sentences()))
    progress.update(phase="loading the model", records=None)
    return Inputs(model, tokenizer, samples, prepared)


def data_digest(prepared: Prepared) -> str:
    """SHA-256 over everything training reads: token ids, weights, groups, copies."""
    digest = hashlib.sha256()
    for table in (prepared.train, prepared.validation):
        if table is not None:
            for column in table.columns():
                digest.update(np.ascontiguousarray(column).view(np.uint8).data)
                digest.update(b"|")
    return digest.hexdigest()


def model_digest(folder: Path) -> str:
    """SHA-256 over names and sizes of a model's files, and the content of the small ones."""
    facts: list[Any] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        size = path.stat().st_size
        content = hashlib.sha256(path.read_bytes()).hexdigest() if size < 1 << 20 else ""
        facts.append([path.relative_to(folder).as_posix(), size, content])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
