"""The same dialogues with bespokelabs-curator: a dataset of all dialogues, one pass over it for each text.

Needs an environment of its own: `pip install bespokelabs-curator`.
"""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import work

options = work.parse()
# Nothing is to come from a cache, and nothing is to be sent elsewhere.
os.environ |= {
    "CURATOR_CACHE_DIR": str(options.folder / "cache"),
    "CURATOR_DISABLE_CACHE": "true",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_DISABLE_RICH_DISPLAY": "true",
    "OPENAI_API_KEY": "none",
    # It counts tokens with a vocabulary that litellm brings along, else it would have to be fetched.
    "TIKTOKEN_CACHE_DIR": str(Path(find_spec("litellm").origin).parent / "litellm_core_utils/tokenizers"),
}

from bespokelabs import curator  # noqa: E402 - it reads its settings when it is imported

logging.disable(logging.WARNING)


class Speaker(curator.LLM):
    """One text a row."""

    def prompt(self, row):
        """The messages."""
        return work.messages(row["rounds"], {k: v for k, v in row["asked"].items() if v is not None})

    def parse(self, row, response):
        """The row with the text."""
        asked = {k: v for k, v in row["asked"].items() if v is not None}
        return {**row, "asked": {**asked, work.ROLES[len(asked)]: response}}


def speaker() -> Speaker:
    """As many requests as the server allows, and the shortest pause after a refusal."""
    limits = {
        "max_requests_per_minute": options.rpm or 1_000_000,
        "max_tokens_per_minute": 1_000_000_000,
        "max_concurrent_requests": options.parallel,
        "seconds_to_pause_on_rate_limit": 1,
        "request_timeout": options.timeout,
        "max_retries": 6,
        "require_all_responses": False,
        "base_url": options.url,
        "invalid_finish_reasons": ["content_filter"],
    }
    generation = {"max_tokens": work.MAX_TOKENS}
    return Speaker(work.MODEL, backend="openai", backend_params=limits, generation_params=generation)


def main() -> None:
    """Pass after pass."""
    rows = [
        {"id": seed["id"], "rounds": [{role: seed[role] for role in work.ROLES}], "asked": {}}
        for seed in work.seeds(options.seeds)
    ]
    for _ in range(1, options.rounds):
        for _ in work.ROLES:
            rows = [dict(row) for row in speaker()(rows).dataset]
        rows = [{**row, "rounds": [*row["rounds"], row["asked"]], "asked": {}} for row in rows]
    work.report(len(rows), len(rows) * options.rounds, version=version("bespokelabs-curator"))


if __name__ == "__main__":
    main()
