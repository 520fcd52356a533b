"""The page of a running job, whatever its values are."""

import hashlib
import re
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each
from tests.unit.test_report_finetune import HOSTILE, Page, metrics

from tunesmith.report.live import live_policy, live_script, render_live


def full(text="plain"):
    return {
        "job": {"kind": text, "name": text, "attempt": 2, "output": text},
        "progress": {
            "phase": text, "step": 12, "total": 40, "loss": 1.5, "secondsLeft": 75,
            "trouble": {"reason": text, "message": text, "since": text},
        },
        "rows": [*metrics(40), {"step": 20, "eval_loss": 1.9}],
        "moments": [{"seconds": 2.0 * n, "memory_bytes": 1e9 + n, "dialogues": n} for n in range(5)],
        "previews": [
            {
                "name": text, "messages": [{"role": text, "content": text}],
                "replies": [{"who": text, "text": text, "note": text}],
            }
        ],
        "log": [text, text],
        "jobs": [{"subject": text, "state": "running", "link": "report/0"}],
    }  # fmt: skip


def outcome(text, ok=False):
    return {"ok": ok, "text": text, "files": [(text, text)]}


@each(
    "state",
    [{}, {key: type(value)() for key, value in full().items()}, full(), full(HOSTILE),
     full(HOSTILE) | {"outcome": outcome(HOSTILE)}, full() | {"rows": []}],
)  # fmt: skip
def test_the_page_has_one_script_and_loads_nothing_else(state):
    page = render_live(state)
    parsed = Page(page)
    assert [tag for tag, _ in parsed.tags if tag in {"script", "img", "iframe", "object", "base"}] == [
        "script"
    ]
    for tag, attrs in parsed.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "src"]
        assert tag not in {"a", "link"} or attrs["href"] in {"data:,", "report/0"}
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    assert script == live_script()
    assert b64encode(hashlib.sha256(script.encode()).digest()).decode() in live_policy()


def test_hostile_text_is_shown_as_text():
    parsed = Page(render_live(full(HOSTILE)))
    assert parsed.text.count(HOSTILE.split("{{")[0]) >= 12


def test_training_is_shown_by_step_and_everything_else_over_time():
    assert "Loss by step" in render_live(full())
    page = render_live(full() | {"rows": []})
    assert "Dialogues by second" in page
    assert "Loss by step" not in page


def test_steps_and_time_left_stand_under_the_bar():
    text = Page(render_live(full())).text
    assert "12 of 40" in text
    assert "75 s left" in text


def test_a_job_that_has_ended_says_so_and_waits_for_nothing():
    page = render_live(full() | {"outcome": outcome("FineTuneJob x failed: Diverged")})
    assert "data-ended" in page.split("<script>")[0]
    assert "x failed: Diverged" in page
    assert "<progress" not in page


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
NAMES = ["phase", "step", "total", "loss", "secondsLeft", "trouble", "memory", "spentUsd", "evalLoss"]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_a_progress_of_any_values_makes_a_page(progress):
    Page(render_live({"progress": progress}))
