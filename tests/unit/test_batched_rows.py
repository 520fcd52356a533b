"""Rows that wait: in order, by prompt, and gone once nobody wants them."""

from __future__ import annotations

import threading
from random import Random

from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.engines.hf.rows import GenerationRow, WaitingRows


def row(group: str, index: int = 0, seed: int | None = None) -> GenerationRow:
    return GenerationRow(GenerationRequest([1, 2], group, index, seed), 4, Random(seed), lambda result: None)


def named(waiting: WaitingRows) -> list[tuple[str, list[int]]]:
    return [(g.rows[0].request.group, [r.request.index for r in g.rows]) for g in waiting.groups()]


def test_groups_in_the_order_they_came() -> None:
    waiting = WaitingRows()
    waiting.add([row("b", 0), row("a", 0), row("b", 1)])
    waiting.add([row("a", 1)])
    assert named(waiting) == [("b", [0, 1]), ("a", [0, 1])]


def test_rows_with_seeds_are_apart() -> None:
    waiting = WaitingRows()
    waiting.add([row("a", 0), row("a", 1, seed=3)])
    assert [group.exact for group in waiting.groups()] == [False, True]


def test_what_is_taken_or_cancelled_waits_no_more() -> None:
    waiting = WaitingRows()
    rows = [row("a", 0), row("a", 1), row("a", 2), row("b", 0)]
    waiting.add(rows)
    group = waiting.groups()[0]
    assert waiting.take(group, group.rows[:1]) == rows[:1]
    rows[1].cancelled = rows[3].cancelled = True
    assert named(waiting) == [("a", [2])]
    waiting.take(group, group.rows)
    assert named(waiting) == []


def test_put_back_comes_first_and_starts_again() -> None:
    waiting = WaitingRows()
    waiting.add([row("a", 0), row("b", 0), row("c", 0, seed=7)])
    groups = waiting.groups()
    taken = waiting.take(groups[1], groups[1].rows) + waiting.take(groups[2], groups[2].rows)
    waiting.add([row("b", 1)])
    first = taken[1].random.random()
    taken[0].ids += [1, 2]
    waiting.put_back(taken)
    assert named(waiting) == [("b", [0, 1]), ("c", [0]), ("a", [0])]
    assert taken[0].ids == []
    assert taken[1].random.random() == first


def test_waiting_for_rows_and_for_the_end() -> None:
    waiting = WaitingRows()
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(waiting.wait()))
    thread.start()
    waiting.add([row("a")])
    thread.join(10)
    waiting.close()
    assert seen == [True]
    assert not waiting.wait()
    assert not waiting.add([row("b")])
    assert named(waiting) == [("a", [0])]


def test_the_end_is_told_once() -> None:
    results: list[GeneratedReply | Exception] = []
    one = GenerationRow(GenerationRequest([1], "a", 0, None), 4, Random(0), results.append)
    one.end(GeneratedReply("x", 1, "stop"))
    assert one.ended
    assert results == [GeneratedReply("x", 1, "stop")]
