"""Models from where the manifest says to a folder on disk, and from there into memory.

Only safetensors weights are loaded, and no code that a repository brings unless the manifest asks for it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.store import StorageOptions, find_files, open_store
from tunesmith.artifacts.transfer import get_tree
from tunesmith.errors import ModelError, StoragePermanentError, TemporaryError
from tunesmith.names import Reason

if TYPE_CHECKING:
    import torch

ADAPTER_CONFIG = "adapter_config.json"
_FROM_HUB = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


def local_path(uri: str) -> Path | None:
    """The folder itself where `uri` is one of this machine, else None."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return Path(uri) if uri.startswith("/") else None


def fetch_model(
    source: ModelSource,
    hub: HubSpec,
    options: StorageOptions,
    folder: Path,
    token: str | None = None,
    *,
    tokenizer_only: bool = False,
) -> Path:
    """Bring a model to this machine; a local folder is used where it is. Returns its folder."""
    assert source.uri is not None  # plan has resolved every fromJob
    path = local_path(source.uri)
    if path is not None:
        if not path.is_dir():
            raise ModelError(f"model.uri {source.uri}: there is no such folder.")
        return path
    if source.uri.startswith("hf://"):
        return _from_hub(source, hub, token, tokenizer_only)
    shutil.rmtree(folder, ignore_errors=True)
    if tokenizer_only:
        store, entries = find_files(source.uri, options)
        for entry in entries:
            if not entry.key.endswith((".safetensors", ".bin", ".gguf", ".pt")):
                store.get_file(entry.key, folder / entry.key)
        return folder
    try:
        get_tree(open_store(source.uri, options), "", folder)
    except StoragePermanentError as error:
        raise StoragePermanentError(f"model.uri {source.uri}: {error.message}") from error
    if not folder.is_dir() or not any(folder.iterdir()):
        raise StoragePermanentError(f"model.uri {source.uri}: there is nothing at this address.")
    return folder


def _from_hub(source: ModelSource, hub: HubSpec, token: str | None, tokenizer_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    assert source.uri is not None
    name = source.uri.removeprefix("hf://")
    patterns = [p for p in _FROM_HUB if not (tokenizer_only and p == "*.safetensors")]
    try:
        return Path(
            snapshot_download(
                name,
                revision=source.revision,
                allow_patterns=patterns,
                endpoint=hub.endpoint,
                local_files_only=hub.offline,
                token=token,
            )
        )
    except GatedRepoError:
        raise ModelError(f"model.uri {source.uri} is gated; set hub.tokenSecretRef to a token.") from None
    except RevisionNotFoundError:
        raise ModelError(f"model.revision {source.revision} does not exist at {source.uri}.") from None
    except RepositoryNotFoundError:
        raise ModelError(f"model.uri {source.uri} does not exist on the hub, or is private.") from None
    except OSError as error:
        first = str(error).splitlines()[0]
        raise TemporaryError(
            f"model.uri {source.uri} could not be had from the hub: {first}. Is the hub reachable from here? "
            "If not, put the model into s3:// or file://.",
            reason=Reason.HUB_UNAVAILABLE,
        ) from error


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a LoRA adapter instead of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def vocabulary_size(folder: Path) -> int | None:
    """Number of embeddings as the model's configuration says, None where it does not."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return size if isinstance(size, int) else None


def resolve_dtype(folder: Path, dtype: str) -> torch.dtype:
    """`auto` is the checkpoint's type where the device has it, float32 on a CPU."""
    import torch

    if dtype != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[dtype]
    if not torch.cuda.is_available():
        return torch.float32
    config = json.loads((folder / "config.json").read_text("utf-8"))
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    if stored == "float16":
        return torch.float16
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def load_model(
    folder: Path, *, dtype: torch.dtype, attention: str = "auto", trust_remote_code: bool = False
) -> Any:
    """A causal language model from safetensors, on the CPU, in evaluation mode. Raises ModelError."""
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model: config.json is missing.")
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa" if attention == "auto" else attention,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"The model in {folder} cannot be loaded: {first}") from error


def load_adapter(model: Any, folder: Path) -> Any:
    """The model with a LoRA adapter on top. Raises ModelError when they do not belong together."""
    from peft import PeftModel

    if not is_adapter(folder):
        raise ModelError(f"{folder} holds no adapter: {ADAPTER_CONFIG} is missing.")
    try:
        return PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"The adapter in {folder} does not fit its base model: {first}") from error
