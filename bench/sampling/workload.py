"""What both sides draw: sums to be explained, new ones each round, with the same settings and token ids."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import SamplingSpec, VllmEngine
from tunesmith.data.prompts.store import Prompt
from tunesmith.engines.files import ModelFiles
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Message

SEED = 0
PATTERN = r"(-?\d+)\D*$"
"""The last number of a reply."""
_SYSTEM = (
    "You are a careful teacher of arithmetic. You explain every sum in two or three short sentences, one "
    "after the other, for a child of eight years. You name the tens and the ones, you say what is carried "
    "over, and you never use a formula. The very last thing you write is the result, as a number and nothing "
    "else.\n\nExample: for 17 + 25 you say that 7 and 5 make 12, so 2 is written and 1 is carried, that 1 "
    "and 2 and 1 make 4, and that the result is 42."
)


class Steps:
    """How many of vLLM's steps brought tokens. Luck with lengths changes how many tokens a step brings."""

    def __init__(self) -> None:
        self.number = 0

    def count(self) -> None:
        """Called with each step that brings tokens."""
        self.number += 1


def parse() -> argparse.Namespace:
    """The options that all scripts share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=24, help="prompts a round, eight replies each")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of a reply at most")
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each side")
    parser.add_argument("--huge-pages", action="store_true", help="for the peer, too")
    parser.add_argument("--same-replies", action="store_true", help="a seed for each, the same on both sides")
    return parser.parse_args()


def sampling(options: argparse.Namespace) -> SamplingSpec:
    """The defaults of a job, but for the length."""
    return SamplingSpec(
        num_samples=8, max_new_tokens=options.tokens, deterministic=options.same_replies, seed=SEED
    )


def settings() -> VllmEngine:
    """Room for both sides, of which only one runs, but both are in memory; on a CPU few requests at once."""
    import torch

    if torch.cuda.is_available():
        return VllmEngine(gpu_memory_utilization=0.4, max_model_len=2048)
    return VllmEngine(max_model_len=2048, extra={"kv_cache_memory_bytes": 1 << 30, "max_num_seqs": 16})


def source(folder: Path) -> tuple[ModelFiles, ModelSource, ChatTokenizer]:
    """The model's files, its address and its tokenizer."""
    address = ModelSource(uri=str(folder.resolve()))
    return ModelFiles(folder.resolve(), (), address), address, ChatTokenizer.load(folder)


def prompts(tokenizer: ChatTokenizer, number: int, count: int) -> list[Prompt]:
    """The prompts of a round, the same for both sides."""
    chance = random.Random(f"{SEED}/{number}")
    return [_prompt(tokenizer, f"{number}-{n}", chance) for n in range(count)]


def _prompt(tokenizer: ChatTokenizer, name: str, chance: random.Random) -> Prompt:
    a, b = chance.randint(2, 99), chance.randint(2, 99)
    messages = (Message("system", _SYSTEM), Message("user", f"What is {a} + {b}?"))
    return Prompt(name, {"answer": str(a + b)}, messages, tokenizer.prompt_ids(messages), None)
