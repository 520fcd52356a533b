"""Compare outputs of one kind: plain values in, plain values out, for a table, a page and JSON.

Differences of evaluations are paired: each prompt is compared with itself, as in a report. Does not depend
on where outputs are and how the values are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.names import Kind
from tunesmith.report.validation_losses import validation_values
from tunesmith.report.values import Values
from tunesmith.sampling.metrics import Difference, Share

Scores = Mapping[str, tuple[int, int]]
"""Accepted and judged replies by the prompt's id."""
_DATASET = (
    ("records", "records"), ("samples", "samples"), ("seen_samples", "samples per epoch"),
    ("tokens", "tokens"),
    ("label_tokens", "label tokens"), ("validation_samples", "held out"), ("bad", "bad records"),
    ("duplicates", "equal samples"), ("cut", "truncated samples"),
)  # fmt: skip
_DIGESTS = {"data": "content of the samples", "model": "files of the model"}


@dataclass(frozen=True, slots=True)
class ComparedOutput:
    """What was read of one output. Of an unfinished one `result` is empty and `rows` are a checkpoint's."""

    name: str
    uri: str
    kind: Kind
    finished: bool
    fingerprint: Values
    result: Values = field(default_factory=dict)
    rows: Sequence[Values] = ()
    before: Values = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    """By the evaluation's name, "" for that of a RejectionSampleJob."""
    validation: Values = field(default_factory=dict)
    """The last validation's losses by record; empty if there are none."""

    @property
    def step(self) -> int | None:
        """Return the last step that is known."""
        return max((row["step"] for row in self.rows), default=None)

    @property
    def state(self) -> str:
        """Return how far it is, in words."""
        if self.finished:
            return "finished"
        return "unfinished" if self.step is None else f"unfinished, step {self.step}"


def compare_outputs(outputs: Sequence[ComparedOutput]) -> dict[str, Any]:
    """Return everything as plain values; differences are to the first output.

    - `kind`, `outputs` [{name, uri, state}]
    - `settings` [{field, values}]: those that differ, a value per output; `equal`: how many are the same
    - `data` [{name, values}]: counts of the datasets that differ, and whether samples and model are the same
    - `curves` [{training: [[step, loss]], validation: [[step, loss]]}]
    - `measures` [{name, unit, values}]: the results and costs, None where there is none
    - `validation`: as `validation_losses.validation_values`, or None
    - `evaluations` [{name, models: [{accuracy, accuracy_interval, prompts} or None], differences: [{against,
      prompts, gained, lost, difference, difference_interval} or None]}]
    - `previews` [{name, messages, before, replies}]: a reply per output
    """
    settings, equal = different_settings([output.fingerprint.get("spec") or {} for output in outputs])
    return {
        "kind": str(outputs[0].kind),
        "outputs": [{"name": each.name, "uri": each.uri, "state": each.state} for each in outputs],
        "settings": settings,
        "equal": equal,
        "data": [*_digests(outputs), *_datasets(outputs)],
        "curves": [_curves(each.rows) for each in outputs],
        "measures": [each for each in _measures(outputs) if any(v is not None for v in each["values"])],
        "validation": validation_values(
            [each.name for each in outputs], [each.validation for each in outputs]
        ),
        "evaluations": _evaluations(outputs),
        "previews": _previews(outputs),
    }


def different_settings(specs: Sequence[Values]) -> tuple[list[dict[str, Any]], int]:
    """Return the fields whose values differ, with a value per spec (None: absent), and how many are equal."""
    flat = [flattened(spec) for spec in specs]
    names = list(dict.fromkeys(name for each in flat for name in each))
    rows = [{"field": name, "values": [each.get(name) for each in flat]} for name in names]
    different = [row for row in rows if any(value != row["values"][0] for value in row["values"])]
    return different, len(rows) - len(different)


def flattened(value: Any, path: str = "") -> dict[str, Any]:
    """Return the plain values of a document by their dotted paths, as `tunesmith --set` writes them."""
    if isinstance(value, Mapping) and value:
        parts = [(f"{path}.{key}" if path else str(key), each) for key, each in value.items()]
    elif isinstance(value, list) and value:
        parts = [(f"{path}[{number}]", each) for number, each in enumerate(value)]
    else:
        return {} if value is None else {path: value}
    return {name: plain for part, each in parts for name, plain in flattened(each, part).items()}


def _digests(outputs: Sequence[ComparedOutput]) -> list[dict[str, Any]]:
    """Return, for samples and model, which outputs have the same: a letter for each content."""
    rows = []
    for key, name in _DIGESTS.items():
        found = [output.fingerprint.get(key) for output in outputs]
        letters = {each: chr(ord("A") + number % 26) for number, each in enumerate(dict.fromkeys(found))}
        if len(letters) > 1:
            values = [None if each is None else letters[each] for each in found]
            rows.append({"name": f"{name} (a letter each)", "values": values})
    return rows


def _datasets(outputs: Sequence[ComparedOutput]) -> list[dict[str, Any]]:
    found = [output.result.get("datasets") or [] for output in outputs]
    rows = []
    for number in range(max(map(len, found), default=0)):
        of = f" of dataset {number + 1}" if max(map(len, found)) > 1 else ""
        for key, name in _DATASET:
            values = [each[number].get(key) if number < len(each) else None for each in found]
            if len({value for value in values if value is not None}) > 1:
                rows.append({"name": f"{name}{of}", "values": values})
    return rows


