"""What `helm test` says of a release."""

import asyncio

import pytest
from tests.cases import each

pytest.importorskip("kopf")

from tunesmith_operator import check_release
from tunesmith_operator.api_client import ApiError
from tunesmith_operator.check_release import check, problems
from tunesmith_operator.cluster import JOBS

READY = {"observedGeneration": 2, "updatedReplicas": 1, "readyReplicas": 1}


class Api:
    """Serves these kinds, and a Deployment with this status, once it is asked for the nth time."""

    def __init__(self, status=READY, served=JOBS, code=None, after=1):
        self.status, self.kinds, self.code, self.after, self.asked = status, served, code, after, 0

    async def served(self, resources):
        self.asked += 1
        return [one for one in resources if one.kind in self.kinds]

    async def get(self, resource, namespace, name):
        assert (resource.plural, namespace, name) == ("deployments", "ops", "operator")
        if self.code:
            raise ApiError(self.code, "no")
        status = self.status if self.asked >= self.after else {}
        return {"metadata": {"name": name, "generation": 2}, "status": status}


MISSING = {
    "nothing": (Api(), []),
    "a CRD": (Api(served=list(JOBS)[:2]), ["does not serve dialoguegenjobs (tunesmith.dev/v1alpha1)"]),
    "no status yet": (Api({}), ["is not rolled out yet"]),
    "an old status": (Api(READY | {"observedGeneration": 1}), ["is not rolled out yet"]),
    "not ready": (Api({"observedGeneration": 2, "updatedReplicas": 1}), ["operator is not ready"]),
    "only the old pod is ready": (Api({"observedGeneration": 2, "readyReplicas": 1}), ["is not ready"]),
    "no Deployment": (Api(code=404), ["There is no Deployment operator in namespace ops."]),
}


@each(("api", "words"), MISSING.values(), ids=MISSING)
def test_what_is_missing(api, words):
    found = asyncio.run(problems(api, "ops", "operator"))
    assert len(found) == len(words)
    assert all(word in said for word, said in zip(words, found, strict=True))


def test_no_right_is_no_missing_deployment():
    with pytest.raises(ApiError):
        asyncio.run(problems(Api(code=403), "ops", "operator"))


def said(api, monkeypatch):
    monkeypatch.setattr(check_release, "PAUSE", 0)
    words = []
    return asyncio.run(check(api, "ops", "operator", words.append)), words


def test_a_release_that_becomes_ready_passes(monkeypatch):
    api = Api(after=3)
    code, words = said(api, monkeypatch)
    assert (code, api.asked) == (0, 3)
    assert words == ["The CRDs are served, and the operator operator is ready."]


def test_one_that_does_not_fails_and_says_why(monkeypatch):
    code, words = said(Api({}, served=()), monkeypatch)
    assert code == 1
    assert len(words[0].splitlines()) == 4
