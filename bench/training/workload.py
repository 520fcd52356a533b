"""The samples of the comparison: token ids and labels, the same for every side."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from transformers import AutoTokenizer

NAMES = ("cases", "flat", "simple", "chat")
STEP = 16  # samples of an optimizer step


def text_tokens(model: str) -> list[int]:
    """Tokens of prose and code that every Python brings with it."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    found: list[int] = []
    for path in sorted(Path(json.__file__).parents[1].glob("*.py"))[:60]:
        found += tokenizer(path.read_text("utf-8", "replace"))["input_ids"]
    return found


class Text:
    """Takes pieces of the text at random places."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens, self._draw = tokens, random.Random(0)

    def take(self, count: int) -> list[int]:
        """So many tokens in a row."""
        start = self._draw.randrange(len(self._tokens) - count)
        return self._tokens[start : start + count]


def sample(prompt: list[int], reply: list[int], group: int) -> dict:
    """A prompt without labels and a reply with."""
    return {"ids": prompt + reply, "labels": [0] * len(prompt) + [1] * len(reply), "group": group}


def cases(text: Text, count: int) -> list[dict]:
    """(a) cases of 480 tokens with 8 replies of 60."""
    made = []
    for group in range(count):
        prompt = text.take(480)
        made += [sample(prompt, text.take(60), group) for _ in range(8)]
    return made


def dialogues(text: Text, count: int, branch: list[int]) -> list[dict]:
    """(b) dialogues of 32 turns of 25 tokens, the 16 turns of one side each a sample.

    `branch` are the tokens between the dialogue and the answer: with `flat` prompts the dialogue is a text in
    the prompt, closed before the answer, so that answers branch off a trunk. Without, samples are a chain.
    """
    made = []
    for group in range(count):
        turns = [text.take(25) for _ in range(32)]
        for turn in range(1, 32, 2):
            before = [token for part in turns[:turn] for token in part]
            made.append(sample(before + branch, turns[turn], group))
    return made


def chat(text: Text, count: int) -> list[dict]:
    """(c) conversations without common beginnings, lengths and labels as in OASST (median 350, 80 %)."""
    draw, made = random.Random(1), []
    for group in range(count):
        length = min(2048, max(48, round(draw.lognormvariate(5.93, 0.70))))
        labels: list[int] = []
        while len(labels) < length:
            turn = max(10, length // 2)
            labels += [0] * (turn // 5) + [1] * (turn - turn // 5)
        made.append({"ids": text.take(length), "labels": labels[:length], "group": group})
    return made


def workload(name: str, model: str, count: int) -> list[dict]:
    """`count` cases, dialogues or (times four) conversations."""
    text = Text(text_tokens(model))
    match name:
        case "cases":
            return cases(text, count)
        case "flat":
            return dialogues(text, count, text.take(5))  # what a template puts between system and reply
        case "simple":
            return dialogues(text, count, [])
        case _:
            return chat(text, count * 4)


def ordered(samples: list[dict]) -> list[dict]:
    """Groups in a random order, the same on every side; those of a group stay together."""
    groups = sorted({s["group"] for s in samples})
    random.Random(2).shuffle(groups)
    return [s for group in groups for s in samples if s["group"] == group]


if __name__ == "__main__":
    name, model, count, path = sys.argv[1:]
    Path(path).write_text(json.dumps(ordered(workload(name, model, int(count)))))
