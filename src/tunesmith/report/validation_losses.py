"""The final validation losses of compared outputs: intervals, and differences to the first output's.

Plain values in, plain values out. Each record is compared with itself; see `sampling.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.report.values import Values
from tunesmith.sampling.losses import RecordSums, loss_difference, mean_loss


def validation_values(names: Sequence[str], found: Sequence[Values]) -> dict[str, Any] | None:
    """Return what is known of the outputs' losses by record, None if nothing is; `found` are their files.

    - `losses` [{step, samples, records, loss, loss_interval} or None]: one per output
    - `differences` [{against, records, lower, higher, difference, difference_interval, same_labels} or None]
    - `notes`: sentences on outputs that cannot be compared so, or only in part
    """
    if not any(found):
        return None
    sums = [_sums(each) for each in found]
    differences = [
        loss_difference(sums[0], own) if number and _paired(found[0], found[number]) else None
        for number, own in enumerate(sums)
    ]
    return {
        "losses": [_loss(each, own) if each else None for each, own in zip(found, sums, strict=True)],
        "differences": [each and {"against": names[0], **each} for each in differences],
        "notes": [
            note
            for number, each in enumerate(differences)
            if number and (note := _note(names[0], names[number], found[0], found[number], each))
        ],
    }


def _sums(file: Values) -> RecordSums:
    return {each["key"]: (each["weight"], each["weightedLoss"]) for each in file.get("losses") or []}


def _loss(file: Values, sums: RecordSums) -> dict[str, Any]:
    samples = sum(each["samples"] for each in file["losses"])
    return {"step": file["step"], "samples": samples, "records": file["records"], **mean_loss(sums)}


def _paired(first: Values, own: Values) -> bool:
    """Return whether keys mean the same in both: how records are merged depends on all of them."""
    if not first or not own:
        return False
    merged = any(each["records"] > len(each["losses"]) for each in (first, own))
    return not merged or first["digest"] == own["digest"]


def _note(first: str, name: str, theirs: Values, mine: Values, found: Mapping[str, Any] | None) -> str:
    """Return a sentence on what a difference does not cover, "" if nothing."""
    if not theirs or not mine:
        missing = first if not theirs else name
        return f"{missing} has no losses by record, so {name} has no difference."
    if found is None:
        return f"{name} and {first} were validated on different records, so there is no difference."
    if theirs["digest"] != mine["digest"]:
        return (
            f"{name} and {first} were validated on different records: the difference is over the "
            f"{found['records']:,} that both have."
        )
    if not found["same_labels"]:
        return (
            f"{name} and {first} have different labels on the same records (another tokenizer, template or "
            "weight), so their losses are not of the same tokens."
        )
    return ""
