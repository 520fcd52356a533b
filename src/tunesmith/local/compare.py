"""`tunesmith compare`: find the outputs that are meant, read them, and show how they differ.

An output is given by its address, by its folder, or by a manifest that names it. Does not depend on what is
compared (`report.comparison`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from tunesmith.api.manifest import Job
from tunesmith.artifacts.store import StorageOptions, storage_options
from tunesmith.errors import UsageError
from tunesmith.local.compare_table import print_comparison
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.local.manifests import load_jobs
from tunesmith.local.read_output import is_output, read_output
from tunesmith.local.storage import credentials, has_own_s3, make_buckets, own_s3, variables
from tunesmith.local.workdir import WorkDir, shown_path
from tunesmith.names import FINGERPRINT_KEY
from tunesmith.report.comparison import ComparedOutput, compare_outputs
from tunesmith.report.comparison_page import GENERATOR, render_comparison

_MANIFESTS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """Where an output is, and the job that names it, if a manifest was given."""

    uri: str
    job: Job | None = None

    @property
    def embedded(self) -> bool:
        """Return whether it is in the embedded S3."""
        own = has_own_s3(self.job, os.environ) if self.job else bool(own_s3(os.environ))
        return self.uri.startswith("s3://") and not own

    @property
    def name(self) -> str:
        """Return what to call it while its own name is not known."""
        return self.job.name if self.job else self.uri.rstrip("/").rpartition("/")[2]

    @property
    def options(self) -> StorageOptions:
        """Return how its storage is reached."""
        return storage_options(self.job.spec.storage) if self.job else StorageOptions()


def find_outputs(arguments: Sequence[str]) -> list[OutputPlace]:
    """Return the outputs that are meant, in the order given. Raises UsageError if there are not two."""
    places = [place for argument in arguments for place in _find(argument)]
    unique = list({place.uri.rstrip("/"): place for place in places}.values())
    if len(unique) < 2:
        found = f" Only one was given: {unique[0].uri}." if unique else ""
        raise UsageError(f"A comparison needs two different outputs or more.{found}")
    return unique


def _find(argument: str) -> list[OutputPlace]:
    if "://" in argument:
        return [OutputPlace(argument)]
    path = Path(argument).expanduser()
    if path.is_file() and path.suffix in _MANIFESTS:
        return [OutputPlace(job.spec.output.uri, job) for job in load_jobs([path])]
    if path.is_dir() and not (path / FINGERPRINT_KEY).exists() and _has_manifests(path):
        return [OutputPlace(job.spec.output.uri, job) for job in load_jobs([path])]
    if path.is_dir():
        return [OutputPlace(path.absolute().as_uri())]
    raise UsageError(
        f"{argument} is neither a folder, nor an address such as s3://models/mine, nor a manifest (.yaml)."
    )


def _has_manifests(path: Path) -> bool:
    return any(each.suffix in _MANIFESTS for each in path.iterdir())


def read_outputs(
    places: Sequence[OutputPlace], work_dir: Path, tell: Callable[[str], None]
) -> list[ComparedOutput]:
    """Read all outputs, each from its own storage. Raises UsageError if they are of different kinds.

    Jobs of a manifest that have not begun are left out, and told.
    """
    embedded = [place.uri for place in places if place.embedded]
    with EmbeddedS3(WorkDir(work_dir).s3) if embedded else nullcontext() as server:
        if server is not None:
            make_buckets(server, embedded)
        outputs, missing = [], []
        for place in places:
            environment: Mapping[str, str] = credentials(place.job, os.environ) if place.job else {}
            if server is not None and place.embedded:
                environment = server.environment()
            with variables(environment):
                if place.job is not None and not is_output(place.uri, place.options):
                    missing.append(place)
                    continue
                outputs.append(read_output(place.uri, place.name, place.options))
    if len(outputs) < 2:
        raise UsageError(f"Too few outputs exist to be compared: {_listed(missing)} not there yet.")
    if missing:
        tell(f"not there yet, left out: {_listed(missing)}")
    refuse_different_kinds(outputs)
    return with_unique_names(outputs)


def _listed(places: Sequence[OutputPlace]) -> str:
    return ", ".join(f"{place.name} ({place.uri})" for place in places)


def refuse_different_kinds(outputs: Sequence[ComparedOutput]) -> None:
    """Raise UsageError if the outputs cannot be compared with each other."""
    other = next((each for each in outputs if each.kind != outputs[0].kind), None)
    if other is not None:
        raise UsageError(
            f"Outputs of different kinds cannot be compared: {outputs[0].uri} is of a {outputs[0].kind}, "
            f"{other.uri} of a {other.kind}."
        )


def with_unique_names(outputs: Sequence[ComparedOutput]) -> list[ComparedOutput]:
    """Return the outputs, those of one name with the last part of their address, or a number, added."""
    named: list[ComparedOutput] = []
    for output in outputs:
        taken = {each.name for each in named}
        same = sum(each.name == output.name for each in outputs) > 1
        folder = output.uri.rstrip("/").rpartition("/")[2]
        name = f"{output.name} ({folder})" if same and folder != output.name else output.name
        number = 2
        while name in taken:
            name, number = f"{output.name} ({number})", number + 1
        named.append(_renamed(output, name))
    return named


def _renamed(output: ComparedOutput, name: str) -> ComparedOutput:
    return replace(output, name=name)


def compare(
    arguments: Sequence[str],
    html: Path,
    work_dir: Path,
    as_json: bool,
    console: Console,
    tell: Callable[[str], None],
) -> int:
    """Compare outputs: a table in the terminal and a page, or JSON. Return the exit code."""
    places = find_outputs(arguments)
    if not as_json:
        refuse_foreign(html)
    values = compare_outputs(read_outputs(places, work_dir, tell))
    if as_json:
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return 0
    print_comparison(console, values)
    html.write_text(render_comparison(values), "utf-8")
    console.print(f"Page     {shown_path(html)}", soft_wrap=True, markup=False)
    return 0


def refuse_foreign(path: Path) -> None:
    """Raise UsageError if a file that this command has not written would be overwritten."""
    if path.exists() and GENERATOR not in path.read_text("utf-8", "replace")[:2000]:
        raise UsageError(f"{path} exists and is no page of `tunesmith compare`: choose another with --html.")
