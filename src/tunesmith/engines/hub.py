"""A model of the Hugging Face hub, or of its cache on this machine, as a folder.

Does not depend on what is done with it. Where no hub may be asked, the cache must hold it whole.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.opening import check_address, check_endpoint
from tunesmith.engines.hub_client import VENDOR, ask_only
from tunesmith.errors import ModelError, TemporaryError
from tunesmith.names import Reason

SMALL = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
_INDEX = "model.safetensors.index.json"
_CONFIGS = ("config.json", "adapter_config.json")


def from_hub(source: ModelSource, hub: HubSpec, token: str | None, tokenizer_only: bool, named: str) -> Path:
    """Return the folder of a model in the cache, where it is brought first unless no hub may be asked.

    Raises ModelError if it is not to be had, TemporaryError if the hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    assert source.uri is not None
    check_address(source.uri)
    offline = hub.offline or constants.HF_HUB_OFFLINE
    if hub.endpoint:
        check_endpoint(hub.endpoint)
    elif not offline and constants.ENDPOINT == VENDOR:
        check_endpoint(VENDOR, default_of="hub.endpoint")
    ask_only(hub.endpoint or constants.ENDPOINT)
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
    except GatedRepoError:
        raise ModelError(
            f"{named} {source.uri} is gated; set hub.tokenSecretRef to a token, or HF_TOKEN on one machine."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"model.revision {source.revision} does not exist at {source.uri}.") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{named} {source.uri} does not exist on the hub, or is private.") from None
    except ValueError as error:  # a name the hub cannot have
        raise ModelError(f"{named} {source.uri}: {first_line(error)}") from None
    except OSError as error:
        if offline and isinstance(error, LocalEntryNotFoundError):
            raise _not_cached(source, hub, named) from None
        raise TemporaryError(
            f"{named} {source.uri} could not be had from the hub: {first_line(error)}. "
            "Is the hub reachable from here? If not, put the model into s3:// or file://.",
            reason=Reason.HUB_UNAVAILABLE,
        ) from error
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
        f"so no hub is asked. Fill the cache where there is a network (`{command}`) and bring it here, or "
        "put the model into s3:// or file://."
    )


def _missing(folder: Path, tokenizer_only: bool) -> str:
    """The first file that a model needs and the folder lacks; empty if it is whole."""
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


def first_line(error: Exception) -> str:
    """The first line that says something; libraries write essays."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")
