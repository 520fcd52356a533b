"""What a job keeps in memory for its page: bounded, and without secrets."""

import logging
from itertools import pairwise

from tunesmith.jobs.live import LOG_LINES, MOMENTS, REPLIES, ROWS, LiveView, LogTail, Moments, shortened


def logged(tail, *texts):
    for text in texts:
        tail.emit(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))


def test_the_last_lines_of_the_log_have_no_secret_and_steer_nothing(monkeypatch):
    monkeypatch.setenv("TUNESMITH_SECRET_STUB_KEY", "sk-never-to-be-seen")
    tail = LogTail()
    logged(tail, "key sk-never-to-be-seen \x1b[2J", "two\nlines")
    text = "\n".join(tail.lines)
    assert "key <TUNESMITH_SECRET_STUB_KEY> ␛[2J" in text
    assert len(tail.lines) == 3


def test_only_the_last_lines_are_kept():
    tail = LogTail()
    logged(tail, *(f"line {n}" for n in range(LOG_LINES + 50)))
    assert len(tail.lines) == LOG_LINES
    assert tail.lines[-1].endswith(f"line {LOG_LINES + 49}")


def test_a_run_of_any_length_keeps_its_whole_curve():
    now = [0.0]
    moments = Moments(lambda: 7, lambda: now[0])
    for _ in range(20_000):
        moments.add({"dialogues": now[0], "phase": "generating"})
        now[0] += 1.0
    kept = [each["seconds"] for each in moments.values]
    assert MOMENTS / 2 <= len(kept) <= MOMENTS
    assert kept[0] == 0
    assert kept[-1] > 19_900
    gaps = {later - earlier for earlier, later in pairwise(kept)}
    assert max(gaps) <= 2 * min(gaps)
    assert moments.values[1] == {"seconds": kept[1], "memory_bytes": 7, "dialogues": kept[1]}


def test_rows_are_thinned_and_validation_losses_stay():
    view = LiveView(lambda: 0)
    for step in range(5 * ROWS):
        view.write({"step": step, "loss": 1.0})
        if step % ROWS == 0:
            view.write({"step": step, "eval_loss": 1.0})
    rows = view.values({})["rows"]
    assert len(rows) <= 2 * ROWS
    assert [row["step"] for row in rows if "eval_loss" in row] == [ROWS * n for n in range(5)]


def test_a_preview_has_its_replies_side_by_side_the_newer_of_one_side():
    view = LiveView(lambda: 0)
    for who, text in (("before training", "a"), ("after training", "b"), ("after training", "c")):
        view.preview("p", [{"role": "user", "content": "x"}], who, text)
    (shown,) = view.values({})["previews"]
    assert [(each["who"], each["text"]) for each in shown["replies"]] == [
        ("before training", "a"), ("after training", "c"),
    ]  # fmt: skip


def test_of_replies_without_end_the_last_ones_are_kept():
    view = LiveView(lambda: 0)
    for number in range(REPLIES + 5):
        view.latest(f"r{number}", {"messages": []})
    assert [each["name"] for each in view.values({})["previews"]] == [f"r{n}" for n in range(5, REPLIES + 5)]


def test_long_texts_lose_their_middle():
    assert shortened("x" * 2500) == "x" * 2500
    assert (
        shortened("a" * 1500 + "b" * 40 + "c" * 1000) == "a" * 1500 + "\n[… 40 characters …]\n" + "c" * 1000
    )
