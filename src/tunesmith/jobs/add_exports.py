"""Add the forms of `export` to the output of a finished FineTuneJob: right after training, or later.

The model is published by then, and stays valid whatever happens here: forms are made and proved on this disk,
and one write of the manifest adds those that pass. What an earlier attempt has added is not made again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.export import ExportSpec
from tunesmith.artifacts.hub.push import check_push
from tunesmith.artifacts.manifest import Manifest
from tunesmith.artifacts.publish import read_manifest
from tunesmith.artifacts.republish import fetch_matching, finish_republish, republish
from tunesmith.artifacts.store import Store
from tunesmith.errors import ModelError, PermanentError
from tunesmith.export.forms import Form, Forms, Subject
from tunesmith.export.refuse import refuse_forms
from tunesmith.export.repository import CardFacts, hub_datasets, licence, repository_files
from tunesmith.export.served import serving_engine
from tunesmith.jobs.evaluate_only import checker
from tunesmith.jobs.evaluated_forms import evaluate_form, tuned_scores
from tunesmith.jobs.models import EvaluatedModel
from tunesmith.jobs.pushing import push_watched, repository_of
from tunesmith.jobs.written import write_report, write_result
from tunesmith.names import (
    ADDED_LATER,
    EXPORT,
    EXPORTING,
    FINAL_MODEL,
    REPORT_DATA_KEY,
    RESULT_KEY,
    Reason,
)

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession

log = logging.getLogger(__name__)
_EXPORTS = "exports"
"""In the manifest: the forms that the output has, by name."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The forms that a job asks for and its output does not have."""

    merged: bool = False
    gguf: str | None = None
    hub: bool = False

    def __bool__(self) -> bool:
        return bool(self.merged or self.gguf or self.hub)


def missing_exports(spec: ExportSpec | None, manifest: Manifest) -> Missing:
    """Return what is still to be made of `export` for the output of a manifest."""
    if spec is None:
        return Missing()
    done: Mapping[str, Any] = manifest.extra.get(_EXPORTS, {})
    quantization = spec.gguf.quantization if spec.gguf else None
    merged = spec.merged is not None and "merged" not in done
    gguf = quantization if done.get("gguf") != quantization else None
    pushed = done.get("hub", {})
    same = spec.hub is not None and pushed == _pushed(spec)
    return Missing(merged, gguf, spec.hub is not None and not same)


def _pushed(spec: ExportSpec) -> dict[str, Any]:
    """Return what the manifest says of a push that has all that is asked for."""
    assert spec.hub is not None
    quantization = spec.gguf.quantization if spec.gguf else None
    return {"repoId": spec.hub.repo_id, "merged": spec.merged is not None, "gguf": quantization}


def is_exported(store: Store, spec: ExportSpec | None) -> bool:
    """Return whether a finished output has all that `export` asks for."""
    manifest = read_manifest(store, "")
    return manifest is None or not missing_exports(spec, manifest)


def check_exports(session: TrainingSession, model: EvaluatedModel) -> None:
    """Raise PermanentError for what could not be exported, before anything is trained."""
    spec = session.spec.export
    if spec is None or model.ready is None:
        return
    gguf = spec.gguf.quantization if spec.gguf else None
    merged = spec.merged is not None and session.spec.method.full is None
    refuse_forms(model.ready, merged=merged, gguf=gguf, folder=session.world.node_folder)
    if spec.hub is not None:
        check_push(repository_of(session.spec))


def fetch_final_model(session: TrainingSession) -> None:
    """Fetch the published model of a finished output, unless it is on this disk already."""
    if (session.folder / FINAL_MODEL).is_dir():
        return
    manifest = read_manifest(session.store, "")
    assert manifest is not None
    session.progress.update(phase="fetching the finished model")
    session.folder.mkdir(exist_ok=True)
    fetch_matching(session.patient, manifest, session.folder, lambda key: key.startswith(f"{FINAL_MODEL}/"))


