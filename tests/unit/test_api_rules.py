"""What a job may open: by what an address means, not by how it is written."""

from __future__ import annotations

import json

from good_manifests import FINE_TUNE, changed
from hostile import (
    ALLOWED,
    ENCODED,
    ENDPOINTS,
    FUNCTIONS,
    INSIDE,
    MANIFESTS,
    MINE,
    REDIRECTS,
    REVISIONS,
    RULES,
    URIS,
)
from tests.cases import each

from tunesmith.api.manifest import parse_documents
from tunesmith.api.rules import MACHINE, Rules, rules_from
from tunesmith.artifacts.inside import is_inside
from tunesmith_operator.policy import denied, rules_for
from tunesmith_operator.settings import OperatorSettings, read_settings

STRICT = rules_from(RULES)


@each("uri", URIS)
def test_an_address_that_no_rule_names_is_refused(uri):
    assert not STRICT.allow_uri(uri)


@each("url", ENDPOINTS)
def test_a_server_that_no_rule_names_is_refused(url):
    assert not STRICT.allow_endpoint(url)


def led_to(url, rules=STRICT, asked="https://hub.example/m"):
    inside = {"hub.example": True, "public.example": False}
    return rules.allow_redirect(asked, url, lambda host: inside.get(host, is_inside(host)))


def test_no_redirect_leads_inside_or_to_less_than_https():
    assert [url for url in REDIRECTS if led_to(url)] == []
    anywhere = Rules(endpoints=("*",))
    assert [url for url in REDIRECTS if led_to(url, anywhere)] == []


def test_redirects_that_lead_to_the_server_itself_to_a_named_one_or_outside():
    good = [
        "https://hub.example/m/x",
        "https://HUB.example:443/m/x",
        "https://public.example/x",
        "https://1.1.1.1/",
    ]
    assert [
        url for url in [*good, "https://llm.example/v1/x", "https://[2606:4700::1]/"] if not led_to(url)
    ] == []
    assert not led_to("https://hub.example/other")


def test_on_a_machine_of_ones_own_only_a_hub_of_the_inside_leads_inside():
    assert led_to("https://10.0.0.1/x", MACHINE)
    assert not led_to("http://10.0.0.1/x", MACHINE)
    assert led_to("http://10.0.0.1/x", MACHINE, "http://10.0.0.2")
    assert not led_to("https://10.0.0.1/x", MACHINE, "https://public.example")
    assert not led_to("http://public.example/x", MACHINE, "https://public.example")


@each("host", INSIDE)
def test_hosts_of_the_inside_are_known_however_they_are_written(host):
    assert is_inside(host)


@each("function", FUNCTIONS)
def test_a_module_that_no_rule_names_is_refused(function):
    assert not STRICT.allow_module(function.partition(":")[0])


def test_what_rules_name_is_allowed():
    uris = ["s3://team-a", "s3://team-a/x/y", "hf://good/model", "hf://datasets/good/set@main"]
    uris += ["hf://datasets/good/set", "file:///models", "file:///models/a%20b"]
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


@each("revision", REVISIONS)
def test_no_manifest_may_hold_a_revision_that_leads_out_of_the_cache(revision):
    hub = {"spec.model.uri": "hf://org/m", "spec.model.revision": revision}
    assert problems(changed(FINE_TUNE, hub)) == ["spec.model.revision"]


ADMIN = read_settings({"TUNESMITH_ALLOWED": json.dumps([ALLOWED])})


def refusal(document):
    (job,), found = parse_documents([document], "job.yaml")
    assert found == []
    return denied(job, ADMIN)


def test_the_operator_gives_a_job_the_rules_of_its_namespace():
    assert rules_for("research", ADMIN) == STRICT
    nobodys = rules_for("research", OperatorSettings())
    assert nobodys.uris == ("*",)
    assert not nobodys.allow_uri("file:///models")
    assert not nobodys.allow_module("judges")


@each("document", MINE.values(), ids=MINE)
def test_the_operator_takes_what_the_rules_allow(document):
    assert refusal(document) == ""


def test_the_operator_or_validation_refuses_every_hostile_value():
    refused = [refusal(document) for document in MANIFESTS if not problems(document)]
    assert "" not in refused
    words = [said.split(" is not allowed in ")[0].rsplit(" ", 1)[0] for said in refused]
    assert set(words) == {
        "address",
        "endpoint",
        "Secret",
        "runtime",
        "code of model hf://good/model",
        "code of model hf://good/m",
        "Python function",
        "priority class",
        "toleration of key",
        "node label",
    }


def test_the_operator_refuses_to_send_metrics_to_a_server_that_no_rule_names():
    document = changed(MINE["FineTuneJob"], {"spec.tracking": {"wandb": {"project": "p"}}})
    assert refusal(document) == "endpoint https://api.wandb.ai is not allowed in namespace research"
    own = {"spec.tracking.wandb.baseUrl": "https://llm.example/v1"}
    assert refusal(changed(document, own)) == ""


def test_a_text_that_looks_like_an_address_is_none():
    preview = {"spec.previews": [{"name": "a", "user": "s3://team-b/x: what is this?"}]}
    assert refusal(changed(MINE["FineTuneJob"], preview)) == ""


PRIORITIES = {"*": False, "sys*": False, "system-*": True, "system-node-?ritical": True, "high": False}


@each(("pattern", "allowed"), PRIORITIES.items())
def test_a_priority_class_of_the_cluster_must_be_named(pattern, allowed):
    rule = {"uris": ["*"], "priorityClasses": ["batch", pattern]}
    admin = read_settings({"TUNESMITH_ALLOWED": json.dumps([rule])})
    document = changed(FINE_TUNE, {"spec.placement": {"priorityClassName": "system-node-critical"}})
    (job,), _ = parse_documents([document], "job.yaml")
    assert (denied(job, admin) == "") is allowed
    assert denied(job, OperatorSettings()).startswith("priority class system-node-critical is not allowed")
