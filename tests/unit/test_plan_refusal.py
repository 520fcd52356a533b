"""The status of a job whose objects the API server refuses."""

from sightings import check as check_status
from sightings import child, conditions, look, pod

from tunesmith.names import Phase, Reason
from tunesmith.plan.refusal import Refusal, missing_account, not_written, pause_seconds
from tunesmith.plan.status import parse_time

WHY = Refusal(Reason.REFUSED, "The API server refused to create ConfigMap x (HTTP 403): exceeded quota")
RUNNING = look(look().status, children=[child(1, "Running")], pods=[pod(state={"running": {}})], at=1).status
SUSPENDED = look(RUNNING, children=[child(1, "Running", suspend=True, ours=True)], suspend=True).status
FAILED = {"phase": "Failed", "reason": "BadData", "completionTime": "2026-05-01T12:00:00Z"}


def refuse(before, why=WHY, at=0, **options):
    status = not_written(before, 2, parse_time(f"2026-05-01T12:{at // 60:02}:{at % 60:02}Z"), why, **options)
    check_status(status)
    return status


def test_the_phase_says_what_still_goes_on():
    other = Refusal(
        Reason.REFUSED, "The API server refused to suspend PyTorchJob x (HTTP 500): no", creating=False
    )
    found = {
        "new": refuse({})["phase"],
        "the next attempt": refuse(RUNNING)["phase"],
        "suspended, and to go on": refuse(SUSPENDED)["phase"],
        "runs, and to be suspended": refuse(RUNNING, other)["phase"],
    }
    assert found == {
        "new": Phase.PENDING,
        "the next attempt": Phase.PENDING,
        "suspended, and to go on": Phase.SUSPENDED,
        "runs, and to be suspended": Phase.RUNNING,
    }


def test_nothing_of_an_attempt_is_counted():
    waiting = RUNNING | {"nextAttemptTime": "2026-05-01T12:00:00Z"}
    status = refuse(waiting)
    assert {key: status[key] for key in ("attempts", "launches", "startTime")} == {
        key: RUNNING[key] for key in ("attempts", "launches", "startTime")
    }
    assert "nextAttemptTime" not in status


def test_what_has_ended_stays_as_it_is():
    status = refuse(FAILED)
    assert {key: status[key] for key in FAILED} == FAILED


def test_a_job_is_not_accepted_while_it_is_refused():
    accepted = conditions(refuse({}))["Accepted"]
    assert (accepted["status"], accepted["reason"], accepted["message"]) == ("False", "Refused", WHY.message)


def test_the_deadline_for_a_start_counts_from_the_first_refusal():
    first = refuse({}, deadline=60)
    later = refuse(first, missing_account("tunesmith-job", "research"), at=59, deadline=60)
    last = refuse(later, at=60, deadline=60)
    assert [one["phase"] for one in (first, later, last)] == ["Pending", "Pending", "Failed"]
    assert last["reason"] == "StartDeadlineExceeded"
    assert last["message"] == f"Nothing could be created for 60 seconds. {WHY.message}"
    assert refuse(later, at=999)["phase"] == "Pending"


def test_the_time_before_the_first_refusal_does_not_count():
    assert refuse(RUNNING, at=3000, deadline=60)["phase"] == "Pending"


def test_pauses_are_of_a_minute_at_most():
    assert [pause_seconds(tries) for tries in (0, 1, 2, 5, 6, 9999)] == [2, 2, 4, 32, 60, 60]


def after_a_refusal(code, **how):
    """What follows a failed attempt whose successor was refused, once its pod is gone too."""
    ended, one = child(1, "Failed", at=1), pod(code=code, at=1, **how)
    failed = look(RUNNING, children=[ended], pods=[one], at=2).status
    return look(refuse(failed), children=[ended], at=900)


def test_a_refusal_between_attempts_is_not_the_cause_of_the_first():
    counted = after_a_refusal(1, reason="Error")
    short = after_a_refusal(137, reason="OOMKilled")
    taken = [{"type": "DisruptionTarget", "status": "True", "message": "drained"}]
    disrupted = after_a_refusal(137, conditions=taken)
    assert [(one.status["reason"], one.status["attempts"], one.create) for one in (counted, disrupted)] == [
        (Reason.PROCESS_DIED, 2, 2),
        (Reason.PREEMPTED, 1, 2),
    ]
    assert (short.status["attempts"], short.status["outOfMemory"], short.create) == (1, [1], 2)
