"""Inputs of a FineTuneJob: the model's files and the prepared samples, once per node.

The first rank of each node fetches and prepares while the others wait for a file, before any process group
exists, so that no collective waits for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.cache import prepare_once
from tunesmith.data.lengths import longest_sample
from tunesmith.data.prepare import FIRST_SAMPLES
from tunesmith.data.prepared import Prepared
from tunesmith.data.prompts.load import Prompts
from tunesmith.data.table import Table
from tunesmith.engines.files import ModelFiles, dump_model_files, fetch_files, load_model_files
from tunesmith.engines.load import vocabulary_size
from tunesmith.engines.positions import max_positions
from tunesmith.errors import CorruptObjectError
from tunesmith.jobs.models import EvaluatedModel, compared_models, prepare_evaluations
from tunesmith.jobs.output_lock import ExistingOutput
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.reading import reading_options
from tunesmith.jobs.secrets import hub_token
from tunesmith.jobs.world import World
from tunesmith.names import EVALUATION
from tunesmith.plan.models import BASE
from tunesmith.plan.run import Run
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Model files, tokenizer and tables; `prepared` has the whole report on each node's first rank."""

    files: ModelFiles
    tokenizer: ChatTokenizer
    samples: Path
    prepared: Prepared
    evaluations: Sequence[Prompts] = ()
    """The prompts of each evaluation, on rank 0."""
    compared: Sequence[EvaluatedModel] = ()
    """The models to compare with, on rank 0."""


def gather_inputs(run: Run, world: World, progress: Progress, found: ExistingOutput) -> Inputs:
    """Fetch and prepare, or wait for the rank that does. `found` says which day templates print."""
    spec, folder = cast(FineTuneSpec, run.spec), world.node_folder
    ready = folder / "ready.json"
    if world.local_rank == 0:
        clean_scratch(world)
        folder.mkdir(parents=True, exist_ok=True)
        inputs = _make(spec, folder, world.cache, progress, found)
        if world.rank == 0 and spec.evaluation:
            prompts, compared = gather_prompts(run, inputs.tokenizer, folder, progress, found)
            inputs = replace(inputs, evaluations=prompts, compared=compared)
        temp = ready.with_suffix(".tmp")
        temp.write_text(json.dumps(_told(inputs)), "utf-8")
        temp.rename(ready)
        return inputs
    while not ready.exists():
        time.sleep(0.1)  # torchrun ends this process if the first rank fails
    told = json.loads(ready.read_text("utf-8"))
    files, samples = load_model_files(told["files"]), Path(told["samples"])
    held_out = Table(samples / "validation") if spec.validation.active else None
    tokenizer = _tokenizer(spec, files, found.day)
    return Inputs(files, tokenizer, samples, Prepared(Table(samples / "train"), held_out))


def own_model(spec: FineTuneSpec, inputs: Inputs) -> EvaluatedModel:
    """Return the model that training starts from, with the prompts of the evaluations."""
    return EvaluatedModel(BASE, spec.model, inputs.evaluations, inputs.tokenizer.today, inputs.files)


def _told(inputs: Inputs) -> dict[str, Any]:
    """Return what the first rank of a node passes to the others."""
    return {"files": dump_model_files(inputs.files), "samples": str(inputs.samples)}


def _tokenizer(spec: FineTuneSpec, files: ModelFiles, day: date) -> ChatTokenizer:
    return ChatTokenizer.load(files.tokenizer, trust_remote_code=spec.model.trust_remote_code, today=day)


def clean_scratch(world: World) -> None:
    """Remove leftovers of earlier starts from the scratch folder."""
    if world.scratch.is_dir():
        for old in world.scratch.glob("launch-*"):
            shutil.rmtree(old, ignore_errors=True)


def _make(spec: FineTuneSpec, folder: Path, cache: Path, progress: Progress, found: ExistingOutput) -> Inputs:
    options = reading_options(spec, found)
    progress.update(phase="fetching the model")
    files = fetch_files(spec.model, spec.hub, options, folder, hub_token(spec))
    if files.adapters:
        addresses = ", ".join(str(a) for a in (spec.model.uri, spec.model.adapter_uri) if a)
        log.info("Starting from %s: %d adapter(s) over %s.", addresses, len(files.adapters), files.source.uri)
    tokenizer = _tokenizer(spec, files, found.day)
    progress.update(phase="preparing the data")

    def tell(name: str, records: int) -> None:
        progress.update(records=records)

    positions = max_positions(files.base)
    _tell_of_lengths(spec.training.max_length, positions)
    sizes = {"vocab_size": vocabulary_size(files.base), "positions": positions}
    samples, prepared = prepare_once(cache, spec, tokenizer, options, tell, first=FIRST_SAMPLES, **sizes)
    for report in prepared.reports:
        log.info("%s: %s", report.name, "; ".join(report.sentences()))
    progress.update(phase="loading the model", records=None)
    return Inputs(files, tokenizer, samples, prepared)


def _tell_of_lengths(asked: int | None, positions: int | None) -> None:
    if asked is None:
        log.info("Samples have up to %d tokens (training.maxLength).", longest_sample(asked, positions))
    elif positions is not None and asked > positions:
        log.warning(
            "training.maxLength %d exceeds the model's %d positions: records that need more count as bad.",
            asked, positions,
        )  # fmt: skip


def gather_prompts(
    run: Run, tokenizer: ChatTokenizer, folder: Path, progress: Progress, found: ExistingOutput
) -> tuple[Sequence[Prompts], Sequence[EvaluatedModel]]:
    """Prepare the evaluations' prompts for the job's own model, and those of the models to compare with."""
    spec = cast(FineTuneSpec, run.spec)
    progress.update(phase="preparing the evaluations")

    def tell(records: int) -> None:
        progress.update(records=records)

    place, options = folder / EVALUATION, reading_options(spec, found)
    prompts = prepare_evaluations(spec, tokenizer, options, place, tell)
    compared = compared_models(run, options, folder / "compared", tokenizer.today, tell, prompts)
    progress.update(phase="loading the model", records=None)
    return prompts, compared


def data_digest(prepared: Prepared) -> str:
    """Return a SHA-256 over everything training reads: token ids, weights, groups, copies."""
    digest = hashlib.sha256()
    for table in (prepared.train, prepared.validation):
        if table is not None:
            for column in table.columns():
                digest.update(np.ascontiguousarray(column).view(np.uint8).data)
                digest.update(b"|")
    return digest.hexdigest()


def refuse_other_data(names: Sequence[str]) -> None:
    """Raise CorruptObjectError if the nodes have prepared other samples, by the names of their folders.

    A branch of the hub, or a file, may change while one node reads after the other.
    """
    if len(set(names)) > 1:
        raise CorruptObjectError(
            "The nodes have read different data: a file, or the branch of a data set on the hub, has changed "
            "between them. The next attempt reads it again."
        )
