"""`tunesmith export`: other forms of a model that is there already, each proved before it is kept."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.api.export import ExportSpec, GgufExport, HubExport, MergedExport
from tunesmith.artifacts.hub.push import HubRepository, push
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.files import ModelFiles, fetch_files
from tunesmith.errors import PermanentError, UsageError
from tunesmith.export.forms import Form, Forms, Subject
from tunesmith.export.refuse import refuse_forms
from tunesmith.export.repository import CardFacts, licence, repository_files
from tunesmith.figures import decimal_size
from tunesmith.local.overrides import absolute
from tunesmith.local.storage import embedded_for
from tunesmith.local.workdir import WorkDir
from tunesmith.names import EXPORT, Reason
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
    wanted, source = requested(options), _source(options)
    name = options.name or model_key(name_of_address(source.adapter_uri or source.uri or "model"))
    output = None if options.output is None else absolute(options.output)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tunesmith-export-")))
        for uri in filter(None, (source.uri, source.adapter_uri, output)):
            stack.enter_context(embedded_for(uri, WorkDir(options.work_dir).s3))
        files = fetch_files(
            source, HubSpec(), StorageOptions(), scratch / "model", os.environ.get("HF_TOKEN")
        )
        quantization = wanted.gguf.quantization if wanted.gguf else None
        refuse_forms(files, merged=wanted.merged is not None, gguf=quantization, folder=scratch)
        subject = Subject(files, source, name, date.today())
        made = _make(wanted, subject, scratch / "forms", console)
        if wanted.hub is not None:
            _push(wanted.hub, files, made, scratch, console)
        if output is not None and made:
            _keep(made, scratch / "forms", output, console)
    return 0


def requested(options: ExportOptions) -> ExportSpec:
    """Return what is asked for, as a manifest has it. Raises UsageError."""
    if "hub" in options.to and not os.environ.get("HF_TOKEN"):
        raise UsageError("--to hub needs a token that may write: set HF_TOKEN.")
    unknown = [each for each in options.to if each not in FORMS]
    if unknown or not options.to:
        raise UsageError(f"--to {', '.join(unknown) or '(missing)'}: choose from {', '.join(FORMS)}.")
    if ("hub" in options.to) != (options.repo_id is not None):
        raise UsageError("--to hub and --repo-id ORGANISATION/NAME go together.")
    if set(options.to) - {"hub"} and options.output is None and "hub" not in options.to:
        raise UsageError("--output is missing: a folder, s3://… or file://… for the files.")
    try:
        return ExportSpec(
            merged=MergedExport() if "merged" in options.to else None,
            gguf=GgufExport.model_validate({"quantization": options.quantization})
            if "gguf" in options.to
            else None,
            hub=HubExport(repo_id=options.repo_id, private=options.private) if options.repo_id else None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = "--repo-id" if "repo" in str(first["loc"][-1]) else "--quantization"
        raise UsageError(f"{option}: {first['msg'].removeprefix('Value error, ')}.") from None


def _source(options: ExportOptions) -> ModelSource:
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
    with Forms(subject, folder, [], lambda phase: console.print(f"{phase} …"), lambda: None) as forms:
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
    return (
        f"{form.name}: {decimal_size(facts['bytes'])}, "
        f"{facts['equalTokens']:.1%} of {facts['tokens']} tokens are those of the model "
        f"({facts['tool']}){also}"
    )


def _keep(made: Sequence[Form], folder: Path, output: str, console: Console) -> None:
    """Publish the files at the output's address, the manifest last."""
    place = folder / EXPORT
    facts = [{"name": form.name, "key": form.key.removeprefix(f"{EXPORT}/"), **form.facts} for form in made]
    (place / _FACTS).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    store = open_store(output, StorageOptions())
    publish(store, "", place, extra={"kind": "Export"})
    for form in made:
        console.print(f"{store.uri}/{form.key.removeprefix(f'{EXPORT}/')}")


def _push(
    wanted: HubExport, files: ModelFiles, made: Sequence[Form], scratch: Path, console: Console
) -> None:
    token, mirror = os.environ.get("HF_TOKEN"), os.environ.get("HF_ENDPOINT")
    hub = HubRepository(wanted.repo_id, wanted.private, mirror, token=token)
    tuned = files.adapters[-1] if files.adapters else files.base
    facts = CardFacts(licence(files.source, files.base, hub))
    found = repository_files(tuned, made, scratch, facts)
    console.print(f"pushing {len(found)} files to {hub.name} …")
    console.print(f"{hub.name}, commit {push(hub, found, 'By Tunesmith')}")
