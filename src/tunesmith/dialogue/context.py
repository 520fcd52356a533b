"""What a role sees of a dialogue: the messages of one request.

The model that answers gets the dialogue as chat, after a system message. The simulated user and the aligner
see it from outside: they get one message that contains it as a transcript. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.formats.language import Language, language_of
from tunesmith.dialogue.state import Dialogue, Role
from tunesmith.dialogue.templates import Templates
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.handover import Handover

_SPEAKERS: Mapping[Language, Mapping[str, str]] = {
    "en": {"user": "User:", "assistant": "Assistant:", "tool": "Tool:"},
    "zh": {"user": "用户：", "assistant": "助手：", "tool": "工具："},
}
_WIRE = Handover(arguments_as_text=True)
_NOTHING: Mapping[Language, str] = {"en": "(none)", "zh": "（无）"}


def recent(messages: Sequence[Message], most: int) -> list[Message]:
    """Return the last `most` messages, without leading ones of the assistant and of tools.

    If nothing would be left of a dialogue (its last message is the assistant's, and `most` is 1), its last
    question is included.
    """
    first = max(0, len(messages) - most)
    while first < len(messages) and messages[first].role != "user":
        first += 1
    if first == len(messages):
        first = max((at for at, each in enumerate(messages) if each.role == "user"), default=first)
    return list(messages[first:])


def messages_for(dialogue: Dialogue, templates: Templates, max_messages: int) -> list[dict[str, Any]]:
    """Return the messages of the request for the dialogue's next text, as OpenAI has them.

    An empty template gives no system message. Every call of a tool has an id, by which its result names it.
    """
    wanted = dialogue.wanted
    assert wanted is not None
    role, seed = wanted[1], dialogue.seed.rounds[0]
    language = language_of(seed.question, seed.answer)
    template, said = templates.of(role, language), dialogue.messages()
    match role:
        case Role.QUESTION:
            return _alone(template.fill({"history": transcript(recent(said, max_messages), language)}))
        case Role.ANSWER:
            system = template.fill({})
            first = [{"role": "system", "content": system}] if system else []
            return first + _WIRE.turns(recent(said, max_messages))
        case Role.CORRECTION:
            *earlier, last = dialogue.rounds
            question = Message("user", last.texts[Role.QUESTION])
            past = [message for each in earlier for message in each.messages()]
            # Without the question, which has a separate place.
            before = recent([*past, question], max_messages)[:-1]
            answer = last.answer()
            return _alone(
                template.fill(
                    {
                        "history": transcript(before, language),
                        "question": question.content,
                        "answer": transcript([*last.steps, answer], language) if last.steps else answer.shown,
                    }
                )
            )


def transcript(messages: Sequence[Message], language: Language) -> str:
    """Return a dialogue as text, or "(none)" in its language if it is empty."""
    parts = [f"{_SPEAKERS[language][each.role]}\n{each.shown}" for each in messages]
    return "\n\n".join(parts) or _NOTHING[language]


def _alone(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]
