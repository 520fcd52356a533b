"""The wait for CRDs that the tests on a cluster share."""

import json
from subprocess import CompletedProcess

import pytest
from tests.crds import established, wait_until_established

SERVED = {
    "status": {
        "conditions": [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]
    }
}
NOT_YET = {
    "no status": {},
    "null": {"status": None},
    "no conditions": {"status": {}},
    "null conditions": {"status": {"conditions": None}},
    "refused": {"status": {"conditions": [{"type": "Established", "status": "False"}]}},
    "named": {"status": {"conditions": [{"type": "NamesAccepted", "status": "True"}]}},
}


def test_a_kind_is_served_when_a_condition_says_so():
    assert established(SERVED)
    assert [name for name, crd in NOT_YET.items() if established(crd)] == []


def answers(*given):
    """A kubectl that gives these answers, the last one for ever; text is an error."""
    left = list(given)

    def kubectl(*arguments, check):
        answer = left.pop(0) if len(left) > 1 else left[0]
        failed = isinstance(answer, str)
        return CompletedProcess(
            arguments, int(failed), "" if failed else json.dumps(answer), answer if failed else ""
        )

    kubectl.left = left
    return kubectl


def test_the_wait_outlasts_a_slow_controller(monkeypatch):
    monkeypatch.setattr("tests.crds.time.sleep", lambda seconds: None)
    slow = answers("not found", {"items": []}, {"items": [SERVED, {}]}, {"items": [SERVED, SERVED]})
    wait_until_established(slow, ["-f", "crds"])
    assert len(slow.left) == 1
    wait_until_established(answers(SERVED), ["crd/x"])


def test_the_wait_ends_and_says_what_was_seen():
    with pytest.raises(AssertionError, match="not found"):
        wait_until_established(answers("not found"), ["crd/x"], seconds=0)
