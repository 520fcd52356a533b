"""The metrics of jobs, from the chart: who scrapes them, who may, and the dashboard that shows them."""

import json
import re

import pytest
from test_chart import chart, helm, render

from tunesmith.jobs.metrics import METRICS
from tunesmith.names import LABEL_ATTEMPT, LABEL_JOB, LABEL_KIND, LABEL_MANAGED_BY, PROGRESS_PORT

__all__ = ["chart", "helm", "render"]


def test_the_dashboard_of_jobs_shows_every_metric_and_no_other(render):
    config_map = render({"metrics": {"dashboard": {"enabled": True}}})["ConfigMap"][0]
    board = json.loads(config_map["data"]["tunesmith-jobs.json"])
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    shown = set(re.findall(r"tunesmith_job_\w+", " ".join(queries)))
    assert shown == {metric.name for metric in METRICS.values()}
    labels = {re.sub(r"[./]", "_", label) for label in (LABEL_KIND, LABEL_JOB)}  # as the monitor writes them
    assert all(label in query for query in queries for label in labels)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_metrics_of_jobs_are_scraped_from_rank_0(render):
    values = {"enabled": True, "labels": {"r": "p"}}
    monitor = render({"metrics": {"podMonitor": values}, "namespaces": ["a"]})["PodMonitor"][0]
    assert monitor["metadata"]["labels"]["r"] == "p"
    spec = monitor["spec"]
    assert spec["namespaceSelector"] == {"matchNames": ["a"]}
    assert spec["selector"]["matchLabels"] == {LABEL_MANAGED_BY: "tunesmith-operator"}
    assert set(spec["podTargetLabels"]) == {LABEL_KIND, LABEL_JOB, LABEL_ATTEMPT}
    (endpoint,) = spec["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("progress", "/metrics")
    rank_0 = re.compile(endpoint["relabelings"][0]["regex"])
    assert {pod for pod in ("master;", "worker;", ";0", ";1", ";10", ";") if rank_0.fullmatch(pod)} == {
        "master;",
        ";0",
    }
    names = re.compile(endpoint["metricRelabelings"][0]["regex"])
    assert all(names.fullmatch(metric.name) for metric in METRICS.values())


@pytest.mark.parametrize("enabled", [False, "auto"])
def test_without_the_crd_there_is_no_monitor_of_jobs(render, enabled):
    assert "PodMonitor" not in render({"metrics": {"podMonitor": {"enabled": enabled}}})


@pytest.mark.parametrize("enabled", [True, False])
def test_the_policy_of_jobs_lets_in_scrapes_if_there_are_any(render, enabled):
    source = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    values = {"networkPolicy": {"jobs": True, "metricsFrom": source}, "jobNamespaces": ["a"]}
    policy = render(values | {"metrics": {"podMonitor": {"enabled": enabled}}})["NetworkPolicy"][0]
    ports = [{"protocol": "TCP", "port": PROGRESS_PORT}]
    assert ({"ports": ports, "from": source} in policy["spec"]["ingress"]) is enabled
