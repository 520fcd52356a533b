"""`tunesmith export`: other forms of a model that is there already, each proved before it is kept."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.api.export import ExportSpec, GgufExport, HubExport, MergedExport
from tunesmith.artifacts.hub.push import HubRepository, check_push, push
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.files import ModelFiles, ModelNames, fetch_files, model_digest
from tunesmith.engines.load import model_config
from tunesmith.errors import ModelError, PermanentError, UsageError
from tunesmith.export.forms import Form, Forms, Subject
from tunesmith.export.refuse import refuse_forms
from tunesmith.export.repository import CardFacts, licence, repository_files
from tunesmith.export.served import serving_engine
from tunesmith.figures import decimal_size
from tunesmith.local.export_place import ExportPlace
from tunesmith.local.overrides import absolute
from tunesmith.local.storage import bases_of, embedded_for
from tunesmith.local.workdir import WorkDir
from tunesmith.names import EXPORT, FINAL_MODEL, Reason
from tunesmith.plan.models import model_key, name_of_address

FORMS = ("merged", "gguf", "hub")
_FACTS = "export.json"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The command's arguments."""

    model: str
    to: Sequence[str]
    base: str | None = None
    quantization: str = "Q8_0"
    repo_id: str | None = None
    private: bool = True
    output: str | None = None
    name: str | None = None
    work_dir: Path = Path(".tunesmith")


def export_model(options: ExportOptions, console: Console) -> int:
    """Make, prove and keep the forms. Return the exit code.

    Raises UsageError for arguments that do not fit, PermanentError if a form is not the model.
    """
    wanted, source = requested(options), source_of(options)
    name = model_key(options.name or name_of_address(source.adapter_uri or source.uri or "model"))
    output = None if options.output is None else absolute(options.output)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tunesmith-export-")))
        stack.enter_context(embedded_for(addresses(source, output), WorkDir(options.work_dir).s3))
        place = None if output is None else ExportPlace(open_store(output, StorageOptions()))
        if place is not None:
            place.refuse_other()
        hub = None if wanted.hub is None else _repository(wanted.hub)
        if hub is not None:
            check_push(hub)
        files = fetched(options, source, scratch / "model")
        quantization = wanted.gguf.quantization if wanted.gguf else None
        refuse_apart(wanted, files)
        refuse_forms(files, merged=wanted.merged is not None, gguf=quantization, folder=scratch)
        what = {"model": model_digest(files), "name": name, "forms": _names(wanted)}
        kept = place is not None and place.has(what)
        if kept and hub is None:
            console.print(f"{options.output} has this export already.")
            return 0
        subject = Subject(files, source, name, date.today())
        made = _make(wanted, subject, scratch / "forms", console)
        if place is not None and made and not kept:
            _keep(made, scratch / "forms", place, what, console)
        if hub is not None:
            _push(hub, files, made, scratch, console)
    return 0


def addresses(source: ModelSource, output: str | None) -> list[str]:
    """Return every address that is read or written, that of an adapter's base too."""
    found = [uri for uri in (source.uri, source.adapter_uri, output) if uri]
    with suppress(ModelError):  # an adapter without a base, which is refused where it is fetched
        found += bases_of(found[:1])
    return found


def fetched(options: ExportOptions, source: ModelSource, folder: Path) -> ModelFiles:
    """Fetch the model. Errors name the command's options, not fields of a manifest."""
    named = "--base" if options.base else "--model"
    names = ModelNames(named, "--model", "Name it with --base.")
    token = os.environ.get("HF_TOKEN")
    files = fetch_files(source, HubSpec(), StorageOptions(), folder, token, names=names)
    if not model_config(files.base):
        inside = (files.base / FINAL_MODEL).is_dir()
        hint = f" It is the output of a job: add /{FINAL_MODEL}." if inside else ""
        raise ModelError(f"{named} {source.uri} has no model: config.json is missing.{hint}")
    return files


def _names(wanted: ExportSpec) -> list[str]:
    gguf = [f"gguf {wanted.gguf.quantization}"] if wanted.gguf else []
    return [*(["merged"] if wanted.merged else []), *gguf]


def refuse_apart(wanted: ExportSpec, files: ModelFiles) -> None:
    """Raise UsageError if a repository would get one adapter of several, which is another model."""
    if wanted.hub is not None and wanted.merged is None and len(files.adapters) > 1:
        raise UsageError("--to hub: the model is two adapters over a base; add --to merged.")


