"""What a repository on the hub gets: the model, its adapter, a GGUF file, and a card about all of it.

The root is what plain transformers loads: merged weights if they are exported, else `final_model` itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.api.common import ModelSource
from tunesmith.artifacts.hub.push import HubRepository, licence_of
from tunesmith.engines.adapter import is_adapter
from tunesmith.export.forms import Form
from tunesmith.figures import decimal_size
from tunesmith.names import MANIFEST_KEY

CARD = "README.md"
ADAPTER = "adapter"
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says beyond the model's own: the base's licence, and scores of evaluations by name."""

    licence: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def repository_files(tuned: Path, forms: Sequence[Form], folder: Path, facts: CardFacts) -> dict[str, Path]:
    """Return the files by their path in the repository; the card is written to `folder`."""
    found = {form.name.partition(" ")[0]: form for form in forms}
    merged, gguf = found.get("merged"), found.get("gguf")
    apart = merged is not None and merged.path != tuned and is_adapter(tuned)
    files = _below(merged.path if apart and merged else tuned)
    if apart:
        files |= {f"{ADAPTER}/{path}": file for path, file in _below(tuned).items()}
    if gguf is not None:
        files[gguf.path.name] = gguf.path
    own = (tuned / CARD).read_text("utf-8") if (tuned / CARD).is_file() else ""
    card = folder / CARD
    card.write_text(hub_card(own, forms, facts, apart=apart), "utf-8")
    return files | {CARD: card}


def _below(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths if path.name != MANIFEST_KEY}


def hub_card(own: str, forms: Sequence[Form], facts: CardFacts, *, apart: bool) -> str:
    """Return a model's card with the licence, what else is in the repository, and how near each form is."""
    import yaml

    match = _FRONT.match(own)
    front: dict[str, Any] = (yaml.safe_load(match[1]) or {}) if match else {}
    if "/" in (base := str(front.get("base_model", ""))) and (":" in base or base.startswith("/")):
        del front["base_model"]  # the hub takes the names of its own models only
    front |= {"pipeline_tag": "text-generation"}
    front |= {"license": facts.licence} if facts.licence else {}
    front |= {"library_name": "transformers"} if apart else {}
    front |= {
        "base_model_relation": "finetune" if apart or front.get("library_name") != "peft" else "adapter"
    }
    text = yaml.safe_dump(front, sort_keys=True, allow_unicode=True)
    body = (own[match.end() :] if match else own).rstrip()
    return "\n".join(["---", text.rstrip(), "---", body, *_sections(forms, facts, apart=apart), ""])


def _sections(forms: Sequence[Form], facts: CardFacts, *, apart: bool) -> list[str]:
    lines = []
    if apart:
        lines += ["", f"The weights here are merged; the adapter alone is in `{ADAPTER}/`."]
    if facts.licence is None:
        lines += ["", "The licence of the base model could not be read; it holds for this model too."]
    if facts.scores:
        lines += ["", "## Evaluation", "", "| evaluation | accepted replies |", "|---|---|"]
        lines += [f"| {name} | {score:.1%} |" for name, score in facts.scores.items()]
    if forms:
        lines += ["", "## Forms", "", "| form | size | tokens equal to the tuned model's |", "|---|---|---|"]
        lines += [
            f"| {form.name} | {decimal_size(form.facts['bytes'])} | {form.facts['equalTokens']:.1%} |"
            for form in forms
        ]
    return lines


def licence(base: ModelSource, folder: Path, hub: HubRepository) -> str | None:
    """Return the licence of a base model: from its card in `folder`, else from the hub; None if unknown."""
    import yaml

    path = folder / CARD
    match = _FRONT.match(path.read_text("utf-8")) if path.is_file() else None
    if match is not None:
        try:
            named = (yaml.safe_load(match[1]) or {}).get("license")
        except (yaml.YAMLError, AttributeError):
            named = None
        if isinstance(named, str):
            return named
    uri = base.uri or ""
    if not uri.startswith("hf://"):
        return None
    asked = HubRepository(uri.removeprefix("hf://"), True, hub.endpoint, hub.offline, hub.token)
    return licence_of(asked, base.revision)
