"""The page of a run in a real browser: of each kind, opened early, late and after the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.browser import Tab, browser
from tests.standin.openai_rules import Settings
from tests.standin.openai_stub import Stub
from tests.support import call_cli, chat_records, finetune, start_cli, write_jsonl, write_manifest

pytestmark = pytest.mark.slow
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"
SECRET = "sk-never-to-be-seen"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@contextmanager
def running(
    folder: Path, *documents: dict[str, Any], **env: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tunesmith run --open` where there is no display: it prints the address."""
    path = write_manifest(folder, *documents)
    nowhere = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}
    process = start_cli("run", "-f", path.name, "--open", folder=folder, env=nowhere | env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/[\w-]{20,}/) to watch this run\n", line)
        assert found, line
        yield process, found[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=120)


def steps_of(tab: Tab) -> int:
    return int(tab.run("(document.querySelector('progress') || {value: 0}).value"))


def test_training_is_seen_while_it_goes_and_becomes_its_report(
    tiny_model: Path, tmp_path: Path, tab: Tab
) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", chat_records(200))  # steps that last long enough to be seen
    preview = {"name": HOSTILE, "user": HOSTILE, "generation": {"maxNewTokens": 8, "temperature": 0}}
    job = finetune(
        "watched", model=tiny_model, data=data, output=tmp_path / "out", previews=[preview],
        training={"maxSteps": 30, "evalSteps": 10, "saveSteps": 30, "gradientAccumulationSteps": 80},
        validation={"ratio": 0.1},
    )  # fmt: skip
    with running(tmp_path, job) as (process, url):
        tab.go(url)
        tab.wait(lambda: "training" in tab.text and steps_of(tab) > 2, 240)
        tab.wait(lambda: tab.run("document.querySelectorAll('svg.chart').length") == 4)
        assert "before training" in tab.text
        assert HOSTILE in tab.text
        before = steps_of(tab)
        tab.wait(lambda: steps_of(tab) > before)  # by itself
        assert "loss" in tab.run("document.querySelector('.log').textContent")
        assert tab.run("document.title") == "watched"
        assert re.search(r"watched +FineTuneJob +running +\d+/30", call_cli("list", folder=tmp_path).text)
        tab.go("about:blank")
        tab.go(url)  # late, and the curve is whole
        late = tab.run("document.querySelectorAll('#curves circle.dots').length")
        assert late >= before
        tab.wait(lambda: "Before and after" in tab.text, 300)
        process.wait(120)
        assert process.returncode == 0
    tab.wait(lambda: tab.run("document.readyState") == "complete")
    assert "What the model learns from" in tab.text  # the report stays in the tab, its server is gone
    assert tab.complaints == []
    assert {request for request in tab.requests if not request.startswith("data:")} <= {url, "about:blank"}


def test_a_job_that_fails_says_so_on_the_page(tiny_model: Path, tmp_path: Path, tab: Tab) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", [{"messages": [{"role": "user", "content": "x"}]}, "no"])
    job = finetune("failing", model=tiny_model, data=data, output=tmp_path / "out")
    with running(tmp_path, job) as (process, url):
        tab.go(url)
        process.wait(240)
        assert process.returncode == 2
    tab.wait(lambda: "failed: BadData" in tab.text)
    assert "rank-0.log" in tab.text
    time.sleep(3)
    assert "failed: BadData" in tab.text  # it stays, although nobody answers any more


def test_dialogues_are_seen_as_they_come(tmp_path: Path, tab: Tab) -> None:
    whole = {"question": f"{HOSTILE}?", "answer": "So.", "correction": "Since."}
    seeds = [{"id": f"s{n}", **whole} for n in range(40)]
    role = {"endpoint": "stub", "maxTokens": 60}
    with Stub(Settings(latency=0.4)) as server:
        key = {"name": "stub", "key": "key"}
        job = {
            "apiVersion": "tunesmith.dev/v1alpha1", "kind": "DialogueGenJob", "metadata": {"name": "talk"},
            "spec": {
                "seeds": {"uri": write_jsonl(tmp_path / "seeds.jsonl", seeds).as_uri()}, "rounds": 2,
                "endpoints": {"stub": {
                    "openai": {"baseUrl": server.url, "model": "m", "apiKeySecretRef": key},
                    "price": {"inputPerMillion": 1, "outputPerMillion": 4},
                    "limits": {"maxParallelRequests": 4},
                }},
                "roles": {"question": role, "answer": role, "correction": role},
                "output": {"uri": (tmp_path / "out").as_uri()},
            },
        }  # fmt: skip
        with running(tmp_path, job, TUNESMITH_SECRET_STUB_KEY=SECRET) as (_, url):
            tab.go(url)
            tab.wait(lambda: "of 40" in tab.text and steps_of(tab) > 4, 240)
            tab.wait(lambda: "Dialogues by second" in tab.run("document.body.innerHTML"))
            assert HOSTILE in tab.text
            assert "correction" in tab.text
            assert SECRET not in tab.text


def test_replies_and_verdicts_are_seen_as_they_come(tiny_model: Path, tmp_path: Path, tab: Tab) -> None:
    prompts = [{"id": f"p{n}", "instruction": f"Say {n}", "answer": "3"} for n in range(200)]
    job = {
        "apiVersion": "tunesmith.dev/v1alpha1", "kind": "RejectionSampleJob", "metadata": {"name": "draw"},
        "spec": {
            "model": {"uri": tiny_model.as_uri()},
            "prompts": {"uri": write_jsonl(tmp_path / "p.jsonl", prompts).as_uri(), "instruction": {}},
            "engine": {"transformers": {"batchSize": 2}},
            "sampling": {"numSamples": 4, "maxNewTokens": 32},
            "verifier": {"regex": {"pattern": "."}}, "resources": {"gpusPerNode": 0},
            "output": {"uri": (tmp_path / "out").as_uri()},
        },
    }  # fmt: skip
    with running(tmp_path, job) as (_, url):
        tab.go(url)
        tab.wait(lambda: "of 200" in tab.text and re.search(r"accepted|rejected", tab.text), 180)
        tab.wait(lambda: tab.run("document.querySelectorAll('#previews article').length") > 1, 60)
        assert "Main memory" in tab.text


def test_the_address_is_known_to_nobody_else(tiny_model: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", chat_records(24))
    job = finetune("private", model=tiny_model, data=data, output=tmp_path / "out")
    with running(tmp_path, job) as (_, url):
        root = url.rsplit("/", 2)[0]
        for path in ("/", "/page.json", f"/{'x' * 22}/"):
            with pytest.raises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(root + path, timeout=10)
            assert raised.value.code == 404
        foreign = urllib.request.Request(url, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(foreign, timeout=10)
        assert raised.value.code == 403
