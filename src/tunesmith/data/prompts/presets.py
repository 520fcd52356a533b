"""Presets: a model's prompts in training, saved with it so that it can be prompted in the same way.

A preset has what a dataset puts around the user's text, as messages with a placeholder, or, if that takes a
record (a user's profile, a case's articles), the settings from which the prompt is made. The messages are
made by the dataset's own reader. Does not depend on models and terminals.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationError

from tunesmith.api.base import Model, Rule, one_of
from tunesmith.api.data_formats import UserSimulationFormat
from tunesmith.api.datasets import DatasetSpec
from tunesmith.api.records import Columns
from tunesmith.api.scalars import Encoding
from tunesmith.data.formats import character
from tunesmith.data.formats.character import conversation_from_character
from tunesmith.data.formats.chat import with_system_prompt
from tunesmith.data.formats.contents import LEGAL, USER
from tunesmith.data.report import DatasetReport
from tunesmith.errors import ModelError
from tunesmith.tokens.conversation import Message

PRESETS = "tunesmith_presets.json"
PLACE = "{text}"
_VERSION = 1


class PresetMessage(Model):
    """One message of a preset."""

    role: str
    content: str
    """If the preset takes text, the last message ends with the placeholder `{text}` for it."""


class LegalPreset(Model):
    """Cases, with the prompt of `legalJudgement`."""

    articles_uri: str
    """The file of articles that training read."""
    changed_articles_uri: str | None = None
    """The file of changed articles, if prompts contain both laws."""


class Preset(Model):
    """One form of prompt from training: `messages`, or what a record is needed for."""

    name: str
    about: str = ""
    """Its purpose, in a line."""
    messages: list[PresetMessage] | None = None
    takes_text: bool = True
    """Whether the last of `messages` ends with `{text}`."""
    each_alone: bool = False
    """Whether each question was a separate conversation in training."""
    user_simulation: UserSimulationFormat | None = None
    legal_judgement: LegalPreset | None = None
    encoding: Encoding = "utf-8"
    """Encoding of files of records and articles that are not UTF-8, as in training."""
    columns: Columns | None = None
    """Names of fields in a record, as in training."""
    system_prompt: str | None = None

    rules: ClassVar[tuple[Rule, ...]] = (one_of("messages", "user_simulation", "legal_judgement"),)


class _File(Model):
    version: int
    presets: list[Preset] = Field(default=[])


def save_presets(
    folder: Path,
    datasets: Sequence[DatasetSpec],
    reports: Sequence[DatasetReport],
    below: Sequence[Path] = (),
) -> list[Preset]:
    """Write the presets of a job's model into its folder, if it has any. Return them.

    `below` are the folders of the model that the job starts from, the lowest first: presets found there are
    kept if no new one has their name.
    """
    presets = presets_of(datasets, reports)
    for each in reversed(below):
        presets = joined(presets, read_presets(each))
    if presets:
        values = {"version": _VERSION, "presets": [preset.to_json() for preset in presets]}
        (folder / PRESETS).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return presets


def read_presets(folder: Path) -> list[Preset]:
    """Return the presets of a model's folder. Raises ModelError if the file is damaged."""
    path = folder / PRESETS
    if not path.is_file():
        return []
    try:
        return _File.model_validate(json.loads(path.read_bytes()), by_alias=True, by_name=False).presets
    except (ValueError, RecursionError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ModelError(
            f"{path} cannot be read: {said}. Delete it to use the model without presets."
        ) from None


def joined(upper: Sequence[Preset], lower: Sequence[Preset]) -> list[Preset]:
    """Return `upper`, and those of `lower` with other names."""
    names = {preset.name for preset in upper}
    return [*upper, *(preset for preset in lower if preset.name not in names)]


def presets_of(datasets: Sequence[DatasetSpec], reports: Sequence[DatasetReport]) -> list[Preset]:
    """Return a preset for each dataset and kind that put something around the user's text, equal ones once.

    A preset is named after its kind; a second one of that name gets `-2`.
    """
    found: dict[str, Preset] = {}
    for dataset, report in zip(datasets, reports, strict=False):
        for kind in report.kinds:
            preset = _preset(kind, dataset)
            if preset is not None and not any(_alike(preset, other) for other in found.values()):
                name = _free(preset.name, found)
                found[name] = preset.model_copy(update={"name": name})
    return list(found.values())


def _alike(one: Preset, other: Preset) -> bool:
    return one == other.model_copy(update={"name": one.name})


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    while (free := name if number == 2 and name not in taken else f"{name}-{number}") in taken:
        number += 1
    return free


def _preset(kind: str, dataset: DatasetSpec) -> Preset | None:
    """Return the preset of a kind of samples, None if the prompt is the user's text alone."""
    system = dataset.system_prompt
    if kind == USER:
        return Preset(
            name=USER,
            about="a simulated user; the person at the keyboard is the other side",
            user_simulation=dataset.user_simulation,
            encoding=dataset.encoding,
            columns=dataset.columns,
            system_prompt=system,
        )
    if kind == LEGAL:
        assert dataset.sampled is not None
        assert dataset.sampled.articles_uri is not None
        return Preset(
            name=LEGAL,
            about="the facts of a case, judged under the articles of a record",
            each_alone=True,
            legal_judgement=LegalPreset(
                articles_uri=dataset.sampled.articles_uri,
                changed_articles_uri=dataset.sampled.changed_articles_uri,
            ),
            encoding=dataset.encoding,
            columns=dataset.columns,
            system_prompt=system,
        )
    if dataset.character is not None and kind != character.INSTRUCTION:
        return _character(kind, dataset)
    if system is None or kind == "text":
        return None
    messages = with_system_prompt([Message("user", PLACE)], system)
    return Preset(name=kind, about="the dataset's system prompt", messages=_plain(messages))


_ABOUT = {
    character.BACKGROUND: "background: type one of {keys}",
    character.SETTINGS: "answers a question or topic",
    character.IMITATION: "a line in a scene: type the scene's title",
    character.WITHOUT_SCENE: "a line",
}


def _character(kind: str, dataset: DatasetSpec) -> Preset:
    """Have the dataset's reader make the prompt of a record of the kind, with a placeholder for its text."""
    spec = dataset.character
    assert spec is not None
    keys = character.background_keys(spec)
    text = keys[0] if kind == character.BACKGROUND else PLACE
    field = {character.IMITATION: {"source_title": text}, character.WITHOUT_SCENE: {}}
    record = {"speaker": spec.name, "text": "x", **field.get(kind, {"input": text})}
    made = conversation_from_character(record, spec, system_prompt=dataset.system_prompt)
    *opening, question = made.messages[:-1]
    takes_text = kind != character.WITHOUT_SCENE
    content = question.content.removesuffix(text) + PLACE if takes_text else question.content
    return Preset(
        name=kind,
        about=f"{spec.name}: {_ABOUT[kind].format(keys=', '.join(keys))}",
        messages=_plain([*opening, Message("user", content)]),
        takes_text=takes_text,
        each_alone=True,
    )


def _plain(messages: Sequence[Message]) -> list[PresetMessage]:
    return [PresetMessage(role=message.role, content=message.content) for message in messages]


def card_section(presets: Sequence[Preset]) -> str:
    """Return the part of a model's card on its presets, as Markdown; empty if there are none."""
    if not presets:
        return ""
    lines = [
        "## Prompts",
        "",
        "Training put more than the user's text into its prompts. `tunesmith chat --as NAME` prompts in the "
        f"same way; other programs can send the messages below, with the user's text for `{PLACE}`.",
    ]
    return "\n".join([*lines, *(line for preset in presets for line in _card_lines(preset))])


def _card_lines(preset: Preset) -> Iterator[str]:
    yield from ("", f"### {preset.name}", "", " ".join(preset.about.split()))
    if preset.messages is None:
        settings = preset.user_simulation or preset.legal_judgement
        assert settings is not None
        yield from ("", "It needs a record: `--record FILE`. Made by these settings:", "")
        yield from _fenced(json.dumps(settings.to_json(), indent=2, ensure_ascii=False), "json")
        return
    yield ""
    shown = [message.to_json() for message in preset.messages]
    yield from _fenced(json.dumps(shown, indent=2, ensure_ascii=False), "json")


def _fenced(text: str, language: str) -> list[str]:
    """Return a code block whose fence is safe for the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text, fence]
