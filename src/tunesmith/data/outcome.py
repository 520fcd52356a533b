"""Summarise a generation job's statistics in one sentence: counts, reasons, and what to change.

For the job's status, and for a job whose input is empty because of it. Does not depend on how the numbers
were counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from tunesmith.data.record import Opener
from tunesmith.errors import StoragePermanentError
from tunesmith.names import MESSAGES_KEY, SAMPLED_DATA_KEY, SAMPLING_STATS_KEY, STATS_KEY

_SHOWN = 3
_WRONG = (
    "raise sampling.numSamples or sampling.temperature, or sample with a better model; first check that the "
    "records' references are what the verifier should match"
)
_VERIFIER = "repair the verifier: rejected.jsonl has its errors in `details`"
ADVICE = {
    "truncated": "raise sampling.maxNewTokens, or ask for shorter replies in the prompt",
    "prompt_too_long": "shorten the prompts, raise engine.vllm.maxModelLen or use a model with more context",
    "unparsable": "ask in the prompt for the format that the verifier parses, or sample with a tuned model",
    "schema_mismatch": "ask in the prompt for JSON of this schema, or sample with a better model",
    "no_match": "compare verifier.regex.pattern with the replies in rejected.jsonl",
    "refused_by_function": "compare what verifier.python.function accepts with the replies in rejected.jsonl",
    "wrong_charge": _WRONG,
    "wrong_term": _WRONG,
    "wrong_answer": _WRONG,
    "unknown_term": "the records' terms cannot be read: correct prison_time",
    "verifier_error": _VERIFIER,
    "verifier_nonsense": _VERIFIER,
    "verifier_timeout": "make the verifier faster, or raise verifier.python.timeoutSeconds",
    "verifier_out_of_memory": "reduce the verifier's memory use",
    "verifier_crashed": _VERIFIER,
}
"""What to change, by the most frequent reason for rejection."""


def acceptance(statistics: Mapping[str, Any]) -> str:
    """Return `0 of 16 accepted (16 truncated)`: of all replies that were requested and not cancelled."""
    wanted = statistics["planned_generations"] - statistics["cancelled"]
    why = reasons(statistics["reasons"])
    return f"{statistics['accepted']:,} of {wanted:,} accepted" + (f" ({why})" if why else "")


def reasons(counts: Mapping[str, int], marks: Mapping[str, str] = {}) -> str:
    """Return the most frequent reasons with their counts; `marks` are remarks after some of them."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    words = [f"{number:,} {name}{marks.get(name, '')}" for name, number in ranked[:_SHOWN]]
    rest = sum(number for _, number in ranked[_SHOWN:])
    return ", ".join([*words, f"{rest:,} for other reasons"] if rest else words)


def sampled(statistics: Mapping[str, Any]) -> str:
    """Return a sampler's outcome: `acceptance`, and what to change if nothing was accepted."""
    advice = "" if statistics["accepted"] else _advice(statistics["reasons"])
    return acceptance(statistics) + (f"; {advice}" if advice else "")


def nothing_accepted(statistics: Mapping[str, Any]) -> str:
    """Return why a sampler accepted nothing and what to change; "" if it accepted something."""
    if statistics["accepted"]:
        return ""
    counts = statistics["reasons"]
    limit = statistics.get("max_new_tokens")
    why = reasons(counts, {"truncated": f" at maxNewTokens {limit}"} if limit else {})
    wanted = sum(counts.values())
    name = f"RejectionSampleJob {statistics['job']}" if statistics.get("job") else "The sampling"
    said = f"{name} accepted none of {wanted:,} replies" + (f" ({why})" if why else "")
    advice = _advice(counts)
    return f"{said}; {advice}" if advice else said


def _advice(counts: Mapping[str, int]) -> str:
    return ADVICE.get(max(counts, key=lambda reason: counts[reason], default=""), "")


def nothing_finished(statistics: Mapping[str, Any]) -> str:
    """Return why a dialogue job finished no dialogue; "" if it finished one."""
    found = statistics["dialogues"]
    why = reasons(found["reasons"])
    said = f"The DialogueGenJob finished none of {found['planned']:,} dialogues" + (
        f" ({why})" if why else ""
    )
    return "" if found["finished"] else f"{said}; see failed.jsonl beside it for the errors"


def too_many_failed(statistics: Mapping[str, Any], allowed: float, first: str = "") -> str:
    """Return why a dialogue job failed, if more of its dialogues did than `allowed`, or all; else "".

    `first` describes the first failure.
    """
    found = statistics["dialogues"]
    failed, planned = found["failed"], found["planned"]
    if not failed or (failed < planned and failed <= allowed * planned):
        return ""
    said = f" The first: {first.rstrip('.')}." if first else ""
    return (
        f"{failed:,} of {planned:,} dialogues failed ({reasons(found['reasons'])}), and maxFailedRatio is "
        f"{allowed:g}.{said} Every reply is kept in the journal: `tunesmith run --retry-failed` "
        "(run.retryFailed: true) retries what failed, and a higher maxFailedRatio publishes the "
        "dialogues that are finished."
    )


def too_many_not_sampled(statistics: Mapping[str, Any], allowed: float) -> str:
    """Return why a sampler failed, if more of its prompts than `allowed` have no reply, or all; else ""."""
    without, prompts = statistics["prompts_not_sampled"], statistics["total_prompts"]
    if not without or (without < prompts and without <= allowed * prompts):
        return ""
    advice = ADVICE["prompt_too_long"]
    return (
        f"{without:,} of {prompts:,} prompts could not be sampled ({reasons(statistics['reasons'])}), and "
        f"maxFailedRatio is {allowed:g}. All rows are kept in the journal. "
        f"{advice[0].upper()}{advice[1:]}; a higher maxFailedRatio publishes what was sampled."
    )


_SENTENCES = {
    SAMPLED_DATA_KEY: (SAMPLING_STATS_KEY, nothing_accepted),
    MESSAGES_KEY: (STATS_KEY, nothing_finished),
}


def why_empty(store: Opener, key: str) -> str:
    """Return why the output of another job has no records, from its statistics; "" if they do not tell."""
    path = PurePosixPath(key)
    if path.name not in _SENTENCES:
        return ""
    beside, sentence = _SENTENCES[path.name]
    useless = suppress(StoragePermanentError, ValueError, KeyError, TypeError, AttributeError)
    with useless, store.open(str(path.with_name(beside))) as file:
        return sentence(json.load(file))
    return ""