def _curves(rows: Sequence[Values]) -> dict[str, list[list[float]]]:
    return {
        name: [[row["step"], row[key]] for row in rows if row.get(key) is not None]
        for name, key in (("training", "loss"), ("validation", "eval_loss"))
    }


def _measures(outputs: Sequence[ComparedOutput]) -> list[dict[str, Any]]:
    match outputs[0].kind:
        case Kind.FINE_TUNE:
            rows = [_trained(each) for each in outputs]
        case Kind.REJECTION_SAMPLE:
            rows = [_sampled(each.result) for each in outputs]
        case Kind.DIALOGUE_GEN:
            rows = [_talked(each.result) for each in outputs]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        {"name": name, "unit": unit, "values": [row.get((name, unit)) for row in rows]}
        for name, unit in names
    ]


Measures = dict[tuple[str, str], Any]
"""Values by name and unit."""


def _trained(output: ComparedOutput) -> Measures:
    result, rows = output.result, output.rows
    losses = result.get("validationLoss") or {}
    evals = [row["eval_loss"] for row in rows if row.get("eval_loss") is not None]
    tokens = sum(row.get("tokens") or 0 for row in rows)
    seconds = result.get("seconds")
    processes = (result.get("world") or {}).get("processes") or 1
    return {
        ("steps", ""): result.get("steps", output.step),
        ("training loss", "loss"): next((row["loss"] for row in reversed(rows) if "loss" in row), None),
        ("validation loss before", "loss"): losses.get("before", output.before.get("validationLoss")),
        ("validation loss after", "loss"): losses.get("after", evals[-1] if evals else None),
        ("lowest validation loss", "loss"): min(evals, default=None),
        ("tokens trained", ""): tokens or None,
        ("peak memory", "bytes"): max((row.get("memory_bytes") or 0 for row in rows), default=0) or None,
        ("time", "seconds"): seconds,
        ("time of all processes", "seconds"): seconds * processes if seconds and processes > 1 else None,
        ("device", ""): (result.get("world") or {}).get("device"),
    }


def _sampled(stats: Values) -> Measures:
    return {
        ("prompts", ""): stats.get("total_prompts"),
        ("replies", ""): stats.get("generations"),
        ("accepted", ""): stats.get("accepted"),
        ("prompts without an accepted reply", ""): stats.get("prompts_with_none_correct"),
        ("truncated", ""): stats.get("truncated"),
        ("tokens sampled", ""): (stats.get("tokens") or {}).get("drawn"),
        ("time", "seconds"): stats.get("seconds"),
    }


def _talked(stats: Values) -> Measures:
    dialogues, total = stats.get("dialogues") or {}, stats.get("total") or {}
    tokens = total.get("tokens") or {}
    return {
        ("dialogues", ""): dialogues.get("planned"),
        ("finished", ""): dialogues.get("finished"),
        ("failed", ""): dialogues.get("failed"),
        ("calls", ""): total.get("calls"),
        ("retries", ""): total.get("retries"),
        ("truncated texts", ""): total.get("truncated"),
        ("tokens of prompts", ""): tokens.get("prompt"),
        ("tokens of replies", ""): tokens.get("completion"),
        ("cost", "USD"): total.get("cost_usd"),
        ("time", "seconds"): stats.get("seconds"),
    }


def _evaluations(outputs: Sequence[ComparedOutput]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for output in outputs for name in output.scores))
    return [
        {
            "name": name or "accepted replies",
            "models": [_share(output.scores.get(name)) for output in outputs],
            "differences": [
                None if number == 0 else _difference(outputs, number, name) for number in range(len(outputs))
            ],
        }
        for name in names
    ]


def _share(scores: Scores | None) -> dict[str, Any] | None:
    if not scores:
        return None
    share = Share()
    for hits, trials in scores.values():
        share.add(hits, trials)
    return {"prompts": share.clusters, "replies": share.trials, **share.as_dict("accuracy")}


def _difference(outputs: Sequence[ComparedOutput], number: int, name: str) -> dict[str, Any] | None:
    """Return how one output's share differs from the first one's, over the prompts that both answered."""
    first, own = outputs[0].scores.get(name) or {}, outputs[number].scores.get(name) or {}
    difference, signs = Difference(), Counter[int]()
    for prompt in first.keys() & own.keys():
        (before, trials), (after, other) = first[prompt], own[prompt]
        if trials and other:
            change = after / other - before / trials
            difference.add(change)
            signs[(change > 0) - (change < 0)] += 1
    if not difference.pairs:
        return None
    counts = {"prompts": difference.pairs, "gained": signs[1], "lost": signs[-1]}
    return {"against": outputs[0].name, **counts, **difference.as_dict("difference")}


def _previews(outputs: Sequence[ComparedOutput]) -> list[dict[str, Any]]:
    """Return the previews that any output has answered; replies are None where there is none."""
    by_name: dict[str, dict[str, Any]] = {}
    for number, output in enumerate(outputs):
        for each in output.result.get("previews") or []:
            empty = {
                "name": each["name"], "messages": each["messages"], "before": each.get("before"),
                "replies": [None] * len(outputs),
            }  # fmt: skip
            texts = each.get("replies")
            reply = each.get("after") if texts is None else "\n\n".join(_named(text) for text in texts)
            by_name.setdefault(each["name"], empty)["replies"][number] = reply
    return list(by_name.values())


def _named(reply: Values) -> str:
    return f"{reply['model']}: {reply['text']}"
