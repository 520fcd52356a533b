"""The kinds of objects that make the pods of an attempt, and which of them the next attempt gets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.api.common import JobSpec
from tunesmith.names import Backend
from tunesmith.plan import pytorchjob, trainjob
from tunesmith.plan.attempt_object import AttemptObject
from tunesmith.plan.objects import Object, get
from tunesmith.plan.pod_template import AttemptSpec
from tunesmith.plan.runtimes import Runtime, TrainingRuntime


@dataclass(frozen=True, slots=True)
class BackendKind:
    """How one kind of object is made, changed and read."""

    group: str
    version: str
    plural: str
    make: Callable[[AttemptSpec], dict[str, Any]]
    read: Callable[[Object], AttemptObject]
    suspension: Callable[[bool], dict[str, Any]]
    """Of a spec: the change that suspends or resumes."""
    template_of: Callable[[Runtime], TrainingRuntime | None] = lambda runtime: None
    """The object that has the pods' template, where that is another one."""
    unfit: Callable[[Object, JobSpec, Runtime], Iterator[str]] = lambda *_: iter(())
    """What that object lacks of what pods need, in words."""
    dropped: Callable[[JobSpec, Runtime], Iterator[str]] = lambda *_: iter(())
    """What of a runtime's pod template would not reach the pods, in words."""

    @property
    def api_version(self) -> str:
        """Return its API group with the version."""
        return f"{self.group}/{self.version}"


BACKENDS: Mapping[Backend, BackendKind] = {
    Backend.PYTORCH_JOB: BackendKind(
        pytorchjob.GROUP,
        pytorchjob.VERSION,
        pytorchjob.PLURAL,
        pytorchjob.pytorchjob,
        pytorchjob.read,
        pytorchjob.suspension,
    ),
    Backend.TRAIN_JOB: BackendKind(
        trainjob.GROUP,
        trainjob.VERSION,
        trainjob.PLURAL,
        trainjob.trainjob,
        trainjob.read,
        trainjob.suspension,
        lambda runtime: runtime.training_runtime,
        trainjob.unfit,
        trainjob.dropped,
    ),
}
_INSTALL = {
    Backend.PYTORCH_JOB: "the Kubeflow training operator 1.9, which serves PyTorchJob (kubeflow.org/v1)",
    Backend.TRAIN_JOB: (
        "Kubeflow Trainer 2.3 or newer with JobSet, which serves TrainJob (trainer.kubeflow.org/v1alpha1)"
    ),
}


def read(body: Object) -> AttemptObject:
    """Return what an object of any of these kinds says."""
    return BACKENDS[Backend(str(get(body, "kind")))].read(body)


def choose(wanted: Backend | None, served: Collection[Backend]) -> Backend | None:
    """Return the kind of the next attempt's object: the wanted one, else the first, if it is served."""
    return next((one for one in Backend if one in served and wanted in (None, one)), None)


def how_to_install(wanted: Backend | None) -> str:
    """Return what to install where nothing that may be used is served, in words."""
    kinds = [one for one in Backend if wanted in (None, one)]
    install = ", or ".join(_INSTALL[kind] for kind in kinds)
    return f"The cluster serves no {' and no '.join(kinds)}. Install {install}."
