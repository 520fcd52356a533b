"""`evaluation` of a FineTuneJob: several models answer the same prompts, one after the other, in one pod.

The engines are separate processes, so this program must have freed its memory before. The rows of each model
are in a journal below the output, so that an attempt after a kill resumes there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tunesmith.api.generation import EngineSpec, TransformersEngine, VllmEngine
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.retrying_store import RetryingStore
from tunesmith.artifacts.store import storage_options
from tunesmith.engines.files import ModelFiles
from tunesmith.jobs.engine_pool import visible_devices
from tunesmith.jobs.engine_settings import EngineSettings
from tunesmith.jobs.models import EvaluatedModel
from tunesmith.jobs.rendezvous import SinglePod
from tunesmith.jobs.sampling import SamplingRun
from tunesmith.names import EVALUATION
from tunesmith.plan.models import BASE, TUNED
from tunesmith.plan.pod_template import engines_on
from tunesmith.sampling.models import RowsOf, count_models
from tunesmith.sampling.outputs import SamplingOutputs, write_outputs
from tunesmith.sampling.rows import rows_of_prompt

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The models' results for one evaluation's prompts; `counted` is as `models.ModelScores.values`."""

    name: str
    written: Mapping[str, SamplingOutputs]
    counted: dict[str, Any]

    def accuracies(self) -> dict[str, Any]:
        """Return the numbers for the status."""
        found = {name: written.statistics["accuracy"] for name, written in self.written.items()}
        own = {side: found[side] for side in (BASE, TUNED) if side in found}
        return {
            "name": self.name,
            **own,
            **({} if own.keys() == found.keys() else {"models": _named(found)}),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for result.json; training also has `base`, `tuned` and `comparison`."""
        statistics = {name: written.statistics for name, written in self.written.items()}
        pairs = self.counted["pairs"]
        comparison = next((p for p in pairs if (p["model"], p["against"]) == (TUNED, BASE)), None)
        return {
            "name": self.name,
            **{side: statistics[side] for side in (BASE, TUNED) if side in statistics},
            **({"comparison": comparison} if comparison else {}),
            "models": [{"name": name, "statistics": each} for name, each in statistics.items()],
            "compared": self.counted,
        }


def _named(shares: Mapping[str, float | None]) -> list[dict[str, Any]]:
    return [{"name": name, "accuracy": share} for name, share in shares.items()]


class Evaluations:
    """All evaluations of a job, each with all models: `run` them, and `forget` the journals once published.

    `models` are in display order; `subject` is the one that all others are compared with.
    `check` is called continuously and may raise. `staging` is where journals are kept below the output, "" or
    a prefix that ends with a slash.
    """

    def __init__(
        self,
        session: TrainingSession,
        models: Sequence[EvaluatedModel],
        check: Callable[[], None],
        *,
        subject: int = 0,
        staging: str = "",
    ) -> None:
        self._session, self._models, self._check = session, models, check
        self._subject, self._staging = subject, staging
        self._draws: list[SamplingRun] = []

    def run(self) -> list[Evaluated]:
        """Let the models answer; their replies go to the output's `evaluation` folder."""
        progress = self._session.progress
        before = progress.snapshot()
        with ExitStack() as opened:
            sides = [self._answers(model, opened) for model in self._models]
            results = [
                self._evaluated(number, [side[number] for side in sides])
                for number in range(len(self._session.spec.evaluation))
            ]
        after = dict.fromkeys(progress.snapshot().keys() - before.keys())
        progress.update(**after | before, evaluations=[each.accuracies() for each in results])
        return results

    def forget(self) -> None:
        """Remove the journals."""
        for draw in self._draws:
            draw.forget()

    def _answers(self, model: EvaluatedModel, opened: ExitStack) -> list[tuple[RowsOf, SamplingOutputs]]:
        """Yield one model's rows and outputs, per evaluation. The rows stay open as long as `opened`."""
        answers: list[tuple[RowsOf, SamplingOutputs]] = []
        numbers = range(len(self._session.spec.evaluation))
        if not numbers:
            return answers
        with model.files(self._session.spec) as files:
            for number in numbers:
                draw = self._draw(number, model, files)
                self._draws.append(draw)
                engines = engines_on(draw.task.engine, len(visible_devices(os.environ)))
                epoch = draw.run(1 if model.gguf else engines)
                rows = draw.rows(epoch)
                opened.callback(rows.close)
                samples = draw.task.sampling.num_samples
                rows_of = partial(rows_of_prompt, rows.get, num_samples=samples)
                folder = self._session.folder / draw.name
                answers.append((rows_of, write_outputs(draw.prompts, rows_of, folder, num_samples=samples)))
        return answers

    def _evaluated(self, number: int, sides: Sequence[tuple[RowsOf, SamplingOutputs]]) -> Evaluated:
        names = [model.name for model in self._models]
        counted = count_models(
            self._models[0].prompts[number],
            [(name, rows_of) for name, (rows_of, _) in zip(names, sides, strict=True)],
            self._subject,
        )
        written = {name: each for name, (_, each) in zip(names, sides, strict=True)}
        return Evaluated(self._session.spec.evaluation[number].name, written, counted)

    def _draw(self, number: int, model: EvaluatedModel, files: ModelFiles) -> SamplingRun:
        session = self._session
        spec, world, prompts = session.spec, session.world, model.prompts[number]
        evaluation = spec.evaluation[number]
        journal = f"{self._staging}{EVALUATION}/{number}/{model.journal(files)}"
        task = EngineSettings(
            model=model.source,
            files=files,
            sampling=evaluation.sampling,
            engine=evaluation.engine or default_engine(),
            verifier=evaluation.verifier,
            verifier_path=f"evaluation[{number}].verifier",
            output=f"{spec.output.uri.rstrip('/')}/{journal}",
            storage=spec.storage,
            job=world.job_uid or session.run.name,
            attempt=world.attempt,
            pod=0,
            prompts=prompts.folder,
            journal=world.journal / journal,
            day=model.day,
            gguf=model.gguf,
        )
        return SamplingRun(
            f"{EVALUATION}/{number}/{model.key}",
            task,
            RetryingStore(
                open_store(task.output, storage_options(spec.storage)),
                self._check,
                session.progress.teller("storage"),
                answered=True,
            ),
            prompts,
            replace(world, rank=0, local_rank=0, size=1, local_size=1),
            SinglePod(),
            session.progress,
            self._check,
            session.notes,
            phase=f"evaluating {evaluation.name} ({model.name})",
        )


def default_engine() -> EngineSpec:
    """Return vLLM if it is installed, else transformers."""
    if find_spec("vllm") is not None:
        return EngineSpec(vllm=VllmEngine())
    return EngineSpec(transformers=TransformersEngine())
