"""Chat templates that a job chooses: the built-in ones, and values that a template always gets.

Does not depend on where a template comes from, nor on tokenizers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError

_ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": ""}
"""The end-of-turn token, if the tokenizer has it as one token; EOS otherwise."""
_FOLDER = Path(__file__).parent / "templates"
_RESERVED = frozenset(["messages", "tools", "documents", "add_generation_prompt", "continue_final_message"])


def ready_template(name: str, is_token: Callable[[str], bool]) -> str:
    """Return the source of a built-in template for a tokenizer whose control tokens `is_token` recognises."""
    source = (_FOLDER / f"{name}.jinja").read_text("utf-8").rstrip("\n")
    end = _ENDS[name]
    return re.sub(r"\bEND\b", repr(end) if end and is_token(end) else "eos_token", source)


def with_arguments(source: str, arguments: Mapping[str, Any]) -> str:
    """Return a template that uses these values unless a rendering passes others.

    So the template renders alike wherever it is loaded: in training, vLLM and plain transformers. Raises
    ModelError for a name that the template does not use.
    """
    for name in arguments:
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or name in _RESERVED:
            raise ModelError(
                f"model.chatTemplate.arguments.{name} is no name of a value for a chat template."
            )
        if not re.search(rf"\b{name}\b", source):
            raise ModelError(
                f"model.chatTemplate.arguments.{name}: the chat template does not use this name, so it would "
                "change nothing. Remove it, or choose another template."
            )
    given = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {literal(value)} %}}{{%- endif %}}"
        for name, value in sorted(arguments.items())
    )
    return f"{given}{{{{- '' }}}}{source}" if given else source


def literal(value: Any) -> str:
    """Return a JSON value as a Jinja literal."""
    match value:
        case None | bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case Mapping():
            return "{" + ", ".join(f"{literal(key)}: {literal(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)
