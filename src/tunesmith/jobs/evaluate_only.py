"""A FineTuneJob with `method: {none: {}}`, from top to bottom: evaluate models, train nothing.

One process does it all; if a launcher started more, the others are idle. There is no final model: the output
is the report, result.json, and each model's replies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.store import storage_options
from tunesmith.engines.files import fetch_files, model_digest
from tunesmith.engines.hf.generate import preview_messages
from tunesmith.jobs.evaluate import Evaluated, Evaluations
from tunesmith.jobs.inputs import clean_scratch, gather_prompts
from tunesmith.jobs.models import EvaluatedModel
from tunesmith.jobs.output_lock import ExistingOutput, claim
from tunesmith.jobs.previews import Previewer, show_previews
from tunesmith.jobs.reading import commits_of, reading_options
from tunesmith.jobs.secrets import hub_token
from tunesmith.jobs.versions import versions
from tunesmith.jobs.written import device, write_report, write_result
from tunesmith.plan.models import BASE
from tunesmith.tokens.chat import ChatTokenizer

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession

log = logging.getLogger(__name__)


def evaluate_model(session: TrainingSession, found: ExistingOutput) -> str:
    """Run the job. Return the digest of the published manifest, "" on idle ranks."""
    if not session.first:
        return ""
    models = own_models(session, found)
    session.stop.check()
    session.folder.mkdir(exist_ok=True)
    fingerprint: dict[str, Any] = {"spec": session.run.result_fields()}
    if models[0].ready is not None:
        fingerprint["model"] = model_digest(models[0].ready)
    fingerprint["evaluation"] = [prompts.digest for prompts in models[0].prompts]
    fingerprint |= commits_of(session.spec, reading_options(session.spec, found))
    claim(session.patient, found, fingerprint)
    evaluations = Evaluations(session, models, checker(session))
    evaluated = evaluations.run()
    write_outcome(session, evaluated, own_previews(session, models))
    session.progress.update(phase="publishing")
    digest = publish(session.patient, "", session.folder, extra={"kind": session.run.kind})
    evaluations.forget()
    session.progress.update(phase="finished")
    log.info("Published %s.", session.store.uri)
    return digest


def own_models(session: TrainingSession, found: ExistingOutput) -> list[EvaluatedModel]:
    """Return the job's model and those to compare with; all prompts are prepared."""
    spec, folder = session.spec, session.world.node_folder
    clean_scratch(session.world)
    folder.mkdir(parents=True, exist_ok=True)
    session.progress.update(phase="fetching the model")
    files = fetch_files(spec.model, spec.hub, storage_options(spec.storage), folder, hub_token(spec))
    tokenizer = ChatTokenizer.load(
        files.tokenizer, trust_remote_code=spec.model.trust_remote_code, today=found.day
    )
    prompts, compared = gather_prompts(session.run, tokenizer, folder, session.progress, found)
    name = session.run.models[0] if session.run.models else BASE
    return [EvaluatedModel(name, spec.model, prompts, found.day, files), *compared]


def checker(session: TrainingSession) -> Callable[[], None]:
    """Raise if the job was asked to stop; long work calls it continuously."""

    def check() -> None:
        session.hang_detector.beat(phase="evaluating")
        session.stop.check()

    return check


def replies_of(session: TrainingSession, models: Sequence[EvaluatedModel]) -> dict[str, dict[str, str]]:
    """Return each model's replies to the previews: by the model's name, then by the preview's."""
    spec, found = session.spec, dict[str, dict[str, str]]()
    if not spec.previews:
        return found
    with Previewer(spec.previews, spec.training.seed, checker(session)) as previewer:
        for model in models:
            session.progress.update(phase=f"previews of {model.name}")
            with model.files(spec) as files:
                found[model.name] = previewer.replies(files, model.source, model.day)
            show_previews(session, model.name, found[model.name])
    return found


def own_previews(session: TrainingSession, models: Sequence[EvaluatedModel]) -> list[dict[str, Any]]:
    """Return the previews with the reply of each model, as in result.json."""
    replies = replies_of(session, models)
    return [
        {
            "name": preview.name,
            "messages": [message.as_dict() for message in preview_messages(preview)],
            "replies": [{"model": model, "text": texts[preview.name]} for model, texts in replies.items()],
        }
        for preview in session.spec.previews
    ]


def write_outcome(
    session: TrainingSession, evaluated: Sequence[Evaluated], previews: Sequence[Mapping[str, Any]]
) -> None:
    """Write report and result of a job that trains nothing."""
    spec = session.spec
    result = {
        "job": {"kind": session.run.kind, "name": session.run.name},
        "model": spec.model.uri,
        "method": "none",
        "models": [
            {"name": name, "uri": source.uri}
            for name, source in zip(session.run.models, [spec.model, *(spec.compare_with or [])], strict=True)
        ],
        "previews": list(previews),
        "evaluation": [each.as_dict() for each in evaluated],
        "seconds": round(time.monotonic() - session.started, 1),
        "world": {"processes": 1, "device": device()},
        "versions": versions(),
    }
    write_result(session.folder, result)
    summary = [("Models", len(session.run.models)), ("Seconds", result["seconds"]), ("Device", device())]
    write_report(
        session.folder,
        {
            "title": session.run.name,
            "trains": False,
            "summary": summary,
            "previews": result["previews"],
            "evaluations": result["evaluation"],
            "config": _configuration(session),
            "versions": result["versions"],
            "notes": ["Nothing was trained: the models are evaluated unchanged."],
        },
    )


def _configuration(session: TrainingSession) -> dict[str, Any]:
    """Return the settings that matter here; those of training are all defaults."""
    fields = session.run.result_fields()
    return {key: value for key, value in fields.items() if key not in ("training", "validation", "datasets")}
