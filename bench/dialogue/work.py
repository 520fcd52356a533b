"""What every side does: so many dialogues, each question, answer and correction asked for round after round.

Runs without Tunesmith, since the peer has an environment of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROLES = ("question", "answer", "correction")
MAX_TOKENS = 120
MODEL = "stub"


def parse() -> argparse.Namespace:
    """The options that all sides share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--rpm", type=int, help="what the server allows; none: as many as it can")
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--timeout", type=int, required=True)
    parser.add_argument("--price", action="store_true", help="each reply is paid for")
    return parser.parse_args()


def seeds(count: int) -> list[dict[str, str]]:
    """Seeds of one sentence a field."""
    return [
        {
            "id": f"s{at}",
            "question": f"Why is number {at} on my bill?",
            "answer": "It is the fee for the quarter.",
            "correction": f"Number {at} is the fee for the quarter, which the contract names in article 4.",
        }
        for at in range(count)
    ]


def messages(rounds: list[dict[str, str]], asked: dict[str, str]) -> list[dict[str, str]]:
    """The prompt for the next text of a dialogue: what was said, and the role's task."""
    role = ROLES[len(asked)]
    said = "\n".join(f"{name}: {text}" for each in [*rounds, asked] for name, text in each.items())
    return [
        {"role": "system", "content": f"Write the next {role} of this conversation and nothing else."},
        {"role": "user", "content": said},
    ]


def report(dialogues: int, records: int, **more: Any) -> None:
    """The side's last line."""
    print(json.dumps({"dialogues": dialogues, "records": records, **more}), flush=True)
