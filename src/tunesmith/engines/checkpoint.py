"""The model in a checkpoint of a FineTuneJob: used only if it is finished and undamaged.

Only the model of a checkpoint is fetched: what else is needed to resume is several times as large.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from tunesmith.artifacts.checkpoints import list_checkpoints, step_of
from tunesmith.artifacts.publish import Manifest, fetch_verified, read_manifest, verify_files
from tunesmith.artifacts.store import Store
from tunesmith.errors import CorruptObjectError, ModelError
from tunesmith.names import FINGERPRINT_KEY, MANIFEST_KEY, TRAINED_ADAPTER, checkpoint_key

Wanted = Callable[[str], bool]
# Files that are only read to resume: state of optimizer, scheduler and RNGs, DeepSpeed's shards, metrics.
_OF_A_RESUME = (
    "*.pt", "*.pth", "latest", "zero_to_fp32.py", f"{TRAINED_ADAPTER}/*",
    "trainer_state.json", "metrics.jsonl", "window.json", "health.json",
)  # fmt: skip
_CONFIGS = {"config.json", "adapter_config.json"}
_TOKENIZERS = {"tokenizer.json", "tokenizer_config.json"}


def split_checkpoint(uri: str) -> tuple[str, int] | None:
    """Return the output and the step of an address that ends in `checkpoint-<step>`, else None."""
    output, _, name = uri.rstrip("/").rpartition("/")
    step = step_of(name)
    return None if step is None or output.endswith("/") or not output else (output, step)


def of_the_model(key: str) -> bool:
    """Return whether a checkpoint's file is part of the model."""
    return not any(fnmatch(key, pattern) for pattern in _OF_A_RESUME)


def checkpoint_manifest(output: Store, step: int, named: str) -> Manifest | None:
    """Return the manifest of a checkpoint; None if the folder was written by another program.

    `named` is the address in error messages. Raises ModelError if the checkpoint does not exist, is not
    finished or has no model.
    """
    try:
        manifest = read_manifest(output, checkpoint_key(step))
    except CorruptObjectError as error:
        raise _damaged(named, error) from error
    if manifest is None:
        if output.exists(FINGERPRINT_KEY):
            raise ModelError(f"{named} {_not_published(output, step)}")
        return None
    if "step" not in manifest.extra:
        return None
    _check_model(manifest, named)
    return manifest


def fetch_checkpoint(output: Store, step: int, folder: Path, named: str, wanted: Wanted) -> None:
    """Download and verify the `wanted` files of a checkpoint. Raises ModelError if it is damaged."""
    try:
        fetch_verified(output, checkpoint_key(step), folder, wanted=wanted)
    except CorruptObjectError as error:
        raise _damaged(named, error) from error


def verify_checkpoint(folder: Path, manifest: Manifest, named: str, wanted: Wanted) -> None:
    """Verify the `wanted` files of a checkpoint that is used in place. Raises ModelError."""
    try:
        verify_files(folder, [file for file in manifest.files if wanted(file.key)])
    except CorruptObjectError as error:
        raise _damaged(named, error) from error


def _damaged(named: str, error: CorruptObjectError) -> ModelError:
    what = error.message.removesuffix(".")
    return ModelError(f"{named} is damaged: {what}. Start from another checkpoint.")


def _not_published(output: Store, step: int) -> str:
    """Return why there is no such checkpoint, and which ones exist."""
    listed = list_checkpoints(output)
    if step in listed:
        why = f"is not finished: it has no {MANIFEST_KEY}"
    else:
        why = "does not exist: that step was not saved, or training.saveTotalLimit deleted it"
    there = [checkpoint_key(each) for each in sorted(listed) if MANIFEST_KEY in listed[each]]
    return f"{why}. {output.uri} holds {', '.join(there) or 'no finished checkpoint'}."


def _check_model(manifest: Manifest, named: str) -> None:
    """Reject what earlier versions wrote: DeepSpeed's shards alone, and full models without tokenizer."""
    keys = {file.key for file in manifest.files}
    missing = None if keys & _CONFIGS else "weights but DeepSpeed's shards"
    if missing is None and "adapter_config.json" not in keys and not keys & _TOKENIZERS:
        missing = "tokenizer"
    if missing:
        raise ModelError(
            f"{named} has no {missing}: an earlier version of Tunesmith wrote it. Start from a checkpoint "
            "that the job saves after a resume, or from its final_model."
        )
