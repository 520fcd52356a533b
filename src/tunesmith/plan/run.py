"""run.json: the whole input of the pod's program.

The same bytes are written for a laptop and for a cluster: no endpoint of a local server, no port, no device
count. The program parses it with the same classes as the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.api.common import FromJob, GenerationRunSpec, JobSpec
from tunesmith.api.manifest import SPECS, Job
from tunesmith.api.references import Key, references, target_key
from tunesmith.api.rules import Rules, rules_from
from tunesmith.errors import ManifestError, Problem
from tunesmith.names import FINAL_MODEL, MESSAGES_KEY, SAMPLED_DATA_KEY, Kind, checkpoint_key
from tunesmith.plan.growth import GROWTH, NO_GROWTH, Growth, without
from tunesmith.plan.models import model_names

# Parts of a spec about where and how often it runs, not about what it does.
_OUTSIDE = ("resources", "placement", "runtime", "run")
# Parts that change nothing in the result; the rest makes up the fingerprint.
_OPERATIONAL = ("storage", "hub", "tracking", "output", "maxFailedRatio", "export")
# Parts of a FineTuneJob that change nothing in its weights: they only evaluate the model.
_LOOKED_AT = ("compareWith", "evaluation", "previews")
# The same for a DialogueGenJob: how much may be spent and how fast, not what is requested.
_OF_DIALOGUES = ("budget", "dryRun")
_OF_ENDPOINTS = ("limits", "price")
# And for an engine or a server: its layout on the machine, and which of its APIs is used.
_OF_ENGINES = ("tensorParallelSize", "gpuMemoryUtilization", "batchSize", "stuckSeconds", "batch")

# The format that another job's output is read as.
UPSTREAM_KEYS = {
    Kind.FINE_TUNE: FINAL_MODEL,
    Kind.REJECTION_SAMPLE: SAMPLED_DATA_KEY,
    Kind.DIALOGUE_GEN: MESSAGES_KEY,
}


@dataclass(frozen=True, slots=True)
class Run:
    """The resolved job as passed to the pod."""

    kind: Kind
    name: str
    namespace: str
    spec: JobSpec
    models: tuple[str, ...] = ()
    """Short names of the model and those it is compared with, if there are several."""
    rules: Rules | None = None
    """What the job may open, if an administrator decides; the pod's program enforces it."""
    out_of_memory: tuple[int, ...] = ()
    """The job's attempts so far that ended since memory ran out, as whoever started them saw it."""

    def to_json(self) -> str:
        """Return the text of run.json: the same bytes for the same run, and readable."""
        spec = {key: value for key, value in self.spec.to_json().items() if key not in _OUTSIDE}
        document = {
            "version": 1,
            "kind": self.kind,
            "name": self.name,
            "namespace": self.namespace,
            "spec": {**spec, **({"run": {"retryFailed": True}} if self.retry_failed else {})},
            **({"models": list(self.models)} if self.models else {}),
            **({"rules": self.rules.to_json()} if self.rules else {}),
            **({"outOfMemory": list(self.out_of_memory)} if self.out_of_memory else {}),
        }
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def retry_failed(self) -> bool:
        """Return whether failed dialogues of the output are retried."""
        return isinstance(self.spec.run, GenerationRunSpec) and self.spec.run.retry_failed

    def result_fields(self, *, defaults: bool = True) -> dict[str, Any]:
        """Return what of the spec changes results, as plain JSON values; optionally without defaults."""
        spec = self.spec.to_json(defaults=defaults)
        fields = {key: value for key, value in spec.items() if key not in _OUTSIDE + _OPERATIONAL}
        if "endpoints" in fields:
            fields = {key: value for key, value in fields.items() if key not in _OF_DIALOGUES}
            fields["endpoints"] = {
                name: _engine_fields({k: v for k, v in each.items() if k not in _OF_ENDPOINTS})
                for name, each in fields["endpoints"].items()
            }
        if "engine" in fields:
            fields["engine"] = _engine_fields(fields["engine"])
        if "evaluation" in fields:
            fields["evaluation"] = [
                {**each, "engine": _engine_fields(each["engine"])} if each.get("engine") else each
                for each in fields["evaluation"]
            ]
        return fields

    def lasting_fields(self) -> dict[str, Any]:
        """Return the `result_fields` without those that may grow: what all runs over an output share.

        Without defaults, so that a field of a later version changes nothing.
        """
        return without(self.result_fields(defaults=False), self.growth().fields)

    def growth(self) -> Growth:
        """Return the fields of `result_fields` that may grow over an existing output."""
        return GROWTH.get(self.kind, NO_GROWTH)

    def looked_at(self) -> dict[str, Any]:
        """Return the part of `result_fields` that changes no weights, but only how the model is evaluated."""
        return {key: value for key, value in self.result_fields().items() if key in _LOOKED_AT}


def _engine_fields(engine: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in settings.items() if key not in _OF_ENGINES}
        for name, settings in engine.items()
    }


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def parse_run(text: str | bytes) -> Run:
    """Parse the Run that `to_json` wrote."""
    document = json.loads(text)
    kind = Kind(document["kind"])
    # The number of GPUs is not recorded: 0 stands for that, and the rules about it allow 0.
    spec = SPECS[kind].model_validate({**document["spec"], "resources": {"gpusPerNode": 0}})
    rules = rules_from(document["rules"]) if "rules" in document else None
    models, short = (tuple(document.get(key, ())) for key in ("models", "outOfMemory"))
    return Run(kind, document["name"], document["namespace"], spec, models, rules, short)


def upstream_uri(target: FromJob, output: str) -> str:
    """Return the address of a `fromJob`, below the other job's output.uri."""
    part = (
        UPSTREAM_KEYS[Kind(target.kind)] if target.checkpoint is None else checkpoint_key(target.checkpoint)
    )
    return f"{output.rstrip('/')}/{part}"


def resolve(job: Job, outputs: Mapping[Key, str]) -> Run:
    """Return the job with every `fromJob` replaced by an address; `outputs` maps jobs to their output.uri.

    Raises ManifestError if a referenced job is not in `outputs`.
    """
    spec, problems = job.spec.to_json(), []
    for ref in references(job):
        key = target_key(job, ref)
        if key in outputs:
            holder: Any = spec
            for part in ref.keys[:-1]:
                holder = holder[part]
            del holder[ref.keys[-1]]
            holder["uri"] = upstream_uri(ref.target, outputs[key])
        else:
            message = f"{ref.target.kind} {ref.target.name} is not among the manifests given"
            problems.append(Problem(job.source, job.document, job.subject, ref.path, message))
    if problems:
        raise ManifestError(problems)
    resolved = type(job.spec).model_validate(spec)
    return Run(job.kind, job.name, job.metadata.namespace, resolved, model_names(job.spec))
