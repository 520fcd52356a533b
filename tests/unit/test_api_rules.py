"""What a job may open: by what an address means, not by how it is written."""

from __future__ import annotations

import pytest
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed
from hostile import ENCODED, ENDPOINTS, FUNCTIONS, RULES, URIS
from tests.cases import each

from tunesmith.api.manifest import parse_documents
from tunesmith.api.rules import MACHINE, Rules, rules_from
from tunesmith_operator.policy import denied, rules_for
from tunesmith_operator.settings import Allowed, Settings

STRICT = rules_from(RULES)


@each("uri", URIS)
def test_an_address_that_no_rule_names_is_refused(uri):
    assert not STRICT.allow_uri(uri)


@each("url", ENDPOINTS)
def test_a_server_that_no_rule_names_is_refused(url):
    assert not STRICT.allow_endpoint(url)


@each("function", FUNCTIONS)
def test_a_module_that_no_rule_names_is_refused(function):
    assert not STRICT.allow_module(function.partition(":")[0])


def test_what_rules_name_is_allowed():
    uris = ["s3://team-a", "s3://team-a/x/y", "hf://good/model", "file:///models", "file:///models/a%20b"]
    assert [uri for uri in uris if not STRICT.allow_uri(uri)] == []
    urls = ["https://llm.example/v1", "https://LLM.example:443/v1/chat", "https://s3.example/"]
    assert [url for url in urls if not STRICT.allow_endpoint(url)] == []
    assert STRICT.allow_module("judges")
    assert STRICT.allow_module("judges.of.law")
    assert STRICT.allow_code("hf://good/code")
    assert not STRICT.allow_code("hf://good/codex")


def test_the_star_stands_for_every_address_but_files():
    rules = Rules()
    assert rules.allow_uri("s3://any/thing")
    assert rules.allow_uri("hf://any/thing")
    assert [uri for uri in ("file:///models/a", "/models/a") if rules.allow_uri(uri)] == []


def test_on_a_machine_of_ones_own_all_files_but_those_of_the_kernel():
    assert MACHINE.allow_uri("/home/me/data.jsonl")
    refused = ["/proc/self/environ", "file:///proc/self/environ", "/dev/sda", "/sys/x", "/run/secrets/token"]
    assert [uri for uri in [*refused, "/home/me/../../proc/1/mem"] if MACHINE.allow_uri(uri)] == []


def test_rules_travel_as_they_are():
    assert rules_from(STRICT.to_json()) == STRICT
    assert rules_from(MACHINE.to_json()) == MACHINE


def problems(document):
    return [problem.path for problem in parse_documents([document], "job.yaml")[1]]


@each("uri", ENCODED)
def test_no_manifest_may_hold_an_address_that_hides_what_it_means(uri):
    assert problems(changed(FINE_TUNE, {"spec.datasets[0].uri": uri})) == ["spec.datasets[0].uri"]


ADMIN = Settings(
    allowed=(
        Allowed(
            uris=tuple(RULES["uris"]),
            endpoints=tuple(RULES["endpoints"]),
            remote_code=tuple(RULES["remoteCode"]),
            python_modules=tuple(RULES["pythonModules"]),
        ),
    )
)
MINE = {
    "spec.model.uri": "hf://good/model",
    "spec.datasets[0].uri": "s3://team-a/d",
    "spec.output.uri": "s3://team-a/o",
}


def refusal(document, changes):
    (job,), found = parse_documents([changed(document, changes)], "job.yaml")
    assert found == []
    return denied(job, ADMIN)


def test_the_operator_gives_a_job_the_rules_of_its_namespace():
    assert refusal(FINE_TUNE, MINE) == ""
    assert rules_for("research", ADMIN) == STRICT
    nobodys = rules_for("research", Settings())
    assert nobodys.uris == ("*",)
    assert not nobodys.allow_uri("file:///models")
    assert not nobodys.allow_module("judges")


@each("uri", [uri for uri in URIS if not problems(changed(FINE_TUNE, {"spec.datasets[0].uri": uri}))])
def test_the_operator_refuses_addresses(uri):
    assert refusal(FINE_TUNE, {**MINE, "spec.datasets[0].uri": uri}).startswith(f"address {uri} is not")


@each("function", FUNCTIONS)
def test_the_operator_refuses_functions(function):
    verifier = {"python": {"function": function}}
    uris = {
        "spec.model.uri": "hf://good/m",
        "spec.prompts": {"uri": "s3://team-a/p", "chat": {}},
        "spec.output.uri": "s3://team-a/o",
    }
    module = function.partition(":")[0]
    assert refusal(SAMPLE, {**uris, "spec.verifier": verifier}).startswith(f"Python module {module} ")


def test_the_operator_refuses_to_send_metrics_to_a_server_that_no_rule_names():
    tracking = {"spec.tracking": {"wandb": {"project": "p"}}}
    assert "endpoint https://api.wandb.ai (tracking.wandb) is not" in refusal(FINE_TUNE, {**MINE, **tracking})
    own = {"spec.tracking": {"wandb": {"project": "p", "baseUrl": "https://llm.example/v1"}}}
    assert refusal(FINE_TUNE, {**MINE, **own}) == ""


@pytest.mark.parametrize(
    "url", [url for url in ENDPOINTS if ".." not in url and "%" not in url and "\\" not in url]
)
def test_the_operator_refuses_endpoints(url):
    changes = {
        "spec.seeds.uri": "s3://team-a/s", "spec.output.uri": "s3://team-a/o",
        "spec.endpoints.big.openai.baseUrl": url, "spec.endpoints.small.transformers.model.uri": "hf://good/m",
    }  # fmt: skip
    assert refusal(DIALOGUE, changes) == f"endpoint {url} is not among those namespace research may use"
