"""A model from the Hugging Face hub, or from its cache on this machine, as a folder.

Does not depend on what is done with it. If the hub may not be contacted, the cache must have it in full.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.hub.client import open_hub
from tunesmith.artifacts.hub.problems import HubQuestion, explained_hub
from tunesmith.artifacts.opening import check_address
from tunesmith.errors import ModelError

SMALL = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
_INDEX = "model.safetensors.index.json"
_CONFIGS = ("config.json", "adapter_config.json")


def from_hub(source: ModelSource, hub: HubSpec, token: str | None, tokenizer_only: bool, named: str) -> Path:
    """Return the folder of a model in the cache, after downloading it there unless the job is offline.

    Raises ModelError if the model is not available, TemporaryError if the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert source.uri is not None
    check_address(source.uri)
    offline = not open_hub(hub.endpoint, hub.offline)
    no_revision = f"model.revision {source.revision} does not exist at {source.uri}"
    with explained_hub(HubQuestion(f"{named} {source.uri}", "model", no_revision), ModelError):
        try:
            folder = Path(
                snapshot_download(
                    source.uri.removeprefix("hf://"),
                    revision=source.revision,
                    allow_patterns=SMALL if tokenizer_only else ["*.safetensors", *SMALL],
                    endpoint=hub.endpoint,
                    local_files_only=offline,
                    token=token,
                )
            )
        except LocalEntryNotFoundError:
            if offline:
                raise _not_cached(source, hub, named) from None
            raise
    if offline and (missing := _missing(folder, tokenizer_only)):
        raise _not_cached(source, hub, named, f" whole: {missing} is missing")
    return folder


def _not_cached(source: ModelSource, hub: HubSpec, named: str, how: str = "") -> ModelError:
    from huggingface_hub.constants import HF_HUB_CACHE

    assert source.uri is not None
    revision = f" (revision {source.revision})" if source.revision else ""
    command = f"hf download {source.uri.removeprefix('hf://')}"
    command += f" --revision {source.revision}" if source.revision else ""
    why = "hub.offline is true" if hub.offline else "HF_HUB_OFFLINE is set"
    return ModelError(
        f"{named} {source.uri}{revision} is not in the Hugging Face cache at {HF_HUB_CACHE}{how}, and {why}, "
        f"so no hub is asked. Fill the cache where there is a network (`{command}`) and copy it here, or "
        "put the model into s3:// or file://."
    )


def _missing(folder: Path, tokenizer_only: bool) -> str:
    """Return the first file that a model needs and the folder lacks; "" if it is complete."""
    if not any((folder / name).is_file() for name in _CONFIGS):
        return _CONFIGS[0]
    if tokenizer_only:
        return ""
    shards: set[str] = set()
    with suppress(OSError, ValueError, AttributeError):
        shards = {str(name) for name in json.loads((folder / _INDEX).read_bytes())["weight_map"].values()}
    absent = sorted(name for name in shards if not (folder / name).is_file())
    if absent:
        return absent[0]
    whole = any(path.is_file() for path in folder.glob("*.safetensors"))
    return "" if whole else "every *.safetensors"
