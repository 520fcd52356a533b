"""The prompt of a simulated user: profile, task, history and dialogue, as set in the manifest.

Works on one dialogue and what may be shown of it; does not depend on which of its turns are trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.api.data_formats import UserSimulationFormat
from tunesmith.data.formats.user_words import WORDS
from tunesmith.data.formats.users import UserDialogue, UserTurn
from tunesmith.tokens.conversation import Block, Message, SystemText

# Used if a template does not let the assistant speak first.
OPENING = "…"
_DIALOGUE_FIRST, _THEN_HISTORY = 1, 2


def shows_part(fmt: UserSimulationFormat, part: str) -> bool:
    """Return whether prompts contain "profile", "history" or "context"."""
    if part == "history" and fmt.use_history is not None:
        return fmt.use_history
    config = fmt.ablation_config
    return config.startswith(f"{part}_") or f"_{part}" in config


def system_text(
    fmt: UserSimulationFormat, dialogue: UserDialogue, history: Sequence[str], turns: Sequence[UserTurn]
) -> SystemText:
    """Return the system message; `turns` is the dialogue so far, which only `flat` prompts put there.

    Marks and instruction are in the language of the user's record.
    """
    persona = dialogue.persona
    profile = persona.profile if shows_part(fmt, "profile") else ()
    detailed, words = fmt.prompt_style == "detailed", WORDS[persona.language]
    personality = persona.personality if detailed and shows_part(fmt, "profile") else ()
    lines = [(words.mine if turn.mine else words.other) + turn.text for turn in turns]
    return SystemText(
        (
            Block("", words.instruction if detailed else ()),
            Block(words.profile, profile),
            Block(words.personality, personality),
            Block(words.task, (persona.task,) if persona.task else ()),
            Block(words.history, tuple(history), cut=_THEN_HISTORY),
            Block(words.dialogue, tuple(lines), cut=_DIALOGUE_FIRST, keep=1),
        )
    )


def chat_turns(turns: Sequence[UserTurn], learned: frozenset[int]) -> list[Message]:
    """Return the dialogue as chat, the simulated user as `assistant`; `learned` are positions in `turns`."""
    return [
        Message("assistant", turn.text, float(at in learned)) if turn.mine else Message("user", turn.text)
        for at, turn in enumerate(turns)
    ]


def with_target_prefix(messages: list[Message], prefix: str) -> list[Message]:
    """Return the messages, with the target's subject as the last utterance of the other side."""
    if not prefix.strip():
        return messages
    if messages and messages[-1].role == "user":
        return [*messages[:-1], Message("user", f"{messages[-1].content}\n{prefix.strip()}")]
    return [*messages, Message("user", prefix.strip())]
