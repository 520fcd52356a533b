"""What a DialogueGenJob will need: calls, tokens, dollars and hours, as its dry run has them."""

from __future__ import annotations

from tunesmith.api.dialogue import BudgetSpec, DialogueGenSpec
from tunesmith.dialogue.dry_run import SECONDS_PER_CALL, SECONDS_PER_TOKEN, dry_run
from tunesmith.dialogue.prices import price_sentences, priced
from tunesmith.dialogue.rounds import DialoguePlan
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.dialogue.templates import load_templates
from tunesmith.local.estimate.options import Values
from tunesmith.local.preview.asked import PreviewRequest


def estimate_dialogues(asked: PreviewRequest, spec: DialogueGenSpec) -> Values:
    """Return what a DialogueGenJob needs, as plain values. Raises TunesmithError; its seeds must be there."""
    # Listed prices are looked up only for jobs with a budget.
    asking = spec.model_copy(update={"budget": spec.budget or BudgetSpec(max_usd=1.0)})
    templates = load_templates(spec.roles, asked.options)
    with asked.counting("reading the seeds") as status:
        seeds = prepare_seeds(spec.seeds, asked.options, asked.folder / "seeds", progress=status.records)
    with seeds:
        known = priced(asking).model_copy(update={"budget": spec.budget})
        found = dry_run(known, DialoguePlan.of(known, templates, ""), seeds)
    return {
        "run": {name: found[name] for name in ("dialogues", "rounds", "seconds", "busiest", "batches")},
        "roles": found["roles"],
        "total": found["total"],
        "mostCostUsd": found["most_cost_usd"],
        "budgetUsd": found["budget_usd"],
        "notes": [
            *price_sentences(asking),
            f"Assumed: {SECONDS_PER_CALL:g} s until the first token and {SECONDS_PER_TOKEN:g} s for each; "
            "replies as long as those of the seeds. Retries are not counted.",
        ],
    }
