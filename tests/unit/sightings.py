"""Jobs, PyTorchJobs and pods as `next_state` sees them, and an operator's loop without a cluster."""

import copy
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from admission import refusals
from good_manifests import FINE_TUNE, changed

from tunesmith import names
from tunesmith.api.manifest import parse_document
from tunesmith.api.status import JobStatus
from tunesmith.plan import pytorchjob
from tunesmith.plan.observed_state import ObservedState
from tunesmith.plan.transition import next_state

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
DIGEST = "ab" * 32
PUBLISHED = {"reason": "Succeeded", "manifest": DIGEST, "progress": {"step": 9, "total": 9}}
GRACE = 120
ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "tunesmith.dev_finetunejobs.yaml").read_text())


def job(nodes=1, **run):
    changes = {f"spec.run.{key}": value for key, value in run.items()}
    return parse_document(changed(FINE_TUNE, changes | {"spec.resources.nodes": nodes}), "", 0)


def stamp(seconds=0.0):
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def child(attempt=1, *true, at=-60, suspend=None, ours=False, labels=None):
    """A PyTorchJob with these conditions, true since `at` seconds from NOW."""
    return {
        "metadata": {
            "name": f"tune-ftj-{attempt}",
            "uid": f"child-{attempt}",
            "labels": {names.LABEL_ATTEMPT: str(attempt), **(labels or {})},
            "annotations": {names.ANNOTATION_SUSPENDED: "true"} if ours else {},
        },
        "spec": {"runPolicy": {} if suspend is None else {"suspend": suspend}},
        "status": {
            "conditions": [
                {"type": "Created", "status": "True", "lastTransitionTime": stamp(at)},
                *({"type": t, "status": "True", "lastTransitionTime": stamp(at)} for t in true),
            ]
        },
    }


def pod(
    attempt=1,
    *,
    word=None,
    code=0,
    reason="",
    kind="master",
    index=0,
    at=-60,
    state=None,
    deleted=None,
    disrupted="",
    **status,
):
    """A pod that has ended, unless `state` says otherwise.

    `deleted` is when somebody deleted it, in seconds from NOW; `disrupted` says how it was disrupted.
    """
    terminated = {"exitCode": code, "reason": reason, "finishedAt": stamp(at)}
    if word is not None:
        terminated["message"] = word if isinstance(word, str) else json.dumps(word)
    name = f"tune-ftj-{attempt}"
    if disrupted:
        target = {"type": "DisruptionTarget", "status": "True", "message": disrupted}
        status["conditions"] = [target | {"lastTransitionTime": stamp(at)}]
    grace = {} if deleted is None else {"deletionGracePeriodSeconds": GRACE}
    return {
        "metadata": {
            **({"deletionTimestamp": stamp(deleted + GRACE)} if grace else {}),
            **grace,
            "name": f"{name}-{kind}-{index}",
            "labels": {
                "training.kubeflow.org/job-name": name,
                "training.kubeflow.org/replica-type": kind,
            },
        },
        "status": {
            "containerStatuses": [{"name": "pytorch", "state": state or {"terminated": terminated}}],
            **status,
        },
    }


def seen(
    status=None,
    *,
    children=(),
    pods=(),
    orphaned_pods=(),
    config_maps=None,
    others=None,
    progress=None,
    events=(),
    backlog=None,
    at=0.0,
    generation=1,
    **run,
):
    """A sight of one job; without a word each child has its ConfigMap."""
    names = {child["metadata"]["name"] for child in children} if config_maps is None else config_maps
    return ObservedState(
        job=job(**run),
        uid="uid",
        generation=generation,
        status=status or {},
        children=[pytorchjob.read(child) for child in children],
        pods=list(pods),
        orphaned_pods=list(orphaned_pods),
        config_maps=names,
        others=others or {},
        progress=progress,
        now=NOW + timedelta(seconds=at),
        events=list(events),
        backlog=backlog or {},
    )


def look(*arguments, **options):
    """`next_state`, with a check that its status is right and that looking again changes nothing more."""
    observed = seen(*arguments, **options)
    before = copy.deepcopy(observed.status)
    following = next_state(observed)
    assert observed.status == before
    check(following.status)
    if following.create is None:
        again = next_state(dataclasses.replace(observed, status=following.status))
        assert again.status == following.status
        assert again.create is None
    return following


def check(status):
    """A status is right by the model and by the CRD."""
    JobStatus.model_validate(status, by_alias=True, by_name=False)
    document = {**copy.deepcopy(FINE_TUNE), "status": json.loads(json.dumps(status))}
    assert refusals(CRD, document) == []
    json.dumps(status, ensure_ascii=False).encode()


def conditions(status):
    return {c["type"]: c for c in status["conditions"]}


def truths(status):
    return {c["type"]: c["status"] == "True" for c in status["conditions"]}


def times(status):
    return {c["type"]: c["lastTransitionTime"] for c in status["conditions"]}
