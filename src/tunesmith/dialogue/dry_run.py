"""Dry run of a DialogueGenJob: its first requests, and estimated tokens, cost and time. Sends nothing. Pure.

The texts that models would write are not known. The requests shown have a placeholder for them; the estimate
uses the seed's own texts instead, so that later rounds are about as long as the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from tunesmith.api.dialogue import DialogueGenSpec, EndpointSpec, LimitsSpec
from tunesmith.dialogue.answers import estimate_tokens
from tunesmith.dialogue.money import Price, dollars
from tunesmith.dialogue.replies import Usage
from tunesmith.dialogue.rounds import MOST_OPEN_IN_BATCHES, DialoguePlan
from tunesmith.dialogue.state import ROLES, Dialogue, PlannedSeed, Role
from tunesmith.dialogue.turns import Call
from tunesmith.figures import about_minutes, usd

SHOWN = 3
"""Number of dialogues whose requests are shown."""
LOOKED_AT = 200
"""Number of seeds that the estimate is computed from, spread evenly over all."""
SECONDS_PER_CALL, SECONDS_PER_TOKEN = 0.6, 0.015
"""The assumed speed of a server: seconds until the first token, and per token of the reply."""
_TOKENS_OF_MESSAGE = 4


class SeedSequence(Protocol):
    """The part of `seed_store.StoredSeeds` that is needed here."""

    def __len__(self) -> int:
        """Return the number of seeds."""
        ...

    def __getitem__(self, position: int) -> PlannedSeed:
        """Return the seed at this position."""
        ...


@dataclass(slots=True)
class Expected:
    """Estimates for the calls of a role, costs in picodollars; `most_cost` if every reply is the longest."""

    calls: float = 0
    prompt: float = 0
    completion: float = 0
    cost: float = 0
    most_cost: float = 0

    def add(self, other: Expected, share: float = 1.0) -> None:
        """Add the other, multiplied by `share`."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value * share)


def dry_run(
    spec: DialogueGenSpec, plan: DialoguePlan, seeds: SeedSequence, shown: int = SHOWN
) -> dict[str, Any]:
    """Return what would be done:

    - `dialogues`, `rounds`; `requests`: of the first `shown` dialogues `[{id, round, role, endpoint, model,
      messages, temperature, max_tokens}]`
    - `roles`: of each `endpoint`, `model`, `calls`, `tokens` {prompt, completion}, `cost_usd`; `total`: the
      same over all, without the first two
    - `limits`: of each endpoint that a role plays `{endpoint, requests_at_once, requests_per_minute,
      tokens_per_minute, retries}`, None for no limit
    - `most_cost_usd`: if every reply is as long as it may be; `budget_usd`, None without
    - `seconds`: by the limits of the busiest endpoint, `busiest`; an estimate for external servers,
    and without `batches`, which are sent one after the other and take up to a day each
    """
    roles, asked = _expected(spec, plan, seeds)
    total = Expected()
    for each in roles.values():
        total.add(each)
    batched = [each for each in asked if _is_batched(spec, plan, each[1])]
    seconds = _seconds(spec, plan, roles)
    busiest = max(seconds, key=lambda name: seconds[name], default=None)
    return {
        "dialogues": len(seeds),
        "rounds": plan.rounds,
        "requests": [
            request for at in range(min(shown, len(seeds))) for request in _requests(spec, plan, seeds[at])
        ],
        "roles": {str(role): _played(spec, plan, role) | _values(each) for role, each in roles.items()},
        "total": _values(total),
        "limits": [_limits(name, spec.endpoints[name].limits) for name in _endpoints(plan)],
        "most_cost_usd": round(dollars(math.ceil(total.most_cost)), 6),
        "budget_usd": spec.budget.max_usd if spec.budget else None,
        "seconds": round(seconds[busiest], 1) if busiest else 0.0,
        "busiest": busiest,
        "batches": len(batched) * math.ceil(len(seeds) / MOST_OPEN_IN_BATCHES),
    }


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Return the figures in words, for a log."""
    total, budget = found["total"], found["budget_usd"]
    lines = [
        f"Dry run: nothing is sent. {found['dialogues']:,} dialogues of {found['rounds']} rounds.",
        f"About {total['calls']:,} calls, {total['tokens']['prompt']:,} tokens of prompts and "
        f"{total['tokens']['completion']:,} of replies.",
    ]
    if found["most_cost_usd"]:
        lines.append(
            f"About {usd(total['cost_usd'])}, at most {usd(found['most_cost_usd'])} without retries."
        )
    if budget is not None and total["cost_usd"] > budget:
        lines.append(f"budget.maxUsd is {budget:g}: the job would stop before its end.")
    if found["batches"]:
        lines.append(f"{found['batches']} batches, one after the other; each may take a day.")
    if found["busiest"]:
        lines.append(f"{about_minutes(found['seconds'])}, for which endpoint {found['busiest']} decides.")
    return [*lines, *map(_limits_in_words, found["limits"])]


def _limits_in_words(limits: Mapping[str, Any]) -> str:
    rates = {"requests": limits["requests_per_minute"], "tokens": limits["tokens_per_minute"]}
    known = [f"{rate:,} {what} per minute" for what, rate in rates.items() if rate is not None]
    told = ", ".join([f"{limits['requests_at_once']:,} requests at once", *known])
    return f"Endpoint {limits['endpoint']}: at most {told}; each call is retried {limits['retries']:,} times."


def _endpoints(plan: DialoguePlan) -> list[str]:
    return list(dict.fromkeys(plan.roles[role].endpoint for role in ROLES))


def _limits(name: str, limits: LimitsSpec) -> dict[str, Any]:
    return {
        "endpoint": name,
        "requests_at_once": limits.max_parallel_requests,
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "retries": limits.max_retries,
    }


def _played(spec: DialogueGenSpec, plan: DialoguePlan, role: Role) -> dict[str, Any]:
    endpoint = plan.roles[role].endpoint
    return {"endpoint": endpoint, "model": _model(spec.endpoints[endpoint])}


def _requests(spec: DialogueGenSpec, plan: DialoguePlan, seed: PlannedSeed) -> list[dict[str, Any]]:
    shown, dialogue = list[dict[str, Any]](), Dialogue(seed, plan.rounds)
    while dialogue.wanted is not None:
        call = plan.call_for(dialogue)
        endpoint = plan.roles[call.role].endpoint
        shown.append(
            {
                "id": seed.id,
                "round": call.round,
                "role": str(call.role),
                "endpoint": endpoint,
                "model": _model(spec.endpoints[endpoint]),
                "messages": list(call.messages),
                "temperature": call.temperature,
                "max_tokens": call.max_tokens,
            }
        )
        dialogue.say(f"⟨{call.role} of round {call.round}⟩")
    return shown


def _model(endpoint: EndpointSpec) -> str:
    if endpoint.openai is not None:
        return endpoint.openai.model
    engine = endpoint.vllm or endpoint.transformers
    return (engine.model.uri or "") if engine is not None else ""


def _expected(
    spec: DialogueGenSpec, plan: DialoguePlan, seeds: SeedSequence
) -> tuple[dict[Role, Expected], set[tuple[int, Role]]]:
    """Return the estimates by role, and the (round, role) pairs that make calls."""
    count = min(LOOKED_AT, len(seeds))
    roles, asked = {role: Expected() for role in ROLES}, set[tuple[int, Role]]()
    for number in range(count):
        seed = seeds[number * len(seeds) // count]
        for call, each in _of_seed(spec, plan, seed):
            roles[call.role].add(each, len(seeds) / count)
            asked.add((call.round, call.role))
    return roles, asked


def _is_batched(spec: DialogueGenSpec, plan: DialoguePlan, role: Role) -> bool:
    openai = spec.endpoints[plan.roles[role].endpoint].openai
    return openai is not None and openai.batch is not None


def _of_seed(spec: DialogueGenSpec, plan: DialoguePlan, seed: PlannedSeed) -> list[tuple[Call, Expected]]:
    found, dialogue = list[tuple[Call, Expected]](), Dialogue(seed, plan.rounds)
    while dialogue.wanted is not None:
        call = plan.call_for(dialogue)
        text = _stand_in(seed, call.role)
        found.append((call, _of_call(spec, plan, call, text)))
        dialogue.say(text)
    return found


def _stand_in(seed: PlannedSeed, role: Role) -> str:
    """Return the seed's own text of the role, or the one most like it."""
    first = seed.rounds[0]
    match role:
        case Role.QUESTION:
            return first.question
        case Role.ANSWER:
            return first.answer or first.correction or ""
        case Role.CORRECTION:
            return first.correction or first.answer or ""


