"""The model card (README.md): what the model was made from, and by what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith import __version__
from tunesmith.api.common import ModelSource
from tunesmith.training.export import base_name

CARD = "README.md"


def ends_note(tokens: Sequence[tuple[str, int]], *, adapter: bool) -> str:
    """Describe the tokens, with ids, at which a reply ends, and how to stop generation there."""
    listed = " or ".join(f"`{text}` ({id_})" for text, id_ in tokens)
    note = f"A reply ends with {listed}; `generation_config.json` names all of them."
    if not adapter:
        return note
    return (
        f"{note} With an adapter, transformers and vLLM read that file of the base model instead: pass "
        "this folder's to `generate`, `generation_config=GenerationConfig.from_pretrained(folder)`; to vLLM "
        "`--generation-config` and `--tokenizer` with this folder."
    )


def experts_note(parameters: Sequence[str]) -> str:
    """Describe an adapter on parameters (experts that are one tensor), and who reads it."""
    return (
        f"The adapter is on experts that are single tensors ({', '.join(sorted(parameters))}). Plain peft "
        "loads and merges it; vLLM does not read it: serve merged weights (`tunesmith export --to merged`)."
    )


def model_card(
    name: str,
    base: ModelSource,
    *,
    made: str,
    method: str,
    datasets: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> str:
    """Return the card as Markdown, the hub's metadata first. `made` is a phrase, `notes` are sentences."""
    lines = [
        "---",
        f"base_model: {json.dumps(base_name(base), ensure_ascii=False)}",
        "library_name: " + ("transformers" if method == "full" else "peft"),
        "tags: [tunesmith]",
        "---",
        f"# {name}",
        "",
        f"Made by Tunesmith {__version__}: {made}.",
        "",
        *(f"- {d['name']}: {d['samples']} samples, {d['label_tokens']} label tokens" for d in datasets),
    ]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"
