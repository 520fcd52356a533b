"""The S3 that a command on this machine uses, and uploading seeds to it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tunesmith.api.addresses import OutputUri
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key, model_sources, references, target_key
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions, Store, storage_options
from tunesmith.artifacts.transfer import FileInfo, describe, describe_file, put_files
from tunesmith.engines.adapter import base_source, is_adapter
from tunesmith.engines.load import local_path
from tunesmith.errors import UsageError
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.names import secret_env
from tunesmith.plan.build import output_uris
from tunesmith.plan.run import upstream_uri

# Any of these says that the user has their own S3.
AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SeedUpload = tuple[str, Path]


def own_s3(environment: Mapping[str, str]) -> str | None:
    """Return the environment variable that says that the user has their own S3, if there is one."""
    return next((name for name in AWS_VARIABLES if environment.get(name)), None)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def s3_uris(job: Job, outputs: Mapping[Key, str]) -> set[str]:
    """Return every s3:// address in a job's spec, of the jobs it refers to and of a local adapter's base.

    `outputs` are the jobs' output.uri.
    """
    others = [
        upstream_uri(ref.target, outputs[key])
        for ref in references(job)
        if (key := target_key(job, ref)) in outputs
    ]
    models = [model.uri for model in model_sources(job) if model.uri is not None]
    texts = (*_texts(job.spec.to_json()), *others, *bases_of([*models, *others]))
    return {text for text in texts if text.startswith("s3://")}


def bases_of(models: Iterable[str]) -> Iterator[str]:
    """Yield the addresses of the base models of those that are adapters on this machine."""
    for uri in models:
        folder = local_path(uri)
        if folder is not None and is_adapter(folder):
            yield base_source(folder).uri or ""


def credentials(job: Job, environment: Mapping[str, str]) -> dict[str, str]:
    """Storage credentials given as a Secret's variables, under the names the S3 client knows."""
    ref = job.spec.storage.secret_ref
    if ref is None:
        return {}
    given = {key: environment.get(secret_env(ref.name, key)) for key in _KEYS}
    return {key: value for key, value in given.items() if value}


def has_own_s3(job: Job, environment: Mapping[str, str]) -> bool:
    """Return whether anything says that s3:// is not the embedded server for this job."""
    return bool(job.spec.storage.endpoint_url or own_s3(environment) or credentials(job, environment))


def own_s3_in_words(job: Job, environment: Mapping[str, str]) -> str:
    """Return where s3:// leads for a job that does not use the embedded server, and what says so."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    where = job.spec.storage.endpoint_url or endpoint or "AWS"
    if job.spec.storage.endpoint_url:
        return f"{where} (storage.endpointUrl)"
    name = own_s3(environment)
    return f"{where} ({name} is set)" if name else f"{where} (the Secret of storage.secretRef is set)"


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while: this is how S3 clients of this process find their server."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def parse_seed(text: str) -> SeedUpload:
    """Parse `s3://bucket/key=PATH` into address and path. Raises UsageError."""
    uri, _, place = text.partition("=")
    if not uri.startswith("s3://") or not uri.removeprefix("s3://").partition("/")[2] or not place:
        raise UsageError(f"--seed {text}: write s3://bucket/key=PATH.")
    try:
        TypeAdapter(OutputUri).validate_python(uri)
    except ValidationError as error:
        raise UsageError(f"--seed {text}: {error.errors()[0]['ctx']['error']}.") from None
    path = Path(place).expanduser()
    if not path.exists():
        raise UsageError(f"--seed {text}: there is no file or folder {path}.")
    return uri, path


def put_seed(uri: str, path: Path, options: StorageOptions) -> None:
    """Put a file, or the files of a folder, at an address; a file goes into an address ending with `/`.

    Files that exist there with the same content are not sent again.
    """
    if path.is_dir():
        store = open_store(uri, options)
        put_files(store, path, "", [file for file in describe(path) if not _is_there(store, file)])
        return
    parent, _, name = uri.rpartition("/")
    store = open_store(parent, options)
    if not _is_there(store, describe_file(path, name or path.name)):
        store.put_file(name or path.name, path)


def _is_there(store: Store, file: FileInfo) -> bool:
    if store.size(file.key) != file.size:
        return False
    digest = hashlib.sha256()
    with store.open(file.key) as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


@dataclass(frozen=True, slots=True)
class RunStorage:
    """The S3 of a run: the embedded server if any job means it, and which jobs those are."""

    server: EmbeddedS3 | None
    embedded: frozenset[Key]
    other: Job | None
    """The first job whose s3:// addresses are on another server."""

    def environment(self, job: Job) -> dict[str, str]:
        """Return variables by which this job's processes find their S3, with no other credentials."""
        if self.server is not None and job.key in self.embedded:
            return self.server.environment()
        return credentials(job, os.environ)

    def put(self, seeds: Iterable[SeedUpload]) -> None:
        """Put seeds into the embedded server, or where the other jobs' s3:// addresses lead."""
        given: Mapping[str, str] = {}
        options = StorageOptions()
        if self.server is not None:
            given = self.server.environment()
        elif self.other is not None:
            given, options = credentials(self.other, os.environ), storage_options(self.other.spec.storage)
        with variables(given):
            for uri, path in seeds:
                put_seed(uri, path, options)


@contextmanager
def run_storage(jobs: Sequence[Job], seeds: Sequence[SeedUpload], folder: Path) -> Iterator[RunStorage]:
    """Yield the storage of some jobs; if one uses the embedded server, that runs and has their buckets."""
    outputs = output_uris(jobs)
    uris = {job.key: s3_uris(job, outputs) for job in jobs}
    others = [job for job in jobs if uris[job.key] and has_own_s3(job, os.environ)]
    embedded = [job for job in jobs if uris[job.key] and job not in others]
    alone = bool(seeds) and not others and not own_s3(os.environ)
    with EmbeddedS3(folder) if embedded or alone else nullcontext() as server:
        if server is not None:
            make_buckets(
                server, {uri for job in embedded for uri in uris[job.key]} | {uri for uri, _ in seeds}
            )
        yield RunStorage(server, frozenset(job.key for job in embedded), others[0] if others else None)


def make_buckets(server: EmbeddedS3, uris: Iterable[str]) -> None:
    """Create the buckets of these addresses."""
    for bucket in sorted({uri.removeprefix("s3://").partition("/")[0] for uri in uris}):
        server.create_bucket(bucket)


@contextmanager
def embedded_for(uris: Sequence[str], folder: Path) -> Iterator[None]:
    """Yield the embedded server while these addresses are used, if one is an s3:// address that means it."""
    wanted = [uri for uri in uris if uri.startswith("s3://")]
    if not wanted or own_s3(os.environ):
        yield
        return
    with EmbeddedS3(folder) as server:
        make_buckets(server, wanted)
        with variables(server.environment()):
            yield
