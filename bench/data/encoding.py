"""Encoding alone, with and without `tokens/bpe_cache.py`: see README.md.

python bench/data/encoding.py MODEL [--conversations 2000] [--pairs 5]

In turns in one process: processor time of conversations to samples, without that of rendering templates,
which is another process's.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from statistics import median

import bench

from tunesmith.tokens.bpe_cache import BpeCache
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Conversation, Message


def ours(model: Path, *, cache: bool):
    """Encode as preparation does; the tokenizer's parts are made when they are first needed."""
    kept, tokenizer = BpeCache.of, ChatTokenizer.load(model)
    BpeCache.of = kept if cache else staticmethod(lambda tokenizer: None)

    def encode(records: list[dict]) -> None:
        for record in records:
            messages = tuple(Message(turn["role"], turn["content"]) for turn in record["messages"])
            tokenizer.samples(Conversation(messages), train_on="allAssistant", max_length=4096)

    encode(list(bench.chat_records(random.Random(1), 20)))
    BpeCache.of = kept
    return encode


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    records = list(bench.chat_records(random.Random(0), options.conversations))
    sides = {
        "tunesmith": ours(options.model, cache=True),
        "no cache": ours(options.model, cache=False),
    }
    times = {name: [] for name in sides}
    for _ in range(options.pairs):
        for name, encode in sides.items():
            began = time.process_time()
            encode(records)
            times[name].append(1e6 * (time.process_time() - began) / len(records))
    for name, all_ in times.items():
        ratio = median(one / mine for one, mine in zip(all_, times["tunesmith"], strict=True))
        print(f"{name:10} {median(all_):7.0f} µs of processor a conversation  ratio {ratio:5.2f}")


if __name__ == "__main__":
    main()
