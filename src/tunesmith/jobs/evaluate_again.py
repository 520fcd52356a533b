"""Add an evaluation or previews to the output of a finished FineTuneJob, without training again.

The fields of a job fall into two parts: those that change its weights, and those about its evaluation
(`Run.looked_at`). If only the second part differs from what was published, the published model is evaluated
unchanged and the output is published again; until then the old result is valid.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.artifacts.manifest import Manifest
from tunesmith.artifacts.publish import read_manifest
from tunesmith.artifacts.republish import fetch_matching, finish_republish, republish
from tunesmith.artifacts.store import Store
from tunesmith.engines.files import model_digest
from tunesmith.engines.hf.generate import preview_messages
from tunesmith.errors import OutputConflictError
from tunesmith.jobs.evaluate import Evaluated, Evaluations
from tunesmith.jobs.evaluate_only import checker, own_previews, replies_of, write_outcome
from tunesmith.jobs.models import EvaluatedModel, trained_models
from tunesmith.jobs.versions import versions
from tunesmith.jobs.written import write_report, write_result
from tunesmith.names import (
    ADDED_LATER,
    EVALUATING,
    EXPORT,
    FINAL_MODEL,
    FINGERPRINT_KEY,
    METRICS_KEY,
    REPORT_DATA_KEY,
    RESULT_KEY,
)
from tunesmith.plan.models import BASE, TUNED
from tunesmith.plan.run import Run, digest

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession

log = logging.getLogger(__name__)
_LOOKED_AT = "lookedAt"
_DIGITS = 16


def compared_fields(store: Store, run: Run) -> dict[str, Any]:
    """Return the fields that are compared: for a finished output, only those that change its weights."""
    fields, looked_at = run.result_fields(), run.looked_at()
    if read_manifest(store, "") is None:
        return fields
    before = _fingerprint(store).get("spec", {})
    own = {key: value for key, value in fields.items() if key not in looked_at}
    return own | {key: value for key, value in before.items() if key in looked_at or key == "compareWith"}


def is_looked_at(store: Store, run: Run) -> bool:
    """Return whether a finished output has all evaluations that the job requests."""
    manifest = read_manifest(store, "")
    assert manifest is not None
    wanted = run.looked_at()
    return not any(wanted.values()) or _looked_at(store, manifest, wanted) == wanted


def _looked_at(store: Store, manifest: Manifest, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evaluation fields of a finished output: as last published, else as claimed."""
    if _LOOKED_AT in manifest.extra:
        return dict(manifest.extra[_LOOKED_AT])
    before = _fingerprint(store).get("spec", {})
    return {key: before[key] for key in (*wanted, "compareWith") if key in before}


def _fingerprint(store: Store) -> dict[str, Any]:
    if not store.exists(FINGERPRINT_KEY):
        return {}
    found: dict[str, Any] = json.loads(store.read(FINGERPRINT_KEY))
    return found


def evaluate_again(session: TrainingSession, models: list[EvaluatedModel]) -> str:
    """Evaluate the published model again, for rank 0. Return the digest of the new manifest.

    `models` are the job's own and those to compare with.
    """
    store = session.patient
    finish_republish(store, ADDED_LATER)
    old = read_manifest(store, "")
    assert old is not None
    log.info("The output is finished; its evaluations or previews have changed. Nothing is trained again.")
    session.progress.update(phase="fetching the finished result")
    session.folder.mkdir(exist_ok=True)
    fetch_matching(store, old, session.folder, lambda key: not key.startswith(ADDED_LATER))
    if not evaluate_only(session.spec):
        models = with_trained(session, models)
    staging = f"{EVALUATING}/{_look(session.run, models)}"
    subject = 0 if evaluate_only(session.spec) else 1
    evaluations = Evaluations(session, models, checker(session), subject=subject, staging=f"{staging}/")
    _write(session, evaluations.run(), models, _looked_at(store, old, session.run.looked_at()))
    session.stop.check()
    session.progress.update(phase="publishing")
    extra = {**old.extra, "kind": session.run.kind, _LOOKED_AT: session.run.looked_at()}
    new = republish(
        store,
        session.folder,
        old,
        staging,
        extra,
        within=ADDED_LATER,
        kept=f"{FINAL_MODEL}/",
        also=lambda key: key.startswith(f"{EXPORT}/"),
        progress=lambda _: session.hang_detector.beat(phase="publishing"),
    )
    evaluations.forget()
    session.progress.update(phase="finished")
    log.info("Published %s again.", session.store.uri)
    return new


