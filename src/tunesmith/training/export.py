"""The model as others load it: the content of `final_model` and of every checkpoint.

Full weights, or one adapter over the original base, as safetensors, with all that plain transformers, peft
and vLLM need to use them: config, the base's address, tokenizer, chat template, generation config. Does not
depend on where they are written to, nor on what else is needed to resume.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import ModelSource
from tunesmith.engines.adapter import ADAPTER_CONFIG, is_adapter
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.training.adapters import has_adapters, save_combined, save_for_resume

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class Ends:
    """The tokens that end a reply of a trained model.

    `ids` are all of them: the one that training teaches first, then the tokenizer's and the model's own.
    `token` is the text of the first, which becomes the tokenizer's EOS; "" if that does not change.
    """

    ids: tuple[int, ...]
    token: str = ""


def ends_of(model: Any, tokenizer: ChatTokenizer, *, turns: bool = True) -> Ends:
    """Return the tokens that end a reply. `turns` means that training is on more than plain documents.

    The tokenizer's EOS becomes the end-of-turn token unless the template uses `eos_token`, which would then
    render prompts as training never saw them, or the tokenizer adds EOS to each text by itself.
    """
    eos = tokenizer.tokenizer.eos_token_id
    first, learned = (tokenizer.shape.eot_id, tokenizer.eot_ids) if turns else (eos, frozenset[int]())
    own = getattr(_base(model).generation_config, "eos_token_id", None)
    others = own if isinstance(own, list | tuple) else [own]
    found = [first, *sorted(learned), eos, *sorted(tokenizer.stop_ids), *others]
    size = _base(model).config.get_text_config().vocab_size
    ids = tuple(dict.fromkeys(int(each) for each in found if each is not None and 0 <= each < size))
    used = "eos_token" in str(tokenizer.tokenizer.chat_template)
    if first in (eos, None) or used or getattr(tokenizer.tokenizer, "add_eos_token", False):
        return Ends(ids)
    return Ends(ids, tokenizer.shape.eot)


def base_name(source: ModelSource) -> str:
    """Return the base model's name in an adapter's config: its name on the hub, or else its address."""
    assert source.uri is not None
    return source.uri.removeprefix("hf://")


def save_final(
    model: Any,
    tokenizer: ChatTokenizer,
    base: ModelSource,
    dtype: torch.dtype,
    folder: Path,
    state: Mapping[str, Any] | None = None,
    *,
    turns: bool = True,
) -> None:
    """Write what plain transformers loads: adapter or full weights, tokenizer and chat template.

    An adapter is one over `base`, whatever adapters training started from. `state` has all weights if the
    model itself has only a part of each. `turns` is as in `ends_of`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(model, folder, state, dtype)
    describe_weights(folder, base, dtype)
    ends = ends_of(model, tokenizer, turns=turns)
    save_ends(model, folder, ends)
    save_tokenizer(tokenizer, folder, ends)


def save_ends(model: Any, folder: Path, ends: Ends) -> None:
    """Write the tokens that end a reply to the generation config and to config.json: both are read by others.

    The generation config is the base model's, and is written next to an adapter too.
    """
    config = copy.deepcopy(_base(model).generation_config)
    config.eos_token_id = list(ends.ids) or None
    config.save_pretrained(folder)
    path = folder / CONFIG
    if path.is_file() and ends.ids:
        name_ends(path, list(ends.ids))


def name_ends(path: Path, ids: list[int]) -> None:
    """Set `eos_token_id` of a config.json to all ids, or to the first if its class accepts no list."""
    from transformers import AutoConfig

    before = json.loads(path.read_text("utf-8"))
    for value in (ids, ids[0]):
        nested = before.get("text_config")
        inner = {"text_config": nested | {"eos_token_id": value}} if _has_end(nested) else {}
        change_json(path, eos_token_id=value, **inner)
        try:
            AutoConfig.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
            return
        except Exception:  # noqa: BLE001 - whatever a class's own validation raises
            if "auto_map" in before:  # the model's own code, which is not run for this
                return


def _has_end(nested: Any) -> bool:
    return isinstance(nested, dict) and "eos_token_id" in nested


def save_tokenizer(tokenizer: ChatTokenizer, folder: Path, ends: Ends) -> None:
    """Write the tokenizer and its chat template, with the token that ends a reply as its EOS."""
    tokenizer.tokenizer.save_pretrained(folder)
    path = folder / TOKENIZER_CONFIG
    if not ends.token or not path.is_file():
        return
    change_json(path, eos_token=ends.token)
    special = folder / "special_tokens_map.json"
    if special.is_file():
        change_json(special, eos_token=ends.token)


def _base(model: Any) -> Any:
    return model.get_base_model() if has_adapters(model) else model


def save_checkpoint(
    model: Any, folder: Path, state: Mapping[str, Any] | None, dtype: torch.dtype | None
) -> None:
    """Write a checkpoint's weights. `state` is as in `save_final`.

    They are converted to `dtype` if resuming reads other weights; None keeps them as trained, to resume from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(model, folder, state, dtype)
    if dtype is None and has_adapters(model):
        save_for_resume(model, folder)


def _save_weights(
    model: Any, folder: Path, state: Mapping[str, Any] | None, dtype: torch.dtype | None
) -> None:
    if has_adapters(model):
        save_combined(model, folder, state)
        return
    weights = model.state_dict() if state is None else state
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    model.save_pretrained(folder, state_dict=weights)


def describe_weights(folder: Path, base: ModelSource, dtype: torch.dtype) -> None:
    """Write to a folder's config how its weights are to be used.

    An adapter names the base of the manifest, not a folder of the machine that trained it. Full weights are
    to be loaded as `dtype`, whatever they are stored in, and used with a cache.
    """
    if not is_adapter(folder):
        change_json(folder / CONFIG, dtype=str(dtype).removeprefix("torch."), use_cache=True)
        return
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text("utf-8"))
    targets = {  # peft has them as sets, in no fixed order
        field: sorted(config[field])
        for field in ("target_modules", "target_parameters")
        if isinstance(config.get(field), list)
    }
    change_json(path, base_model_name_or_path=base_name(base), revision=base.revision, **targets)


def change_json(path: Path, **values: Any) -> None:
    """Set fields of a JSON file."""
    config = json.loads(path.read_text("utf-8")) | values
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
