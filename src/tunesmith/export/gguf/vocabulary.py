"""A tokenizer as GGUF has it: tokens, merges, how text is split first, control tokens, chat template.

Only byte-level BPE whose way of splitting llama.cpp knows; others are refused. That both give the same tokens
is for the proof to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# llama.cpp's names of the expressions by which tokenizers split text.
_SPLITS: Mapping[str, str] = {
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}": "llama-bpe",
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}": "qwen2",
}
_PADDING = "[PAD{}]"


def check_vocabulary(folder: Path, size: int | None) -> None:
    """Raise ModelError if the tokenizer of a folder cannot be converted, for a model of `size` embeddings."""
    tokenizer = ChatTokenizer.load(folder)
    _split_name(_saved(tokenizer))
    if size is not None:
        _check_size(tokenizer.vocab_size, size)


def _check_size(tokens: int, size: int) -> None:
    if tokens > size:
        raise ModelError(
            f"export.gguf: the tokenizer has {tokens} tokens, and the model embeddings for {size}."
        )


def _saved(tokenizer: ChatTokenizer) -> dict[str, Any]:
    backend = getattr(tokenizer.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("export.gguf needs a tokenizer of the tokenizers library, which this model has not.")
    found: dict[str, Any] = json.loads(backend.to_str())
    return found


def write_vocabulary(writer: GGUFWriter, folder: Path, size: int) -> None:
    """Write the tokenizer of a folder, filled up to the model's `size`. Raises ModelError."""
    tokenizer = ChatTokenizer.load(folder)
    backend = tokenizer.tokenizer
    saved = _saved(tokenizer)
    pre = _split_name(saved)
    tokens, types = _tokens(backend, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(
        [each if isinstance(each, str) else " ".join(each) for each in saved["model"]["merges"]]
    )
    _write_control(writer, tokenizer)
    template = backend.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    if template:
        writer.add_chat_template(template)


def learned_ends(tokenizer: ChatTokenizer) -> tuple[int, ...]:
    """Return the tokens that end a reply in training: the template's end of turn, else EOS."""
    with suppress(ModelError):  # a template that nothing can be trained with
        if tokenizer.tokenizer.chat_template:
            return tuple(sorted(tokenizer.eot_ids))
    eos = tokenizer.tokenizer.eos_token_id
    return () if eos is None else (int(eos),)


def _split_name(saved: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the way in which a saved tokenizer splits text."""
    model = saved["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        what = "sentencepiece's" if model.get("byte_fallback") else model.get("type")
        raise ModelError(
            f"export.gguf converts byte-level BPE tokenizers, and this one is {what}. Export merged weights, "
            "and convert those with llama.cpp's own tools."
        )
    steps = _steps(saved.get("pre_tokenizer"))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if (
        kinds == ["Digits", "ByteLevel"]
        and steps[0].get("individual_digits")
        and steps[1].get("use_regex", True)
    ):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        expression = steps[0]["pattern"].get("Regex", "")
        if expression in _SPLITS:
            return _SPLITS[expression]
    raise ModelError(
        "export.gguf does not know this tokenizer's way of splitting text "
        f"({' then '.join(kinds) or 'none'}). It knows those of GPT-2, SmolLM, Llama 3 and Qwen 2 and 3."
    )


def _steps(pre: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if pre is None:
        return []
    return list(pre["pretokenizers"]) if pre["type"] == "Sequence" else [pre]


def _tokens(backend: Any, size: int) -> tuple[list[str], list[int]]:
    """Return each id's text and GGUF's type of it."""
    from gguf import TokenType

    vocabulary = {id_: text for text, id_ in backend.get_vocab().items()}
    added = backend.added_tokens_decoder
    tokens, types = list[str](), list[int]()
    for id_ in range(max(size, max(vocabulary) + 1)):
        kind = TokenType.NORMAL
        if id_ not in vocabulary:
            kind = TokenType.UNUSED
        elif id_ in added:
            kind = TokenType.CONTROL if added[id_].special else TokenType.USER_DEFINED
        tokens.append(vocabulary.get(id_, _PADDING.format(id_)))
        types.append(int(kind))
    _check_size(len(tokens), size)
    return tokens, types


def _write_control(writer: GGUFWriter, tokenizer: ChatTokenizer) -> None:
    """Write the ids of control tokens, and whether a text begins with BOS by itself."""
    backend = tokenizer.tokenizer
    for id_, add in (
        (backend.bos_token_id, writer.add_bos_token_id),
        (backend.eos_token_id, writer.add_eos_token_id),
        (backend.unk_token_id, writer.add_unk_token_id),
        (backend.pad_token_id, writer.add_pad_token_id),
    ):
        if id_ is not None:
            add(id_)
    learned = learned_ends(tokenizer)
    others = sorted(tokenizer.stop_ids - {backend.eos_token_id}, key=lambda id_: (id_ not in learned, id_))
    for id_, add in zip(others, (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        add(id_)
    begins = backend("x").input_ids[:1] == [backend.bos_token_id] and backend.bos_token_id is not None
    writer.add_add_bos_token(begins)
