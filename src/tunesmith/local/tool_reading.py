"""Read the configurations of other tools: YAML, JSON, or a script that holds the command.

Values are read as the tools read them, whose YAML is that of version 1.1: `yes` is true, `500_000` a number.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from tunesmith.api.flags import FIELD_OF, snake
from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError, UsageError
from tunesmith.local.overrides import parse_override
from tunesmith.local.tool_settings import ToolSettings

_WORDS = {"yes": True, "on": True, "no": False, "off": False}
_LONGEST = 500
"""Lines that a quoted value may have."""
_STRATEGY = "strategy"
"""End of the names of settings for which "no" is a value of its own."""
_ENDS_COMMAND = re.compile(r"\|\|?|&&?|;|[0-9&]*>.*|<")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_OTHER_TRAINERS = re.compile(
    r"(?:run_|train_)?(dpo|kto|orpo|cpo|grpo|rloo|ppo|reward|prm|gkd|online_dpo)(?:_\w+)?"
)


def read_settings(text: str, source: str) -> ToolSettings:
    """Return the settings of a YAML or JSON file, or of a shell command with `--flag value`.

    Names are as `api.flags` spells them; settings without a value are None. Raises UsageError.
    """
    try:
        document = next(iter(load_documents(text, source)), None)
    except ManifestError as error:
        if "--" not in text:
            raise UsageError(str(error.problems[0])) from None
        document = None
    found = document if isinstance(document, dict) else _flags(text, source)
    return {snake(str(name)): _as_tools_read(snake(str(name)), value) for name, value in found.items()}


def _as_tools_read(name: str, value: Any) -> Any:
    if not isinstance(value, str) or name.endswith(_STRATEGY):
        return value
    if re.fullmatch(r"[-+]?[0-9]+(_[0-9]+)+", value):
        return int(value)
    return _WORDS.get(value.lower(), value)


def _flags(text: str, source: str) -> ToolSettings:
    """Return the `--flag value` pairs of a command: true for a flag without a value, a list for several."""
    try:
        commands = list(_commands(text))
    except ValueError as error:
        raise UsageError(f"{source} is neither YAML nor a command: {error}.") from None
    words = [word for command in commands for word in command]
    _refuse_other_trainers(words, source)
    variables = dict(word.split("=", 1) for word in words if re.match(r"\w+=", word))
    found: dict[str, list[Any]] = {}
    for command in commands:
        for name, values in _flags_of(command, variables).items():
            if name in found and FIELD_OF.get(snake(name)) == "model.uri":
                raise UsageError(f"{source} has several commands with {name}: keep one.")
            found[name] = values
    if not found:
        raise UsageError(
            f"{source} has no settings: it is neither YAML with one setting per line nor a command."
        )
    return {name: True if not v else v[0] if len(v) == 1 else v for name, v in found.items()}


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each line; quotes and backslashes may continue it. Raises ValueError."""
    pending: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        pending.append(line)
        try:
            words = shlex.split("\n".join(pending), comments=True)
        except ValueError:
            if len(pending) > _LONGEST:
                raise
            continue
        pending = []
        yield words
    yield shlex.split("\n".join(pending), comments=True)


def _flags_of(command: list[str], variables: dict[str, str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    values: list[Any] = []
    for word in command:
        if _ENDS_COMMAND.fullmatch(word):
            values = []
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            values = found[name] = [_value(value, variables)] if equals else []
        else:
            values.append(_value(word, variables))
    return found


def _refuse_other_trainers(words: list[str], source: str) -> None:
    """Refuse commands such as `trl dpo` and `python scripts/grpo.py`."""
    for before, word in zip(["", *words], words, strict=False):
        other = _OTHER_TRAINERS.fullmatch(PurePath(word).stem)
        if other and (before == "trl" or word.endswith(".py")):
            raise UsageError(f"{source} runs {word}: only supervised fine-tuning can be converted.")


def _value(text: str, variables: dict[str, str]) -> Any:
    """Return a value, with variables that the script itself sets."""
    text = _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], found[0]), text)
    return parse_override(f"value={text}")[1] if re.fullmatch(r"[-+.\w]+", text) else text


def tool_of(settings: ToolSettings) -> str:
    """Return which tool a configuration is of, by settings that only one of them has."""
    there = {name for name, value in settings.items() if value is not None}
    if there & {"base_model", "micro_batch_size"}:
        return "axolotl"
    if there & {"finetuning_type", "cutoff_len", "stage", "template"}:
        return "llamafactory"
    return "trl"
