"""What a repository on the hub gets: the model, its adapter, a GGUF file, and a card about all of it.

The root is what plain transformers loads: merged weights if they are exported, else `final_model` itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tunesmith.api.addresses import HUB_DATASETS
from tunesmith.api.common import ModelSource
from tunesmith.artifacts.hub.push import OURS, HubRepository, licence_of
from tunesmith.engines.adapter import is_adapter
from tunesmith.engines.checkpoint import of_the_model
from tunesmith.engines.hub import SMALL
from tunesmith.export.folder import TEMPLATES
from tunesmith.export.forms import Form
from tunesmith.figures import decimal_size
from tunesmith.names import MANIFEST_KEY

CARD = "README.md"
ADAPTER = "adapter"
_MORE = ("*.safetensors", CARD, "LICENSE*", "LICENCE*", "NOTICE*")
"""Beside what belongs to tokenizer and configuration."""
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says beyond the model's own: the base's licence, scores of evaluations by name.

    `datasets` are the names on the hub of what it was trained on, `base` is that of its base model.
    """

    licence: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    datasets: Sequence[str] = ()
    base: str | None = None


def repository_files(tuned: Path, forms: Sequence[Form], folder: Path, facts: CardFacts) -> dict[str, Path]:
    """Return the files by their path in the repository; the card is written to `folder`."""
    found = {form.name.partition(" ")[0]: form for form in forms}
    merged, gguf = found.get("merged"), found.get("gguf")
    apart = merged is not None and merged.path != tuned and is_adapter(tuned)
    files = _model_files(merged.path if apart and merged else tuned)
    if apart:
        files |= {f"{ADAPTER}/{path}": file for path, file in _model_files(tuned).items()}
    if gguf is not None:
        files[gguf.path.name] = gguf.path
    own = (tuned / CARD).read_text("utf-8") if (tuned / CARD).is_file() else ""
    card = folder / CARD
    card.write_text(hub_card(own, forms, facts, apart=apart), "utf-8")
    return files | {CARD: card}


def _model_files(folder: Path) -> dict[str, Path]:
    """Return the files of a model by their names, and nothing else that a person's folder may hold.

    Not what only a resume reads: optimizer, random state and the like; not what is hidden.
    """
    wanted = (*SMALL, *_MORE)
    paths = [*sorted(folder.iterdir()), *sorted(folder.glob(f"{TEMPLATES}/*.jinja"))]
    return {
        path.relative_to(folder).as_posix(): path
        for path in paths
        if path.is_file()
        and path.name != MANIFEST_KEY
        and of_the_model(path.name)
        and any(fnmatch(path.name, pattern) for pattern in wanted)
    }


def hub_card(own: str, forms: Sequence[Form], facts: CardFacts, *, apart: bool) -> str:
    """Return a model's card with the licence, what else is in the repository, and how near each form is."""
    import yaml

    match = _FRONT.match(own)
    front: dict[str, Any] = (yaml.safe_load(match[1]) or {}) if match else {}
    if "/" in (base := str(front.get("base_model", ""))) and (":" in base or base.startswith("/")):
        del front["base_model"]  # the hub takes the names of its own models only
    front |= {"base_model": facts.base} if facts.base and not front.get("base_model") else {}
    front |= {"pipeline_tag": "text-generation"}
    front |= {"tags": list(dict.fromkeys([*_listed(front.get("tags")), OURS]))}
    if datasets := [each for each in facts.datasets if each not in _listed(front.get("datasets"))]:
        front |= {"datasets": [*_listed(front.get("datasets")), *datasets]}
    front |= {"license": facts.licence} if facts.licence else {}
    front |= {"library_name": "transformers"} if apart else {}
    front |= {
        "base_model_relation": "finetune" if apart or front.get("library_name") != "peft" else "adapter"
    }
    text = yaml.safe_dump(front, sort_keys=True, allow_unicode=True)
    body = (own[match.end() :] if match else own).rstrip()
    return "\n".join(["---", text.rstrip(), "---", body, *_sections(forms, facts, apart=apart), ""])


def hub_datasets(uris: Iterable[str | None]) -> list[str]:
    """Return the names on the hub of those addresses that are data sets there."""
    names = [
        uri.removeprefix(HUB_DATASETS).partition("@")[0]
        for uri in uris
        if uri and uri.startswith(HUB_DATASETS)
    ]
    return list(dict.fromkeys(names))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


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