def _of_call(spec: DialogueGenSpec, plan: DialoguePlan, call: Call, text: str) -> Expected:
    said = sum(estimate_tokens(each["content"]) + _TOKENS_OF_MESSAGE for each in call.messages)
    completion = min(call.max_tokens, estimate_tokens(text))
    made = Price.at(spec.endpoints[plan.roles[call.role].endpoint]) or Price(0, 0)
    return Expected(
        1,
        said,
        completion,
        made.cost(Usage(said, completion)),
        made.cost(Usage(said, call.max_tokens)),
    )


def _values(each: Expected) -> dict[str, Any]:
    return {
        "calls": round(each.calls),
        "tokens": {"prompt": round(each.prompt), "completion": round(each.completion)},
        "cost_usd": round(dollars(math.ceil(each.cost)), 6),
    }


def _seconds(spec: DialogueGenSpec, plan: DialoguePlan, roles: Mapping[Role, Expected]) -> dict[str, float]:
    """Return the seconds per endpoint by its tightest limit: requests or tokens per minute, parallelism."""
    found = {}
    for name in sorted({plan.roles[role].endpoint for role in ROLES if not _is_batched(spec, plan, role)}):
        here = [each for role, each in roles.items() if plan.roles[role].endpoint == name]
        found[name] = _seconds_of(spec.endpoints[name], here)
    return found


def _seconds_of(endpoint: EndpointSpec, roles: Sequence[Expected]) -> float:
    limits = endpoint.limits
    calls = sum(each.calls for each in roles)
    completion = sum(each.completion for each in roles)
    tokens = completion + sum(each.prompt for each in roles)
    waiting = calls * SECONDS_PER_CALL + completion * SECONDS_PER_TOKEN
    return max(
        waiting / limits.max_parallel_requests,
        60 * calls / limits.requests_per_minute if limits.requests_per_minute else 0.0,
        60 * tokens / limits.tokens_per_minute if limits.tokens_per_minute else 0.0,
    )
