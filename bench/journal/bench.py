"""The journal's local half against SQLite in WAL mode: see README.md.

python bench/journal/bench.py [--rows 20000] [--pairs 5]

Both append the same rows, seal a hundred at a time, read each sealed segment as a part for the store, and
drop it; then rows are written and each is flushed to the disk; then processes are killed while they append.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from sqlite_segments import SqliteSegments

from tunesmith.artifacts.journal.segments import Segments, read_segment

SIDES: dict[str, Callable[[Path], Any]] = {
    "files": lambda folder: Segments(folder, "bench"),
    "sqlite": lambda folder: SqliteSegments(folder, "bench"),
}
SEAL, DURABLE, KILLS = 100, 200, 10


def record(chance: random.Random) -> dict[str, Any]:
    """A row like those of a sampling job: a reply of some 1,500 characters."""
    reply = "".join(chance.choices("etaoin shrdlu\n", k=1500))
    return {"reply": reply, "tokens": 400, "finish_reason": "stop", "accepted": True, "seed": chance.random()}


def send(segments: Any) -> None:
    """Read every sealed segment as a part, and drop it."""
    segments.seal()
    for sealed in list(segments.sealed):
        if isinstance(segments, Segments):
            read_segment(sealed)
        else:
            segments.read(sealed)
        segments.drop(sealed)


def rates(side: str, rows: int) -> dict[str, float]:
    """Microseconds of processor a row: appended and sent; and seconds a row that is flushed."""
    chance = random.Random(0)
    records = [record(chance) for _ in range(1000)]
    with tempfile.TemporaryDirectory() as folder:
        segments = SIDES[side](Path(folder))
        cpu = time.process_time()
        for number in range(rows):
            segments.append(f"prompt-{number}/0", records[number % 1000])
            if segments.rows == SEAL:
                send(segments)
        send(segments)
        used, began = time.process_time() - cpu, time.perf_counter()
        for number in range(DURABLE):
            segments.append(f"durable-{number}/0", records[number])
            segments.sync()
        flushed = time.perf_counter() - began
        segments.close()
    return {"cpu": 1e6 * used / rows, "durable": 1e3 * flushed / DURABLE}


def child(side: str, folder: str) -> None:
    """Append for ever, and say after each row that it is there."""
    segments, chance, number = SIDES[side](Path(folder)), random.Random(1), 0
    while True:
        segments.append(f"row-{number}", record(chance))
        print(number, flush=True)
        number += 1


def lost(side: str) -> int:
    """Rows that were said to be there and are not, after a kill -9 at any moment."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", side, folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        said = [process.stdout.readline()]
        deadline = time.monotonic() + random.uniform(0.05, 0.5)
        while time.monotonic() < deadline:
            said.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].splitlines()
        segments = SIDES[side](Path(folder))
        read = read_segment if side == "files" else segments.read
        found = sum(len(read(each)[1]) // 10 for each in segments.sealed)
        segments.close()
    return max(0, len([line for line in said if line.strip()]) - found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    seen: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(options.pairs):
        for side in SIDES:
            seen[side].append(rates(side, options.rows))
    for side, all_ in seen.items():
        cpu, durable = (median(each[name] for each in all_) for name in ("cpu", "durable"))
        killed = sum(lost(side) for _ in range(KILLS))
        print(
            f"{side:7} {cpu:7.1f} µs of processor a row  {durable:7.2f} ms a flushed row  "
            f"{killed} rows lost in {KILLS} kills",
            flush=True,
        )
    ratios = [s["cpu"] / f["cpu"] for f, s in zip(seen["files"], seen["sqlite"], strict=True)]
    print(f"sqlite / files, processor: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