def with_trained(session: TrainingSession, models: Sequence[EvaluatedModel]) -> list[EvaluatedModel]:
    """Return base and tuned model, as after training, instead of the model that the job started from."""
    start, *compared = models
    assert start.ready is not None
    before = _fingerprint(session.store).get("model")
    if before is not None and model_digest(start.ready) != before:
        raise OutputConflictError(
            f"output.uri {session.store.uri} was trained from a different model than the one now at "
            f"{session.spec.model.uri}, which cannot be its base. Choose another output.uri."
        )
    own = trained_models(session.spec, start.ready, session.folder / FINAL_MODEL, start.prompts, start.day)
    return [*own, *compared]


def _look(run: Run, models: Sequence[EvaluatedModel]) -> str:
    """Return a key of the settings and prompts, so that replies to others are not reused."""
    prompts = [[each.digest for each in model.prompts] for model in models]
    return digest([run.looked_at(), list(run.models), prompts])[:_DIGITS]


def _write(
    session: TrainingSession,
    evaluated: Sequence[Evaluated],
    models: Sequence[EvaluatedModel],
    before: Mapping[str, Any],
) -> None:
    """Write report and result with the new evaluations and previews in place of the old ones."""
    if evaluate_only(session.spec):
        write_outcome(session, evaluated, own_previews(session, models))
        return
    folder, looked_at = session.folder, session.run.looked_at()
    result = json.loads((folder / RESULT_KEY).read_text("utf-8"))
    same = before.get("previews") == looked_at["previews"]
    previews = result["previews"] if same else _previews(session, models)
    changed = {"evaluation": [each.as_dict() for each in evaluated], "previews": previews}
    later = {"seconds": round(time.monotonic() - session.started, 1), "versions": versions()}
    result |= {**changed, "evaluatedLater": later}
    write_result(folder, result)
    data = _report_data(session, result)
    config = {key: value for key, value in data["config"].items() if key != "compareWith"} | looked_at
    note = f"Evaluated again later, in {later['seconds']:g} seconds, without training again."
    notes = [each for each in data["notes"] if not each.startswith("Evaluated again later")]
    shown = {"evaluations": changed["evaluation"], "previews": previews, "config": config}
    write_report(folder, {**data, **shown, "notes": [*notes, note]})


def _previews(session: TrainingSession, models: Sequence[EvaluatedModel]) -> list[dict[str, Any]]:
    replies = replies_of(session, [model for model in models if model.name in (BASE, TUNED)])
    return [
        {
            "name": preview.name,
            "messages": [message.as_dict() for message in preview_messages(preview)],
            "before": replies[BASE][preview.name],
            "after": replies[TUNED][preview.name],
        }
        for preview in session.spec.previews
    ]


def _report_data(session: TrainingSession, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report's values; for an output without them, what result and metrics have of them."""
    path = session.folder / REPORT_DATA_KEY
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    lines = (session.folder / METRICS_KEY).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return {
        "title": session.run.name,
        "summary": [(name.capitalize(), result[name]) for name in ("model", "method", "steps", "seconds")],
        "metrics": [row for row in rows if "loss" in row],
        "evals": [row for row in rows if "eval_loss" in row],
        "datasets": result["datasets"],
        "config": session.run.result_fields(),
        "versions": result["versions"],
        "notes": ["The first samples are in training_samples_preview.txt."],
    }
