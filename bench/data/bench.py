"""Preparing data: Tunesmith against Hugging Face datasets, and the memory that a million samples need.

    python bench/data/bench.py speed MODEL [--conversations 60000] [--dialogues 3000] [--pairs 3]
        [--prose FILE] [--template FILE]
    python bench/data/bench.py memory MODEL [--samples 1000000]

MODEL is a folder with a tokenizer whose template is ChatML (SmolLM2, Qwen2.5, …). `speed` needs `pip install
datasets` beside the `data` extra; torch need not be there. Both sides read the same JSON lines, made here
from a seed, with the same tokenizer, each as a process of its own, in turns. Times are those of a whole
process, its start and imports included; the figures are medians of the pairs. The text is Python's manual, or
that of `--prose`; `--template` is a chat template to use in place of the model's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics

# Prose that every Python brings with it: the reference manual's chapters.
PROSE = [" ".join(topics[name] for name in sorted(topics))]


def text(rng: random.Random, low: int, high: int) -> str:
    """Some words of the prose, white space and all, from anywhere."""
    size = 6 * rng.randint(low, high)
    start = rng.randrange(len(PROSE[0]) - size)
    return PROSE[0][start : start + size].strip() or "yes"


def with_template(model: str, template: Path, folder: Path) -> str:
    """A copy of a model's tokenizer with another chat template."""
    folder.mkdir()
    for path in Path(model).glob("*.json"):
        shutil.copy(path, folder)
    shutil.copy(template, folder / "chat_template.jinja")
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return str(folder)


def chat_records(rng: random.Random, count: int):
    """Conversations of one to four questions."""
    for number in range(count):
        turns = []
        for _ in range(rng.choice([1, 1, 2, 3, 4])):
            turns.append({"role": "user", "content": text(rng, 5, 60)})
            turns.append({"role": "assistant", "content": text(rng, 20, 160)})
        yield {"id": f"c{number}", "messages": turns}


def user_records(rng: random.Random, count: int, turns: int = 16, words: tuple[int, int] = (8, 24)):
    """Users with one dialogue of `turns` turns of their own each."""
    for number in range(count):
        context = []
        for _ in range(turns):
            context.append({"source": "bot", "content": text(rng, *words)})
            context.append({"source": "user", "content": text(rng, *words)})
        item = {"context": context[:-1], "continuation": context[-1]["content"]}
        task = {"description": "Chat.", "task_behavior_collections": [{"type": "chat", "data": [item]}]}
        user = {"profile": {"name": f"N{number}", "about": text(rng, 20, 60)}}
        yield {"user_hash": f"u{number}", "user": user, "task": task}


def write(path: Path, records) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


def run(*command: str) -> dict[str, float]:
    """Run one side; seconds of the whole process, and what it says of itself."""
    began, used = time.perf_counter(), processor_seconds()
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    said = json.loads(done.stdout.splitlines()[-1])
    seconds = {"seconds": time.perf_counter() - began, "cpu": processor_seconds() - used}
    return {**said, **seconds}


def processor_seconds() -> float:
    """User and system time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def speed(model: str, conversations: int, dialogues: int, pairs: int, template: Path | None) -> None:
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as temp:
        rng = random.Random(0)
        if template is not None:
            model = with_template(model, template, Path(temp) / "model")
        inputs = {"chat": write(Path(temp) / "chat.jsonl", chat_records(rng, conversations))}
        if dialogues:
            inputs["users"] = write(Path(temp) / "users.jsonl", user_records(rng, dialogues))
        for name, path in inputs.items():
            modes = ("ids", "labels") if name == "chat" else ("samples",)
            times: dict[str, list[dict[str, float]]] = {
                mode: [] for mode in ("tunesmith", "no cache", *modes)
            }
            for _ in range(pairs):
                times["tunesmith"].append(run(str(here / "ours.py"), name, str(path), model))
                times["no cache"].append(run(str(here / "ours.py"), name, str(path), model, "--no-cache"))
                for mode in modes:
                    times[mode].append(run(str(here / "peer.py"), mode, str(path), model))
            ours, ours_cpu = (
                statistics.median(one[unit] for one in times["tunesmith"]) for unit in ("seconds", "cpu")
            )
            for mode, all_ in times.items():
                seconds = statistics.median(one["seconds"] for one in all_)
                cpu, tokens = statistics.median(one["cpu"] for one in all_), all_[0]["tokens"]
                print(
                    f"{name:6} {mode:10} {seconds:7.1f} s  {tokens / seconds:12,.0f} tokens/s  "
                    f"{all_[0]['samples']:9,.0f} samples {tokens:13,.0f} tokens  "
                    f"ratio {seconds / ours:5.2f}  {cpu:7.1f} s of processor, ratio {cpu / ours_cpu:5.2f}",
                    flush=True,
                )


def short_records(rng: random.Random, count: int):
    """One short question and answer each."""
    for number in range(count):
        turns = [("user", text(rng, 2, 8)), ("assistant", text(rng, 4, 12))]
        yield {"id": f"c{number}", "messages": [{"role": role, "content": said} for role, said in turns]}


def memory(model: str, samples: int) -> None:
    ours = str(Path(__file__).parent / "ours.py")
    with tempfile.TemporaryDirectory() as temp:
        for name, records in {
            "chat": short_records(random.Random(0), samples),
            "users": user_records(random.Random(0), samples // 16, words=(2, 6)),
        }.items():
            path = write(Path(temp) / f"{name}.jsonl", records)
            print(name, json.dumps({**run(ours, name, str(path), model), "bytes": path.stat().st_size}))
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("model")
    parser.add_argument("--conversations", type=int, default=60_000)
    parser.add_argument("--dialogues", type=int, default=3_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--prose", type=Path)
    parser.add_argument("--template", type=Path)
    args = parser.parse_args()
    if args.prose:
        PROSE[0] = args.prose.read_text("utf-8")
    if args.what == "speed":
        speed(args.model, args.conversations, args.dialogues, args.pairs, args.template)
    else:
        memory(args.model, args.samples)


if __name__ == "__main__":
    main()
