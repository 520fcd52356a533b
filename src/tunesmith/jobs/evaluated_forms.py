"""Evaluate a form of the tuned model by the program that serves it, against the tuned model's score."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import ModelSource
from tunesmith.engines.files import ModelFiles, model_digest
from tunesmith.export.forms import Form
from tunesmith.jobs.evaluate import Evaluations
from tunesmith.jobs.evaluate_only import checker
from tunesmith.jobs.models import EvaluatedModel
from tunesmith.names import EXPORTING
from tunesmith.plan.models import TUNED
from tunesmith.plan.run import canonical

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Score:
    """A model's share of accepted replies, with its 95 % interval; None without a reply."""

    accuracy: float
    low: float
    high: float


def tuned_scores(result: Mapping[str, Any]) -> dict[str, Score]:
    """Return the tuned model's scores by evaluation, from result.json."""
    found = {}
    for evaluation in result.get("evaluation", []):
        models = {each["name"]: each["statistics"] for each in evaluation["models"]}
        score = _score(models.get(TUNED, {}))
        if score is not None:
            found[evaluation["name"]] = score
    return found


def _score(statistics: Mapping[str, Any]) -> Score | None:
    accuracy = statistics.get("accuracy")
    if accuracy is None:
        return None
    low, high = statistics["accuracy_interval"]
    return Score(accuracy, low, high)


def evaluate_form(
    session: TrainingSession, tuned: EvaluatedModel, form: Form, scores: Mapping[str, Score], scratch: Path
) -> Evaluations:
    """Let a form answer the job's evaluations; note its scores, and in `failure` one that is too low.

    Returns the evaluations, whose journals are to be removed once the form is published.
    """
    model = _model(tuned, form)
    assert tuned.ready is not None
    facts = canonical([session.run.looked_at(), form.name, model_digest(tuned.ready)])
    staging = f"{EXPORTING}/{hashlib.sha256(facts.encode()).hexdigest()[:_DIGITS]}/"
    shown = session.progress.snapshot().get("evaluations")
    session.progress.update(evaluations=None)  # those of base and tuned come back below
    aside = replace(session, folder=scratch / "evaluated")
    evaluations = Evaluations(aside, [model], checker(session), staging=staging)
    rows = []
    for spec, evaluated in zip(session.spec.evaluation, evaluations.run(), strict=True):
        score = _score(next(iter(evaluated.written.values())).statistics)
        before = scores.get(evaluated.name)
        if score is None or before is None:
            continue
        within = is_within(score, before, sampled=spec.sampling.temperature > 0)
        rows.append(
            {"name": evaluated.name, "accuracy": score.accuracy, "tuned": before.accuracy,
             "low": before.low, "high": before.high, "within": within}
        )  # fmt: skip
        if not within:
            form.failure = (
                f"in evaluation {evaluated.name} {score.accuracy:.1%} of its replies are accepted, and "
                f"{before.accuracy:.1%} of the tuned model's ({before.low:.1%} to {before.high:.1%})"
            )
    form.facts["evaluations"] = rows
    session.progress.update(evaluations=shown)
    return evaluations


def is_within(score: Score, tuned: Score, *, sampled: bool) -> bool:
    """Return whether a form's score is no lower than the tuned model's interval.

    Where replies are sampled both scores vary, so it is enough if the intervals meet.
    """
    return (score.high if sampled else score.accuracy) >= tuned.low


def _model(tuned: EvaluatedModel, form: Form) -> EvaluatedModel:
    if form.path.is_dir():
        files = ModelFiles(form.path, (), ModelSource(uri=form.path.absolute().as_uri()))
        return replace(tuned, name=form.name, ready=files)
    return replace(tuned, name=form.name, gguf=form.path)
