"""Flux, Helm's --wait and `kubectl wait` understand a job, by its conditions and its generation."""

import pytest
from kstatus import kstatus
from sightings import CRD, NOW, check
from tests.cases import each

from tunesmith.names import Phase, Reason
from tunesmith.plan.status import StatusBuilder, refused_status

PHASES = {
    "Pending": ("InProgress", set()),
    "Running": ("Current", {"Ready", "Running"}),
    "Suspended": ("InProgress", {"Suspended"}),
    "Succeeded": ("Current", {"Ready", "Succeeded", "Complete"}),
    "Failed": ("Failed", {"Stalled", "Failed"}),
}


def in_phase(phase, before=None, generation=1):
    builder = StatusBuilder(before, generation, NOW)
    builder.phase(Phase(phase), "Because", "why")
    check(builder.status)
    return builder.status


def of(status, generation=1, **metadata):
    return {"metadata": {"generation": generation, **metadata}, "status": status}


def true(status):
    return {one["type"] for one in status["conditions"] if one["status"] == "True"}


def test_every_phase_is_tried():
    assert set(PHASES) == {str(phase) for phase in Phase}


@each(("phase", "before"), [(phase, before) for phase in PHASES for before in (None, *PHASES)])
def test_each_phase_whatever_was_before(phase, before):
    status = in_phase(phase, before and in_phase(before))
    wanted, conditions = PHASES[phase]
    assert kstatus(of(status)) == wanted
    assert true(status) == {"Accepted"} | conditions


def test_a_job_that_nobody_has_seen_is_in_progress():
    """By the default of the CRD, which also holds if no operator runs."""
    schema = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert kstatus(of(schema["default"])) == "InProgress"
    assert kstatus(of(in_phase("Pending", schema["default"]))) == "InProgress"


def test_a_change_is_in_progress_until_it_is_seen():
    status = in_phase("Running")
    assert kstatus(of(status, generation=2)) == "InProgress"
    assert kstatus(of(in_phase("Running", status, 2), generation=2)) == "Current"
    assert kstatus(of(status, deletionTimestamp="2026-05-01T12:00:00Z")) == "Terminating"


@each("reason", [Reason.INVALID_MANIFEST, Reason.NOT_ALLOWED])
def test_a_job_that_cannot_run_is_stalled(reason):
    assert kstatus(of(refused_status({}, 1, NOW, reason, "no"))) == "Failed"


def test_a_finished_job_sees_later_changes_of_its_run():
    pytest.importorskip("kopf")
    from reconciling import Notes, body, reconcile

    finished, notes = in_phase("Succeeded") | {"completionTime": "2026-05-01T12:00:00Z"}, Notes()
    changed = body(status=finished)
    changed["metadata"]["generation"] = 2
    reconcile(changed, notes)
    assert kstatus(of(notes.statuses[-1], generation=2)) == "Current"
    assert notes.events == []
    notes = Notes()
    reconcile(body(status=finished), notes)
    assert notes.statuses == []
