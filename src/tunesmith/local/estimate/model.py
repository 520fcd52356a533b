"""The model of a job as its config.json describes it: sizes and files, without weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.common import ModelSource
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.load import local_path, model_config, read_config
from tunesmith.engines.model_shape import ModelShape, read_shape
from tunesmith.errors import ModelError, PermanentError
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.names import Kind
from tunesmith.tokens.chat import ChatTokenizer

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class DescribedModel:
    """A model's sizes, files and tokenizer; `notes` are sentences about what was assumed of it."""

    shape: ModelShape
    files: ModelFiles
    tokenizer: ChatTokenizer
    size: float
    """Bytes of the files with weights."""
    fetched: bool
    """Whether they come to the scratch disk."""
    notes: tuple[str, ...]


def describe_model(asked: PreviewRequest, source: ModelSource, jobs: Sequence[Job]) -> DescribedModel:
    """Return what config.json says of a model. Raises ModelError if it does not say its sizes."""
    files, tokenizer, notes = _fetched(asked, source, jobs)
    return described(files, tokenizer, notes)


def described(files: ModelFiles, tokenizer: ChatTokenizer, assumed: Sequence[str] = ()) -> DescribedModel:
    """Return what config.json says of a model whose small files are here. Raises ModelError."""
    config, notes = model_config(files.base), list(assumed)
    shape = read_shape(config)
    if shape is None:
        raise ModelError(
            f"{files.source.uri}: config.json does not say the model's sizes (hidden_size, "
            "num_hidden_layers, num_attention_heads, vocab_size), so nothing can be estimated."
        )
    if not shape.known:
        notes.append(
            f"The sizes of models of type {shape.family or 'unknown'} are not verified; it is taken to be "
            "built as Llama is."
        )
    if "vision_config" in config:
        notes.append("Only the language model is counted.")
    size = _size_of_files(files.base) or 2.0 * shape.parameters
    fetched = local_path(files.source.uri or "") is None
    return DescribedModel(shape, files, tokenizer, size, fetched, tuple(notes))


def _fetched(
    asked: PreviewRequest, source: ModelSource, jobs: Sequence[Job]
) -> tuple[ModelFiles, ChatTokenizer, list[str]]:
    """Fetch the small files; those of the model that another job starts from, if its output is not there."""
    try:
        return *asked.tokenizer(source), []
    except PermanentError as error:
        base = _started_from(asked.job, jobs)
        if base is None:
            error.message += (
                " To estimate with another model: --set model.uri=PATH or hf://ORGANISATION/NAME."
            )
            raise
        name = base.uri or ""
        return *asked.tokenizer(base), [f"Its model does not exist yet; that of {name} is as large."]


def _started_from(job: Job, jobs: Sequence[Job]) -> ModelSource | None:
    """Return the model that the job named by `fromJob` starts from, through as many jobs as it takes."""
    source: ModelSource | None = getattr(job.spec, "model", None)
    named = {(other.metadata.namespace, other.name): other for other in jobs if other.kind == Kind.FINE_TUNE}
    seen = set[str]()
    if source is None or source.from_job is None:
        return None
    while source.from_job is not None:
        other = named.get((job.metadata.namespace, source.from_job.name))
        if other is None or other.name in seen or not isinstance(other.spec, FineTuneSpec):
            return None
        seen.add(other.name)
        source = other.spec.model
    return source


def _size_of_files(folder: Path) -> float | None:
    """Return the bytes of the weights by the folder's index or its files; None if it has neither."""
    with suppress(ModelError, KeyError, TypeError, ValueError):
        return float(read_config(folder / _INDEX)["metadata"]["total_size"])
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return float(sum(sizes)) if sizes else None
