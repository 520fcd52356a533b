"""`evaluation` of a FineTuneJob: base and tuned model answer the same prompts, in the pod of rank 0.

The engines are processes of their own, so this program must have let go of its memory before. The rows of
each model are in a journal below the output, so that an attempt that is killed goes on where it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import ModelSource
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.generation import EngineSpec, TransformersEngine, VllmEngine
from tunesmith.artifacts.store import StorageOptions, open_store
from tunesmith.data.prompts import Prompts, prepare_prompts
from tunesmith.engines.files import ModelFiles
from tunesmith.jobs.engine_task import EngineTask
from tunesmith.jobs.engines import visible_devices
from tunesmith.jobs.inputs import storage_options
from tunesmith.jobs.pods import OnePod
from tunesmith.jobs.sampling import Draw
from tunesmith.names import EVALUATION
from tunesmith.plan.pytorchjob import engines_on
from tunesmith.sampling.comparison import compare
from tunesmith.sampling.outputs import Written, write_outputs
from tunesmith.sampling.pool import Verifiers
from tunesmith.sampling.rows import rows_of_prompt
from tunesmith.tokens.chat import ChatTokenizer

if TYPE_CHECKING:
    from tunesmith.jobs.finetune import Session
    from tunesmith.jobs.inputs import Inputs

log = logging.getLogger(__name__)
BASE, TUNED = "base", "tuned"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What both models did with one evaluation's prompts."""

    name: str
    base: Written
    tuned: Written
    comparison: dict[str, Any]

    def accuracies(self) -> dict[str, Any]:
        """The two numbers for the status."""
        sides = {BASE: self.base.statistics, TUNED: self.tuned.statistics}
        return {"name": self.name} | {side: found["accuracy"] for side, found in sides.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for result.json and the report."""
        return {
            "name": self.name,
            BASE: self.base.statistics,
            TUNED: self.tuned.statistics,
            "comparison": self.comparison,
        }


def prepare_evaluations(
    spec: FineTuneSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    folder: Path,
    progress: Callable[[int], None],
) -> list[Prompts]:
    """Read the prompts of all evaluations: before any training, so that mistakes in them are found first."""
    prepared = []
    for number, evaluation in enumerate(spec.evaluation):
        with Verifiers(evaluation.verifier, path=f"evaluation[{number}].verifier", workers=1) as verifiers:
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


class Evaluations:
    """All evaluations of a job, each with both models: `run` them, and `forget` the journals once published.

    `trained` is the folder of the final model. `check` is called all the time and may raise.
    """

    def __init__(self, session: Session, inputs: Inputs, trained: Path, check: Callable[[], None]) -> None:
        models = {BASE: inputs.files, TUNED: _tuned_files(session.spec, inputs.files, trained)}
        self._session = session
        self._draws = [
            [_draw(session, inputs, number, which, files, check) for which, files in models.items()]
            for number in range(len(session.spec.evaluation))
        ]

    def run(self) -> list[Evaluated]:
        """Let the models answer; their replies go to the output's `evaluation` folder."""
        before = self._session.progress.snapshot()
        results = [
            _compared(self._session, evaluation.name, draws)
            for evaluation, draws in zip(self._session.spec.evaluation, self._draws, strict=True)
        ]
        after = dict.fromkeys(self._session.progress.snapshot().keys() - before.keys())
        accuracies = [each.accuracies() for each in results]
        self._session.progress.update(**after | before, evaluations=accuracies)
        return results

    def forget(self) -> None:
        """Remove the journals."""
        for draw in (draw for draws in self._draws for draw in draws):
            draw.forget()


def _tuned_files(spec: FineTuneSpec, files: ModelFiles, trained: Path) -> ModelFiles:
    """An exported adapter stands over the original base, whatever was below it in training."""
    if spec.method.full is not None:
        return ModelFiles(trained, (), ModelSource(uri=trained.absolute().as_uri()))
    return replace(files, adapters=(trained,))


def _draw(
    session: Session, inputs: Inputs, number: int, which: str, files: ModelFiles, check: Callable[[], None]
) -> Draw:
    spec, world, prompts = session.spec, session.world, inputs.evaluations[number]
    evaluation, name = spec.evaluation[number], f"{EVALUATION}/{number}/{which}"
    task = EngineTask(
        model=spec.model,
        files=files,
        sampling=evaluation.sampling,
        engine=evaluation.engine or default_engine(),
        verifier=evaluation.verifier,
        verifier_path=f"evaluation[{number}].verifier",
        output=f"{spec.output.uri.rstrip('/')}/{name}",
        storage=spec.storage,
        job=world.job_uid or session.run.name,
        attempt=world.attempt,
        pod=0,
        prompts=prompts.folder,
        journal=world.journal / name,
        day=inputs.tokenizer.today,
    )
    return Draw(
        name,
        task,
        open_store(task.output, storage_options(spec.storage)),
        prompts,
        replace(world, rank=0, local_rank=0, size=1, local_size=1),
        OnePod(),
        session.progress,
        check,
        phase=f"evaluating {evaluation.name} ({which} model)",
    )


def _compared(session: Session, name: str, draws: Sequence[Draw]) -> Evaluated:
    """Both models' answers, and what changed between them."""
    with ExitStack() as opened:
        sides = []
        for draw in draws:
            turn = draw.run(engines_on(draw.task.engine, len(visible_devices(os.environ))))
            rows = draw.rows(turn)
            opened.callback(rows.close)
            number = draw.task.sampling.num_samples
            rows_of = partial(rows_of_prompt, rows.get, num_samples=number)
            folder = session.folder / draw.name
            sides.append((rows_of, write_outputs(draw.prompts, rows_of, folder, num_samples=number)))
        (before, base), (after, tuned) = sides
        return Evaluated(name, base, tuned, compare(draws[0].prompts, before, after))


def default_engine() -> EngineSpec:
    """vLLM where it is installed, else transformers."""
    if find_spec("vllm") is not None:
        return EngineSpec(vllm=VllmEngine())
    return EngineSpec(transformers=TransformersEngine())