def requested(options: ExportOptions) -> ExportSpec:
    """Return what is asked for, as a manifest has it. Raises UsageError."""
    forms = [each.strip() for text in options.to for each in text.split(",")]
    if "hub" in forms and not os.environ.get("HF_TOKEN"):
        raise UsageError("--to hub needs a token that may write: set HF_TOKEN.")
    unknown = [each for each in forms if each not in FORMS]
    if unknown or not forms:
        raise UsageError(f"--to {', '.join(unknown) or '(missing)'}: choose from {', '.join(FORMS)}.")
    if ("hub" in forms) != (options.repo_id is not None):
        raise UsageError("--to hub and --repo-id ORGANISATION/NAME go together.")
    if "hub" not in forms and options.output is None:
        raise UsageError("--output is missing: a folder, s3://… or file://… for the files.")
    if forms == ["hub"] and options.output is not None:
        raise UsageError("--output is for files of merged and gguf; --to hub alone makes none.")
    quantization = options.quantization.upper()
    try:
        return ExportSpec(
            merged=MergedExport() if "merged" in forms else None,
            gguf=GgufExport.model_validate({"quantization": quantization}) if "gguf" in forms else None,
            hub=HubExport(repo_id=options.repo_id, private=options.private) if options.repo_id else None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = "--repo-id" if "repo" in str(first["loc"][-1]) else "--quantization"
        raise UsageError(f"{option}: {first['msg'].removeprefix('Value error, ')}.") from None


def source_of(options: ExportOptions) -> ModelSource:
    """Return the model of the options. Raises UsageError."""
    model = absolute(options.model)
    try:
        if options.base is None:
            return ModelSource(uri=model)
        return ModelSource(uri=absolute(options.base), adapter_uri=model)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"--model {options.model}: {message}.") from None


def _make(wanted: ExportSpec, subject: Subject, folder: Path, console: Console) -> list[Form]:
    """Return the forms, all of which are proved. Raises PermanentError naming one that is not the model."""
    made = []

    def enter(phase: str) -> None:
        console.print(f"{phase} …")

    with Forms(subject, folder, [], enter, lambda: None, serving_engine([])) as forms:
        if wanted.merged is not None:
            made.append(forms.merged())
        if wanted.gguf is not None:
            made.append(forms.gguf(wanted.gguf.quantization))
    for form in made:
        console.print(sentence(form))
    failed = [f"{form.name}: {form.failure}" for form in made if form.failure]
    if failed:
        raise PermanentError(f"Nothing is exported: {'. '.join(failed)}.", reason=Reason.EXPORT_UNPROVEN)
    return made


def sentence(form: Form) -> str:
    """Return how near a form is to the model, in one line."""
    facts = form.facts
    exact = facts.get("trainingType")
    also = f"; {exact['equalTokens']:.1%} merged in the type of training" if exact else ""
    if served := facts.get("served"):
        also += f"; {served['equalTokens']:.1%} in {served['tool']}"
    return (
        f"{form.name}: {decimal_size(facts['bytes'])}, "
        f"{facts['equalTokens']:.1%} of {facts['tokens']} tokens are those of the model "
        f"({facts['tool']}){also}"
    )


def _keep(
    made: Sequence[Form], folder: Path, place: ExportPlace, what: Mapping[str, Any], console: Console
) -> None:
    """Publish the files at their place, the manifest last."""
    facts = [{"name": form.name, "key": form.key.removeprefix(f"{EXPORT}/"), **form.facts} for form in made]
    (folder / EXPORT / _FACTS).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    place.keep(folder / EXPORT, what)
    for form in made:
        console.print(f"{place.uri}/{form.key.removeprefix(f'{EXPORT}/')}")


def _repository(wanted: HubExport) -> HubRepository:
    token, mirror = os.environ.get("HF_TOKEN"), os.environ.get("HF_ENDPOINT")
    return HubRepository(wanted.repo_id, wanted.private, mirror, token=token)


def _push(
    hub: HubRepository, files: ModelFiles, made: Sequence[Form], scratch: Path, console: Console
) -> None:
    named = files.source.uri or ""
    base = named.removeprefix("hf://") if files.adapters and named.startswith("hf://") else None
    facts = CardFacts(licence(files.source, files.base, hub), base=base)
    found = repository_files(_tuned(files, made), made, scratch, facts)
    console.print(f"pushing {len(found)} files to {hub.name} …")
    console.print(f"{hub.name}, commit {push(hub, found, 'By Tunesmith')}")


def _tuned(files: ModelFiles, made: Sequence[Form]) -> Path:
    """Return the folder that a repository gets; of several adapters only the merged sum is the model."""
    if len(files.adapters) > 1:
        return next(form.path for form in made if form.name == "merged")
    return files.adapters[0] if files.adapters else files.base
