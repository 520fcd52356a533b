"""Requirements of a job where it runs: Python packages, verifiers that load, and files that exist.

Pure: `jobs.preflight` checks whether they are met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.api.base import Model
from tunesmith.api.common import JobSpec
from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.generation import EngineSpec, VerifierSpec
from tunesmith.api.rejection import RejectionSampleSpec

_VLLM = "pip install 'tunesmith[vllm]', or use transformers: {} instead of vllm"


@dataclass(frozen=True, slots=True)
class Package:
    """A package that a field of the manifest requires: the module to import, and how to install it."""

    field: str
    module: str
    remedy: str


def packages(spec: JobSpec) -> Iterator[Package]:
    """Yield the optional packages that a job will import, with the field that requires each."""
    if isinstance(spec, FineTuneSpec):
        yield from _of_training(spec)
        for number, evaluation in enumerate(spec.evaluation):
            yield from _of_engine(evaluation.engine, f"evaluation[{number}].engine")
            yield from _of_verifier(evaluation.verifier, f"evaluation[{number}].verifier")
    if isinstance(spec, RejectionSampleSpec):
        yield from _of_engine(spec.engine, "engine")
        yield from _of_verifier(spec.verifier, "verifier")
    if isinstance(spec, DialogueGenSpec):
        for name, endpoint in spec.endpoints.items():
            if endpoint.openai is not None:
                yield Package(f"endpoints.{name}.openai", "httpx2", _extra("train"))
            if endpoint.vllm is not None:
                yield Package(f"endpoints.{name}.vllm", "vllm", _VLLM)


def _extra(name: str) -> str:
    return f"pip install 'tunesmith[{name}]'"


def _of_training(spec: FineTuneSpec) -> Iterator[Package]:
    if spec.tracking.wandb is not None:
        yield Package("tracking.wandb", "wandb", f"{_extra('wandb')}, or remove tracking.wandb")
    if spec.tracking.mlflow is not None:
        yield Package("tracking.mlflow", "mlflow", f"{_extra('mlflow')}, or remove tracking.mlflow")
    if spec.tracking.tensorboard:
        yield Package(
            "tracking.tensorboard", "tensorboard", f"{_extra('train')}, or set tracking.tensorboard: false"
        )
    if spec.method.qlora is not None:
        yield Package("method.qlora", "bitsandbytes", f"{_extra('train')}, or use method.lora")
    elif spec.training.optimizer.startswith("paged"):
        yield Package("training.optimizer", "bitsandbytes", f"{_extra('train')}, or use adamw_torch")
    if spec.export is not None and spec.export.gguf is not None:
        for module in ("gguf", "xllamacpp"):
            yield Package("export.gguf", module, f"{_extra('gguf')}, or remove export.gguf")
    if spec.deepspeed is not None:
        yield Package("deepspeed", "deepspeed", f"{_extra('train')}, or remove deepspeed")


def _of_engine(engine: EngineSpec | None, field: str) -> Iterator[Package]:
    if engine is not None and engine.vllm is not None:
        yield Package(f"{field}.vllm", "vllm", _VLLM)


def _of_verifier(verifier: VerifierSpec | None, field: str) -> Iterator[Package]:
    if verifier is not None and verifier.json_schema is not None:
        yield Package(f"{field}.jsonSchema", "jsonschema", _extra("data"))
    if verifier is not None and verifier.regex is not None:
        yield Package(f"{field}.regex", "regex", _extra("data"))


def verifiers(spec: JobSpec) -> Iterator[tuple[str, VerifierSpec]]:
    """Yield the verifiers in a manifest, with their fields."""
    if isinstance(spec, RejectionSampleSpec) and spec.verifier is not None:
        yield "verifier", spec.verifier
    if isinstance(spec, FineTuneSpec):
        for number, evaluation in enumerate(spec.evaluation):
            if evaluation.verifier is not None:
                yield f"evaluation[{number}].verifier", evaluation.verifier


def input_uris(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield every storage address that a job reads, with its field: `uri` and every field ending in `Uri`."""
    document = {key: value for key, value in spec.to_json().items() if key not in ("output", "tracking")}
    yield from _uris(document, "")


def uris_of(part: Model) -> list[str]:
    """Return every storage address in one part of a manifest."""
    return [uri for _, uri in _uris(part.to_json(), "")]


def _uris(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            field = f"{path}.{key}" if path else key
            if isinstance(value, str) and (key == "uri" or key.endswith("Uri")):
                if not value.startswith("hf://"):
                    yield field, value
            else:
                yield from _uris(value, field)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _uris(value, f"{path}[{number}]")
