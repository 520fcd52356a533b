"""Format `character`: a character's lines and background as instructions and replies.

A record's kind follows from its `input` alone. Does not depend on files, on mixing datasets or on templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.api.data_formats import CharacterFormat
from tunesmith.data.formats.chat import LISTS, conversation
from tunesmith.data.formats.fields import fields_of, optional_text, plain, present, text_field
from tunesmith.data.formats.instruction import conversation_from_instruction
from tunesmith.data.formats.language import Language, language_of
from tunesmith.data.record import RecordProblem, RecordSkipped
from tunesmith.tokens.conversation import Conversation, Message

BACKGROUND_KEYS = (
    "更多描述",
    "角色详细",
    *(f"角色故事{number}" for number in range(1, 6)),
    "孤心沙龙",
    "神之眼",
)
ANOTHER_SPEAKER = "another speaker"
BACKGROUND, SETTINGS, IMITATION = "background", "settings", "imitation"
WITHOUT_SCENE = "imitation-without-scene"
INSTRUCTION = "instruction"
"""Kinds of records: four with an instruction per kind, and converted Alpaca records."""

_CHINESE = {
    "background": "请讲述{name}的背景资料，内容对应下面这一项。",
    "settings": "请以{name}的身份和口吻，回应下面的问题或话题。",
    "imitation": "请以{name}的身份和口吻，说一句台词。",
    "scene": "场景：",
}
_JAPANESE = {
    "background": "{name}の背景のうち、以下に挙げる項目について語ってください。",
    "settings": "{name}として、{name}らしい口調で、以下の質問や話題に答えてください。",
    "imitation": "{name}として、{name}らしい口調で、セリフを一つ言ってください。",
    "scene": "場面：",
}
_ENGLISH = {
    "background": "Tell the part of {name}'s background that is named below.",
    "settings": "As {name}, and in {name}'s own voice, respond to the question or topic below.",
    "imitation": "As {name}, and in {name}'s own voice, speak one line.",
    "scene": "Scene: ",
}
_TEXTS: Mapping[Language, dict[str, str]] = {"en": _ENGLISH, "zh": _CHINESE, "ja": _JAPANESE}
_EAST_ASIAN = re.compile("[\u3041-\u30ff\u3400-\u9fff]")
_PLACE = re.compile(r"\{\{name\}\}|\{name\}")


def conversation_from_character(
    value: Mapping[str, Any], spec: CharacterFormat, *, system_prompt: str | None = None
) -> Conversation:
    r"""Fields `speaker`, `text`; optional `input` or `source_title`. With `instruction`: an Alpaca record.

    The question is the kind's instruction and the `input` joined by "\n"; an imitation has the scene
    (`source_title`) instead. For a record with both, `input` decides.
    Raises RecordSkipped for another speaker's line, and RecordProblem, whose message names the field.
    """
    value = fields_of(value)
    converted = plain(value).get("instruction") is not None
    system_prompt = None if system_prompt is None else with_name(system_prompt, spec)
    if not converted:
        _check_shape(value)
    if not _is_spoken(value, spec, must_say=not converted):
        raise RecordSkipped(ANOTHER_SPEAKER)
    if converted:
        return conversation_from_instruction(value, system_prompt=system_prompt)
    reply = text_field(value, "text")
    if not reply.strip():
        raise RecordProblem("text is empty")
    return conversation([Message("user", _question(value, spec)), Message("assistant", reply)], system_prompt)


def kind_of(value: Mapping[str, Any], spec: CharacterFormat) -> str:
    """Return the kind of a record, which its fields alone decide."""
    return INSTRUCTION if value.get("instruction") is not None else _kind(value, spec)


def _kind(value: Mapping[str, Any], spec: CharacterFormat) -> str:
    topic = _stripped(value, "input")
    if not topic:
        return IMITATION if _stripped(value, "source_title") else WITHOUT_SCENE
    return BACKGROUND if topic in background_keys(spec) else SETTINGS


def _stripped(value: Mapping[str, Any], field: str) -> str:
    return (value.get(field) or "").strip()


def background_keys(spec: CharacterFormat) -> list[str]:
    """Return the values of `input` that mark a background record."""
    keys = BACKGROUND_KEYS if spec.background_keys is None else spec.background_keys
    return [key.strip() for key in keys]


def _check_shape(value: Mapping[str, Any]) -> None:
    if plain(value).get("text") is None:
        if any(name in value for name in LISTS):
            raise RecordProblem("this is a chat record; use the format chat: {}")
        raise RecordProblem(f"text is missing: {present(value)}")
    text_field(plain(value), "text")
    for field in ("input", "source_title"):
        optional_text(plain(value), field)


def _is_spoken(value: Mapping[str, Any], spec: CharacterFormat, *, must_say: bool) -> bool:
    """Return whether the record's speaker is used: the character, and those of `speakers`."""
    speaker = optional_text(value, "speaker")
    others = {other.strip() for other in spec.speakers or ()}
    if "any" in others:
        return True
    if speaker is None and must_say:
        raise RecordProblem(f"speaker is missing: {present(value)}")
    return speaker is None or speaker.strip() in {spec.name.strip(), *others}


def instructions(spec: CharacterFormat) -> dict[str, str]:
    """Return each kind's text: the user's own, or else in the name's language, by its ideographs and kana."""
    language = language_of("".join(_EAST_ASIAN.findall(spec.name)), among=_TEXTS)
    own = {
        "background": spec.background_instruction,
        "settings": spec.settings_instruction,
        "imitation": spec.imitation_instruction,
    }
    texts = {kind: text for kind, text in own.items() if text is not None}
    return {kind: with_name(text, spec) for kind, text in (_TEXTS[language] | texts).items()}


def with_name(text: str, spec: CharacterFormat) -> str:
    """Replace {name} in a user's text by the character's name; {{name}} is {name}, other braces stay."""
    name = spec.name.strip()
    return _PLACE.sub(lambda found: "{name}" if found[0] == "{{name}}" else name, text)


def _question(value: Mapping[str, Any], spec: CharacterFormat) -> str:
    kind, texts, subject = _kind(value, spec), instructions(spec), _stripped(value, "input")
    if kind == IMITATION:
        subject = texts["scene"] + _stripped(value, "source_title")
    asked = IMITATION if kind == WITHOUT_SCENE else kind
    question = "\n".join(part for part in (texts[asked], subject) if part)
    if not question.strip():
        raise RecordProblem(f"{asked}Instruction is empty, and the record has no other question")
    return question
