"""What people see of a run: times, progress that may be nonsense, previews that may be hostile."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.cases import each

from tunesmith.local.job_display import (
    JobProgress,
    details,
    duration,
    preview_table,
    read_moment,
    show_result,
    show_sampling,
    visible,
)
from tunesmith.local.workdir import JobFolder


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (-5, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (60, "1m00s"), (200, "3m20s"),
        (3599.4, "59m59s"), (3600, "1h00m"), (7500, "2h05m"), (360000, "100h00m"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_details():
    values = {"loss": 1.23456, "evalLoss": 2, "tokensPerSecond": 12345.6, "secondsLeft": 61}
    assert details(values) == "loss 1.2346  val 2.0000  12,346 tok/s  1m01s left"
    assert details({}) == ""
    assert details({"spentUsd": 0.0123, "lostInFlightUsd": 0.0}) == "spent 0.0123 USD"
    money = read_moment(
        {"phase": "generating", "spentUsd": 0.0123, "lostInFlightUsd": 0.0004, "secondsLeft": 5}
    )
    assert money.text == "spent 0.0123 USD, at most 0.00040 USD more lost in flight  5s left"


def test_what_batches_are_awaited_stands_behind_the_money():
    awaited = "waiting for batch batch_1 (round 2 question), 3/6 requests done, since 2026-11-29 07:30 UTC"
    moment = read_moment({"phase": "generating", "spentUsd": 0.5, "awaited": awaited})
    assert moment.text == f"spent 0.5000 USD  {awaited}"
    assert read_moment({"phase": "generating", "spentUsd": 0.5, "awaited": 3}).text == "spent 0.5000 USD"


def test_trouble_is_told_once_when_it_begins_and_once_when_it_is_over():
    written = io.StringIO()
    console = Console(file=written, width=200)
    away = {
        "reason": "StorageUnavailable",
        "message": "No [bold]answer\x1b.",
        "since": "2026-05-01T12:00:00Z",
    }
    with JobProgress(console, "tune") as progress:
        for trouble in (None, away, away, None):
            progress.tell({"phase": "training", "loss": 0.5, "trouble": trouble})
    lines = [line for line in written.getvalue().splitlines() if "waiting" in line or "continues" in line]
    assert lines == [
        "tune  waiting, since 2026-05-01T12:00:00Z: No [bold]answer␛.",
        "tune  continues",
    ]


@each("said", [3, [], {}, {"message": 3, "since": "x"}, {"message": "x"}, {"since": "x"}, "x"])
def test_odd_trouble_is_none(said):
    assert read_moment({"phase": "training", "trouble": said}).trouble == ""


ODD = [None, "x", True, [], {}, float("nan"), float("inf"), float("-inf"), 10**400, 1e300, "[/bold]", -1]


@each("odd", ODD, ids=repr)
def test_odd_numbers_are_left_out(odd):
    names = ("loss", "evalLoss", "tokensPerSecond", "secondsLeft", "spentUsd", "lostInFlightUsd")
    for name in names:
        assert details({name: odd, "loss": 1.0}).startswith("loss 1.0000") or name == "loss"
    moment = read_moment({"phase": "training", "step": odd, "total": odd, "records": odd, "loss": 0.5})
    assert moment.text == "loss 0.5000"
    assert (moment.step, moment.total, moment.steps) == (0, None, "")


@pytest.mark.parametrize("phase", [None, 3, "", "  ", [], {"a": 1}])
def test_without_a_phase_there_is_nothing_to_say(phase):
    assert read_moment({"phase": phase, "step": 1}) is None
    assert read_moment({}) is None


def test_a_hostile_phase_is_one_short_line():
    moment = read_moment({"phase": "a\n\x1b[2Jb" + "x" * 1000})
    assert len(moment.phase) <= 60
    assert "\x1b" not in moment.phase
    assert "\n" not in moment.phase


def console(**options):
    return Console(file=io.StringIO(), width=80, **options)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["phase", "step", "total", "loss", "evalLoss", "tokensPerSecond", "secondsLeft", "records", "spentUsd"]


@given(st.dictionaries(st.sampled_from(KEYS), json_values | st.sampled_from(["training", "[/red]", "[x"])))
def test_no_progress_stops_the_run(values):
    for terminal in (False, True):
        with JobProgress(console(force_terminal=terminal), "job[/bold]") as bar:
            bar.tell(values)


def test_elsewhere_than_on_a_terminal_a_line_a_phase():
    shown = console()
    with JobProgress(shown, "job") as bar:
        for phase in ("starting", "starting", "training", "training"):
            bar.tell({"phase": phase, "step": 3, "total": 10, "loss": 0.5})
    assert shown.file.getvalue() == "job  3/10  starting\njob  3/10  loss 0.5000\n"


def test_elsewhere_than_on_a_terminal_a_line_is_repeated_once_a_minute(monkeypatch):
    shown, now = console(), [0.0]
    monkeypatch.setattr("tunesmith.local.job_display.time.monotonic", lambda: now[0])
    with JobProgress(shown, "job") as bar:
        for step in (1, 1, 1, 2, 2, 2, 2, 2, 2, 2):
            bar.tell({"phase": "training", "step": step, "total": 2, "loss": 0.5})
            now[0] += 11
    assert shown.file.getvalue().splitlines() == ["job  1/2  loss 0.5000", *["job  2/2  loss 0.5000"] * 2]


def preview(**texts):
    values = {"prompt": "Hi", "before": "a", "after": "b", **texts}
    return {"messages": [{"role": "user", "content": values.pop("prompt")}], **values}


@pytest.mark.parametrize("width", [40, 80, 120])
def test_long_previews_are_shown_whole(width):
    shown = Console(file=io.StringIO(), width=width)
    long = "word " * 60 + "x" * 300 + "字" * 50
    shown.print(preview_table([preview(prompt=long, before="[/bold] [red]", after=long)]))
    lines = shown.file.getvalue().splitlines()
    from rich.cells import cell_len

    assert max(map(cell_len, lines)) <= width
    assert shown.file.getvalue().count("字") == 100
    assert shown.file.getvalue().count("x") == 600


def test_replies_do_not_steer_the_terminal():
    shown = console(force_terminal=True)
    shown.print(preview_table([preview(after="\x1b[2J\x1b]0;owned\x07\x9b31m")]))
    text = shown.file.getvalue()
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    assert "\x9b" not in text
    assert "␛" in text


@given(st.text())
def test_visible_text_has_no_control_characters(text):
    shown = visible(text)
    assert len(shown) == len(text)
    assert not any((c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" for c in shown)


RESULT = {
    "previews": [preview()], "validationLoss": {"before": 2.0, "after": 1.5}, "method": "lora", "seconds": 75,
}  # fmt: skip


def test_the_end_of_a_run_says_where_things_are_and_what_to_do_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = JobFolder(tmp_path / "my jobs/a")
    (folder.output / "final_model").mkdir(parents=True)
    (folder.output / "report.html").touch()
    shown = console()
    show_result(shown, RESULT, folder, "s3://out/a", " --work-dir w")
    text = shown.file.getvalue()
    assert "Validation loss  2.0000 before  →  1.5000 after\n" in text
    assert "Adapter  my jobs/a/output/final_model\n" in text
    assert "Report   my jobs/a/output/report.html\n" in text
    assert "Output   s3://out/a\n" in text
    assert "Time     1m15s\n" in text
    assert "Try it   tunesmith chat --model 'my jobs/a/output/final_model' --work-dir w\n" in text


def test_a_model_with_several_presets_is_tried_by_the_first(tmp_path):
    names = ("settings", "background")
    messages = [{"role": "user", "content": "{text}"}]
    presets = [{"name": name, "messages": messages} for name in names]
    folder = JobFolder(tmp_path)
    write_presets(folder.output / "final_model", presets)
    shown = console()
    show_result(shown, RESULT, folder, "s3://out/a")
    assert "/output/final_model --as settings\n" in shown.file.getvalue()


def write_presets(model, presets):
    model.mkdir(parents=True)
    (model / "tunesmith_presets.json").write_text(json.dumps({"version": 1, "presets": presets}))


def test_files_that_are_not_there_are_not_named(tmp_path):
    shown = console()
    nothing = {"before": None, "after": None}
    result = {**RESULT, "previews": [], "method": "full", "validationLoss": nothing}
    show_result(shown, result, JobFolder(tmp_path), "s3://out/a/")
    assert shown.file.getvalue() == (
        "Output   s3://out/a/\nTime     1m15s\nTry it   tunesmith chat --model s3://out/a/final_model\n"
    )


def test_of_a_sampling_the_counts_come_first_and_if_nothing_was_accepted_what_to_change(tmp_path):
    found = {
        "accepted": 0, "planned_generations": 16, "cancelled": 0, "generations": 16, "acceptance_rate": 0.0,
        "reasons": {"truncated": 16}, "total_prompts": 2, "prompts_with_none_correct": 2, "seconds": 3.0,
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    show_sampling(console, found, JobFolder(tmp_path), "s3://b/out")
    first = console.file.getvalue().splitlines()[0]
    assert first.startswith("0 of 16 accepted (16 truncated); raise sampling.maxNewTokens, or ask")
