"""Settings of an engine process, as one JSON file: everything but its number and its shards.

Both a RejectionSampleJob and the evaluations of a FineTuneJob start engines with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tunesmith.api.common import ModelSource, StorageSpec
from tunesmith.api.generation import EngineSpec, SamplingSpec, VerifierSpec
from tunesmith.engines.files import ModelFiles, dump_model_files, load_model_files


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`output` has the stored journal; `prompts` and `journal` are folders of this machine."""

    model: ModelSource
    files: ModelFiles
    sampling: SamplingSpec
    engine: EngineSpec
    verifier: VerifierSpec | None
    verifier_path: str
    output: str
    storage: StorageSpec
    job: str
    attempt: int
    pod: int
    prompts: Path
    journal: Path
    day: date
    gguf: Path | None = None
    """A GGUF file of the model, which llama.cpp runs then."""

    def writer(self, engine: int) -> str:
        """Return the journal's name for an engine of this pod."""
        return f"pod-{self.pod}-engine-{engine}"

    def save(self, path: Path) -> None:
        """Write the settings for `load`."""
        value = {
            "model": self.model.to_json(),
            "files": dump_model_files(self.files),
            "sampling": self.sampling.to_json(),
            "engine": self.engine.to_json(),
            "verifier": None if self.verifier is None else self.verifier.to_json(),
            "verifierPath": self.verifier_path,
            "output": self.output,
            "storage": self.storage.to_json(),
            "job": self.job,
            "attempt": self.attempt,
            "pod": self.pod,
            "prompts": str(self.prompts),
            "journal": str(self.journal),
            "day": self.day.isoformat(),
            "gguf": None if self.gguf is None else str(self.gguf),
        }
        path.write_text(json.dumps(value), "utf-8")

    @classmethod
    def load(cls, path: Path) -> EngineSettings:
        """Read what `save` wrote."""
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
        verifier = value["verifier"]
        return cls(
            model=ModelSource.model_validate(value["model"]),
            files=load_model_files(value["files"]),
            sampling=SamplingSpec.model_validate(value["sampling"]),
            engine=EngineSpec.model_validate(value["engine"]),
            verifier=None if verifier is None else VerifierSpec.model_validate(verifier),
            verifier_path=value["verifierPath"],
            output=value["output"],
            storage=StorageSpec.model_validate(value["storage"]),
            job=value["job"],
            attempt=value["attempt"],
            pod=value["pod"],
            prompts=Path(value["prompts"]),
            journal=Path(value["journal"]),
            day=date.fromisoformat(value["day"]),
            gguf=None if value["gguf"] is None else Path(value["gguf"]),
        )
