"""The models in a FineTuneJob's evaluations: their names, prompts and files.

Tokenizers and prompts of all models are read before anything is trained or sampled, so that errors are
found first; the weights of a model to compare with are fetched when needed, and deleted afterwards.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import cast

from tunesmith.api.common import ModelSource
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.store import StorageOptions, storage_options
from tunesmith.data.prompts.load import Prompts, prepare_prompts
from tunesmith.engines.files import ModelFiles, fetch_files, model_digest
from tunesmith.errors import DataError, PermanentError
from tunesmith.jobs.secrets import hub_token
from tunesmith.plan.models import BASE, TUNED, model_key
from tunesmith.plan.run import Run
from tunesmith.sampling.pool import VerifierPool
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model to evaluate: its short name, its place in the manifest, and its prompts per evaluation.

    `ready` is what it is loaded from; None for a model to compare with, whose `source` is fetched into
    `folder`.
    """

    name: str
    source: ModelSource
    prompts: Sequence[Prompts]
    day: date
    ready: ModelFiles | None = None
    folder: Path | None = None
    place: str = "model"
    gguf: Path | None = None
    """The file to run instead of `ready`, by llama.cpp."""

    @property
    def key(self) -> str:
        """Return its part of the output's keys."""
        return model_key(self.name)

    @contextmanager
    def files(self, spec: FineTuneSpec) -> Iterator[ModelFiles]:
        """Yield its files while they are needed. Raises what `fetch_files` does, with the field."""
        if self.ready is not None:
            yield self.ready
            return
        assert self.folder is not None
        try:
            yield _fetched(spec, self.source, self.folder / "weights", self.place)
        finally:
            shutil.rmtree(self.folder / "weights", ignore_errors=True)

    def journal(self, files: ModelFiles) -> str:
        """Return its part of a journal's location, which changes with the model's files."""
        return self.key if self.ready is not None else f"{self.key}-{model_digest(files)[:_DIGITS]}"


def trained_models(
    spec: FineTuneSpec, files: ModelFiles, trained: Path, prompts: Sequence[Prompts], day: date
) -> list[EvaluatedModel]:
    """Return the base, and the model that is trained from it, whose folder is `trained`."""
    models = {BASE: files, TUNED: _tuned_files(spec, files, trained)}
    return [EvaluatedModel(name, spec.model, prompts, day, ready) for name, ready in models.items()]


def tuned_of(spec: FineTuneSpec, base: EvaluatedModel, trained: Path) -> EvaluatedModel:
    """Return the model that was trained from `base`, whose folder is `trained`."""
    assert base.ready is not None
    return trained_models(spec, base.ready, trained, base.prompts, base.day)[1]


def _tuned_files(spec: FineTuneSpec, files: ModelFiles, trained: Path) -> ModelFiles:
    """Return the original base of an exported adapter, whatever was below it in training.

    Its tokenizer is the one that is published with it, which has the chosen chat template.
    """
    if spec.method.full is not None:
        return ModelFiles(trained, (), ModelSource(uri=trained.absolute().as_uri()))
    return replace(files, adapters=(trained,), chosen=None)


def compared_models(
    run: Run,
    options: StorageOptions,
    folder: Path,
    day: date,
    progress: Callable[[int], None],
    reference: Sequence[Prompts],
) -> list[EvaluatedModel]:
    """Return the models of `compareWith`, with tokenizers fetched and prompts prepared below `folder`.

    `reference` are the prompts of the job's own model: the others must be able to read the same.
    """
    spec = cast(FineTuneSpec, run.spec)
    names = run.models[1 if evaluate_only(spec) else 2 :]
    models = []
    for number, (name, source) in enumerate(zip(names, spec.compare_with or [], strict=True)):
        place, own = f"compareWith[{number}]", folder / str(number)
        files = _fetched(spec, source, own / "tokenizer", place, tokenizer_only=True)
        tokenizer = ChatTokenizer.load(files.tokenizer, trust_remote_code=source.trust_remote_code, today=day)
        prompts = prepare_evaluations(spec, tokenizer, options, own / "prompts", progress)
        for evaluation, ours, theirs in zip(spec.evaluation, reference, prompts, strict=True):
            _check_equal(f"evaluation {evaluation.name}, {place}", ours, theirs)
        models.append(EvaluatedModel(name, source, prompts, day, None, own, place))
    return models


def _fetched(
    spec: FineTuneSpec, source: ModelSource, folder: Path, place: str, *, tokenizer_only: bool = False
) -> ModelFiles:
    folder.mkdir(parents=True, exist_ok=True)
    options = storage_options(spec.storage)
    try:
        return fetch_files(source, spec.hub, options, folder, hub_token(spec), tokenizer_only=tokenizer_only)
    except PermanentError as error:
        error.message = error.message.replace("model.", f"{place}.", 1)
        raise


def _check_equal(where: str, ours: Prompts, theirs: Prompts) -> None:
    """Check that both models have the same prompts, each as its own tokens."""
    if len(ours) == len(theirs) and all(
        one == other for one, other in zip(ours.ids(), theirs.ids(), strict=True)
    ):
        return
    missing = next(iter(set(ours.ids()) ^ set(theirs.ids())), "")
    raise DataError(
        f"{where}: this model cannot use the same prompts as the first one; {missing} is one "
        "of those that only one of them can read. Remove such records, or the model."
    )


def prepare_evaluations(
    spec: FineTuneSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    folder: Path,
    progress: Callable[[int], None],
) -> list[Prompts]:
    """Read the prompts of all evaluations for one model."""
    prepared = []
    for number, evaluation in enumerate(spec.evaluation):
        with VerifierPool(evaluation.verifier, path=f"evaluation[{number}].verifier", workers=1) as verifiers:
            prompts = prepare_prompts(
                evaluation.prompts,
                tokenizer,
                options,
                folder / str(number),
                check=verifiers.check,
                progress=progress,
            )
        log.info("evaluation %s: %s", evaluation.name, "; ".join(prompts.sentences()))
        prepared.append(prompts)
    return prepared