def add_exports(session: TrainingSession, tuned: EvaluatedModel, digest: str) -> str:
    """Make, prove and publish the forms that are missing. Return the digest of the manifest.

    `tuned` is the published model, with the prompts of the evaluations. Raises PermanentError with
    Reason.EXPORT_UNPROVEN if a form is not the model; the others are published, and the model stays so.
    """
    store = session.patient
    finish_republish(store, ADDED_LATER)
    manifest = read_manifest(store, "")
    assert manifest is not None
    missing = missing_exports(session.spec.export, manifest)
    if not missing:
        return digest
    log.info("The model is published. Its exports are made now.")
    run = _Exporting(session, tuned, store)
    if missing.merged or missing.gguf:
        digest = run.make(missing, manifest)
    if missing.hub:
        digest = run.push()
    session.progress.update(phase="finished")
    return digest


class _Exporting:
    """The exports of one start, on rank 0. `new` is a folder with files that the output gets."""

    def __init__(self, session: TrainingSession, tuned: EvaluatedModel, store: Store) -> None:
        self._session, self._tuned, self._store = session, tuned, store
        self._scratch = session.world.node_folder / EXPORTING
        self._new = self._scratch / "new"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._new.mkdir(parents=True)

    def make(self, missing: Missing, manifest: Manifest) -> str:
        """Make and prove forms, and add those that pass. Raises PermanentError for the others."""
        session = self._session
        assert self._tuned.ready is not None
        self._fetch(manifest, lambda key: key in (RESULT_KEY, REPORT_DATA_KEY))
        subject = Subject(self._tuned.ready, session.spec.model, session.run.name, self._tuned.day)
        made = []
        serving, previews = serving_engine(session.spec.evaluation), session.spec.previews
        with Forms(subject, self._scratch, previews, self._enter, checker(session), serving) as forms:
            if missing.merged:
                whole = session.spec.method.full is not None
                made.append(self._whole_already() if whole else forms.merged())
            if missing.gguf:
                made.append(try_gguf(forms, missing.gguf))
        scores = tuned_scores(json.loads((self._new / RESULT_KEY).read_text("utf-8")))
        evaluated = [
            evaluate_form(session, self._tuned, form, scores, self._scratch)
            for form in made
            if not form.failure and form.key != FINAL_MODEL and session.spec.evaluation
        ]
        self._keep([form for form in made if not form.failure])
        digest = self._publish(manifest, {_name(form): _said(form) for form in made if not form.failure})
        for each in evaluated:
            each.forget()
        failed = [f"{form.name}: {form.failure}" for form in made if form.failure]
        if failed:
            raise PermanentError(
                f"The model is published at {self._store.uri}, but an export is not, since it is not that "
                f"model. {'. '.join(failed)}. Choose another form or quantisation, or remove it from export.",
                reason=Reason.EXPORT_UNPROVEN,
            )
        return digest

    def _whole_already(self) -> Form:
        """Return the merged form of a fully trained model, which `final_model` is."""
        folder = self._session.folder / FINAL_MODEL
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        return Form("merged", FINAL_MODEL, folder, {"bytes": size, "equalTokens": 1.0, "type": "as trained"})

    def push(self) -> str:
        """Push to the hub what the output has, and note it in the output."""
        session, spec = self._session, self._session.spec
        assert spec.export is not None
        assert spec.export.hub is not None
        assert self._tuned.ready is not None
        manifest = read_manifest(self._store, "")
        assert manifest is not None
        self._enter("fetching what is pushed to the hub")
        self._fetch(
            manifest, lambda key: key.startswith(f"{EXPORT}/") or key in (RESULT_KEY, REPORT_DATA_KEY)
        )
        result = json.loads((self._new / RESULT_KEY).read_text("utf-8"))
        wanted = {"merged"} if spec.export.merged else set()
        wanted |= {f"gguf {spec.export.gguf.quantization}"} if spec.export.gguf else set()
        forms = [
            Form(each["name"], each["key"], self._place(each["key"]), each)
            for each in result.get(_EXPORTS, [])
            if each["name"] in wanted
        ]
        hub = repository_of(spec)
        scores = {name: score.accuracy for name, score in tuned_scores(result).items()}
        base = self._tuned.ready.source if self._tuned.ready.adapters else spec.model
        datasets = hub_datasets(each.uri for each in spec.datasets)
        facts = CardFacts(licence(base, self._tuned.ready.base, hub), scores, datasets)
        files = repository_files(session.folder / FINAL_MODEL, forms, self._scratch, facts)
        self._enter(f"pushing to {hub.name}")
        commit = push_watched(session, hub, files, f"{session.run.name}, by Tunesmith")
        log.info("Pushed %d files to %s: commit %s.", len(files), hub.name, commit)
        result["hub"] = {"repoId": hub.name, "commit": commit, "private": hub.private}
        shutil.rmtree(self._new / EXPORT, ignore_errors=True)
        self._write(result)
        return self._publish(manifest, {"hub": _pushed(spec.export)})

    def _place(self, key: str) -> Path:
        return self._session.folder / FINAL_MODEL if key == FINAL_MODEL else self._new / key

    def _fetch(self, manifest: Manifest, wanted: Callable[[str], bool]) -> None:
        """Fetch files of the output that are not among the new ones already."""
        fetch_matching(
            self._store,
            manifest,
            self._new,
            lambda key: wanted(key) and not (self._new / key).is_file(),
            lambda _: self._session.hang_detector.beat(),
        )

    def _keep(self, forms: Sequence[Form]) -> None:
        """Move the forms among the new files, and write them into result and report."""
        result = json.loads((self._new / RESULT_KEY).read_text("utf-8"))
        for form in forms:
            if form.key != FINAL_MODEL:
                place = self._new / form.key
                place.parent.mkdir(parents=True, exist_ok=True)
                form.path.rename(place)
        replaced = {_name(form) for form in forms}
        before = [each for each in result.get(_EXPORTS, []) if each["name"].split()[0] not in replaced]
        result[_EXPORTS] = [*before, *({"name": form.name, "key": form.key, **form.facts} for form in forms)]
        self._write(result)
        said = [{"name": each["name"], "equalTokens": each["equalTokens"]} for each in result[_EXPORTS]]
        self._session.progress.update(exports=said)

    def _write(self, result: Mapping[str, Any]) -> None:
        write_result(self._new, result)
        path = self._new / REPORT_DATA_KEY
        if not path.is_file():  # an earlier version kept no values of its report
            return
        data = json.loads(path.read_text("utf-8"))
        write_report(self._new, {**data, "exports": result.get(_EXPORTS, []), "hub": result.get("hub")})

    def _publish(self, old: Manifest, added: Mapping[str, Any]) -> str:
        """Add the new files and these entries about exports to the output."""
        self._enter("publishing")
        extra = {**old.extra, _EXPORTS: {**old.extra.get(_EXPORTS, {}), **added}}
        replaced = tuple(f"{EXPORT}/{name}/" for name in added if name != "hub")
        return republish(
            self._store,
            self._new,
            old,
            EXPORTING,
            extra,
            within=ADDED_LATER,
            kept=f"{FINAL_MODEL}/",
            also=lambda key: not key.startswith(replaced) if replaced else True,
            direct=f"{EXPORT}/",
            progress=lambda _: self._session.hang_detector.beat(phase="publishing"),
        )

    def _enter(self, phase: str) -> None:
        self._session.stop.check()
        self._session.hang_detector.beat(phase=phase)
        self._session.progress.update(phase=phase)


def try_gguf(forms: Forms, quantization: str) -> Form:
    """Return the GGUF form; one that cannot be made fails alone, so that the others are published."""
    try:
        return forms.gguf(quantization)
    except ModelError as error:
        return Form(f"gguf {quantization}", "", Path(), failure=error.message.removesuffix("."))


def _name(form: Form) -> str:
    return form.name.split()[0]


def _said(form: Form) -> Any:
    """Return what the manifest says of a form: of a GGUF file its quantisation."""
    return form.facts["type"] if _name(form) == "gguf" else form.key
