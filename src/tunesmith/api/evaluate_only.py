"""Rules of a FineTuneJob about `method: {none: {}}` and `compareWith`: what is valid only with or without.

The API server fills in the defaults of an absent block, so a block of only defaults counts as
absent, there and here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import WithJsonSchema

from tunesmith.api.addresses import inside, inside_cel
from tunesmith.api.base import Model, Rule

# A field of several types has none in the schema, and CEL cannot name it.
_UNREADABLE = "x-kubernetes-preserve-unknown-fields"
NONE = "has(self.method.none)"
_TRAINS_NOTHING = "cannot be combined with method none, which trains nothing; remove it"


def evaluate_only(spec: Any) -> bool:
    """Return whether a FineTuneSpec trains nothing."""
    return spec.method.none is not None


def evaluate_only_rules(blocks: Mapping[str, type[Model]]) -> tuple[Rule, ...]:
    """Return the rules about method none; `blocks` are training fields with defaults."""
    return (
        Rule(
            "is required, unless method is none",
            f"{NONE} || size(self.datasets) > 0",
            lambda m: evaluate_only(m) or bool(m.datasets),
            "datasets",
        ),
        Rule(
            _TRAINS_NOTHING,
            f"!{NONE} || size(self.datasets) == 0",
            lambda m: not evaluate_only(m) or not m.datasets,
            "datasets",
        ),
        *(_absent(name, block) for name, block in blocks.items()),
        Rule(
            _TRAINS_NOTHING,
            f"!{NONE} || !has(self.deepspeed)",
            lambda m: not evaluate_only(m) or m.deepspeed is None,
            "deepspeed",
        ),
        Rule(
            _TRAINS_NOTHING,
            f"!{NONE} || !has(self.tracking.wandb)",
            lambda m: not evaluate_only(m) or m.tracking.wandb is None,
            "tracking.wandb",
        ),
        Rule(
            _TRAINS_NOTHING,
            f"!{NONE} || !has(self.tracking.mlflow)",
            lambda m: not evaluate_only(m) or m.tracking.mlflow is None,
            "tracking.mlflow",
        ),
        Rule(
            "or previews is required with method none: there is nothing else to do",
            f"!{NONE} || size(self.evaluation) > 0 || size(self.previews) > 0",
            lambda m: not evaluate_only(m) or bool(m.evaluation or m.previews),
            "evaluation",
        ),
        Rule(
            "must be 1 with method none: models are evaluated on one pod",
            f"!{NONE} || self.resources.nodes == 1",
            lambda m: not evaluate_only(m) or m.resources.nodes == 1,
            "resources.nodes",
        ),
    )


def _absent(name: str, block: type[Model]) -> Rule:
    """Return whether the block has only default values."""
    same = " && ".join(_default_cel(f"self.{name}", block))
    return Rule(
        _TRAINS_NOTHING,
        f"!{NONE} || ({same})",
        lambda m: not evaluate_only(m) or getattr(m, name) == block(),
        name,
    )


def _default_cel(path: str, block: type[Model]) -> list[str]:
    """Return CEL that each field of a block that CEL can read has its default."""
    found = []
    for field in block.model_fields.values():
        if any(
            isinstance(each, WithJsonSchema) and _UNREADABLE in (each.json_schema or {})
            for each in field.metadata
        ):
            continue
        place, default = (
            f"{path}.{field.alias}",
            field.get_default(call_default_factory=True, validated_data={}),
        )
        if default is None:
            found.append(f"!has({place})")
        else:
            # CEL takes a number without a decimal point for an int, and a field of type number for a double.
            value = repr(default) if isinstance(default, float) else json.dumps(default)
            found.append(f"{place} == {value}")
    return found


def _compared(spec: Any) -> list[str]:
    sources = spec.compare_with or []
    return [uri for source in sources for uri in (source.uri, source.adapter_uri) if uri is not None]


_EACH = "!has(self.compareWith) || self.compareWith.all(c, {})"

COMPARE_RULES = (
    Rule(
        "needs evaluation, whose prompts the models answer, or method none with previews",
        f"!has(self.compareWith) || size(self.evaluation) > 0 || {NONE}",
        lambda m: not m.compare_with or bool(m.evaluation) or evaluate_only(m),
        "compareWith",
    ),
    Rule(
        "must not contain a model of compareWith, which it would overwrite",
        _EACH.format(
            f"(!has(c.uri) || !{inside_cel('c.uri')})"
            f" && (!has(c.adapterUri) || !{inside_cel('c.adapterUri')})"
        ),
        lambda m: not any(inside(uri, m.output.uri) for uri in _compared(m)),
        "output.uri",
    ),
)
