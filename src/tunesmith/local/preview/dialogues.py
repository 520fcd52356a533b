"""The first requests of a DialogueGenJob for each role, its costs and its limits. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.data.report import counted
from tunesmith.dialogue.dry_run import dry_run, sentences
from tunesmith.dialogue.prices import price_sentences, priced
from tunesmith.dialogue.rounds import DialoguePlan
from tunesmith.dialogue.seed_store import StoredSeeds
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.dialogue.state import ROLES
from tunesmith.dialogue.templates import load_templates
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.local.preview.console import messages, say, takes
from tunesmith.report.preview import render_dialogues_preview


def preview_dialogues(asked: PreviewRequest, spec: DialogueGenSpec) -> None:
    """Show what `dryRun` publishes on a cluster. Raises TunesmithError."""
    templates = load_templates(spec.roles, asked.options)
    with asked.counting("reading the seeds") as status:
        seeds = prepare_seeds(spec.seeds, asked.options, asked.folder / "seeds", progress=status.records)
    with seeds:
        known = priced(spec)
        found = dry_run(known, DialoguePlan.of(known, templates, ""), seeds, asked.first)
    groups = _groups(found, asked.first)
    told = [*sentences(found), *price_sentences(spec)]
    _show(asked.console, seeds, groups, told)
    asked.write_page(_page(asked, seeds, groups, found, told))


def _groups(found: Mapping[str, Any], first: int) -> list[dict[str, Any]]:
    """Return the first requests of each role that asks any."""
    by_role = {str(role): list[Any]() for role in ROLES}
    for request in found["requests"]:
        by_role[request["role"]].append(request)
    return [
        {"title": f"Role {role}", "shown": [_values(each) for each in requests[:first]]}
        for role, requests in by_role.items()
        if requests
    ]


def _values(request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{request['id']}, round {request['round']}",
        "facts": f"to {request['model']} (endpoint {request['endpoint']}), at most "
        f"{counted(request['max_tokens'], 'token')}, temperature {request['temperature']:g}",
        "turns": [(each["role"], _text(each)) for each in request["messages"]],
        "text": "",
    }


def _text(message: Mapping[str, Any]) -> str:
    """Return a message's text, and its calls one a line."""
    calls = [each["function"] for each in message.get("tool_calls", ())]
    lines = [f"{call['name']}({call['arguments']})" for call in calls]
    return "\n".join(filter(None, [message["content"], *lines]))


def _show(console: Console, seeds: StoredSeeds, groups: list[dict[str, Any]], told: list[str]) -> None:
    for group in groups:
        say(console, group["title"], "bold")
        for each in group["shown"]:
            say(console, f"{each['name']}: {each['facts']}", "bold")
            messages(console, each["turns"])
            console.print()
    say(console, "Seeds", "bold")
    for line in seeds.sentences():
        say(console, f"  {line}")
    takes(console, told)


def _page(
    asked: PreviewRequest,
    seeds: StoredSeeds,
    groups: list[dict[str, Any]],
    found: Mapping[str, Any],
    told: list[str],
) -> str:
    total = found["total"]
    return render_dialogues_preview(
        {
            "title": f"{asked.job.name}: what it asks",
            "summary": [
                ("Dialogues", found["dialogues"]),
                ("Rounds", found["rounds"]),
                ("Calls", total["calls"]),
                ("Tokens of prompts", total["tokens"]["prompt"]),
                ("Tokens of replies", total["tokens"]["completion"]),
            ],
            "takes": told,
            "notes": seeds.sentences(),
            "roles": [{"role": role, **each} for role, each in found["roles"].items()],
            "limits": found["limits"],
            "groups": groups,
        }
    )
