"""The script people have: one call after the other, a pause of 0.1 to 0.3 s between them, a few tries."""

from __future__ import annotations

import random
import time

import httpx2 as httpx
import work


def main() -> None:
    """All dialogues."""
    options = work.parse()
    whole = 0
    with httpx.Client(timeout=options.timeout) as client:
        for seed in work.seeds(options.seeds):
            whole += dialogue(client, options, seed)
    work.report(whole, whole * options.rounds)


def dialogue(client: httpx.Client, options, seed: dict[str, str]) -> bool:
    """One, to its end or to a call that fails three times."""
    rounds = [{role: seed[role] for role in work.ROLES}]
    while len(rounds) < options.rounds:
        asked: dict[str, str] = {}
        for role in work.ROLES:
            text = ask(client, options.url, work.messages(rounds, asked))
            if text is None:
                return False
            asked[role] = text
        rounds.append(asked)
    return True


def ask(client: httpx.Client, url: str, messages: list[dict[str, str]]) -> str | None:
    """One text; None after the third try."""
    body = {"model": work.MODEL, "messages": messages, "max_tokens": work.MAX_TOKENS}
    for attempt in range(3):
        time.sleep(random.uniform(0.1, 0.3) + 2 * attempt)
        try:
            answer = client.post(f"{url}/chat/completions", json=body)
            answer.raise_for_status()
            return answer.json()["choices"][0]["message"]["content"]
        except (httpx.HTTPError, ValueError, LookupError):
            continue
    return None


if __name__ == "__main__":
    main()
