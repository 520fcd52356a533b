"""One assistant turn as two texts: the prompt as inference sends it, and the reply that is trained on.

Where a reply starts is determined by the template's renderings alone. Does not depend on the record's text,
nor on whether all of it was rendered, which `kept.py` checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import RecordError
from tunesmith.tokens.renderer import Renderer
from tunesmith.tokens.template import WHITE_SPACE_ONLY, Ending, TemplateShape
from tunesmith.tokens.thoughts import CLOSES_THOUGHT, OPENS_THOUGHT

_MARK = "\U0010fffd"
"""A private-use character, which no template writes or trims."""
_SHOWN = 30
ALWAYS_THINKS = (
    f"Models that always think first need replies that start with {OPENS_THOUGHT!r}; for others set what the "
    "template has for that in model.chatTemplate.arguments, such as enable_thinking: false"
)


@dataclass(frozen=True, slots=True)
class TurnText:
    """A prompt byte for byte as inference sends it, and the reply with its end-of-turn token."""

    prompt: str
    reply: str


def turn_text(render: Renderer, shape: TemplateShape, context: Sequence[Message], reply: Message) -> TurnText:
    """Render one assistant turn after `context`. Raises RecordError if it does not continue the prompt."""
    prompt, full = render(context, prompt=True), render([*context, reply], prompt=False)
    if full.startswith(prompt):
        return TurnText(prompt, _reply(shape.ending(reply), prompt, full))
    opening, written = _after_context(render, context, reply)
    continued = prompt.endswith(opening) and full.endswith(written) and written.startswith(opening)
    if not continued:
        raise RecordError(_contradiction(opening or prompt, written or full, context[-1].role, reply))
    return TurnText(prompt, _reply(shape.ending(reply), opening, written))


def turn_texts(
    render: Renderer, shape: TemplateShape, messages: Sequence[Message], turns: Sequence[int]
) -> list[TurnText]:
    """Render the assistant turns at the positions `turns`, as `turn_text` does."""
    whole = render.prefixes(messages[: turns[-1] + 1]) if len(messages) > 1 and turns[0] else None
    if whole is None:
        return [turn_text(render, shape, messages[:at], messages[at]) for at in turns]
    texts = []
    for at in turns:
        prompt, full = whole.prefix(at, prompt=True), whole.prefix(at + 1, prompt=False)
        fits = full.startswith(prompt)
        reply = _reply(shape.ending(messages[at]), prompt, full) if fits else ""
        texts.append(
            TurnText(prompt, reply) if fits else turn_text(render, shape, messages[:at], messages[at])
        )
    return texts


def _after_context(render: Renderer, context: Sequence[Message], reply: Message) -> tuple[str, str]:
    """Return the text of the prompt and of the whole rendering after the last message before the reply.

    Some templates move a message when more follow (Mistral's put the system message into the last user turn),
    so that the prompt is not a prefix of the whole; from that message on the two agree. Empty texts if the
    template leaves that message out.
    """
    last = context[-1]
    marked = [*context[:-1], replace(last, content=last.content.rstrip() + _MARK)]
    prompt, full = render(marked, prompt=True), render([*marked, reply], prompt=False)
    if _MARK not in prompt or _MARK not in full:
        return "", ""
    return prompt.rpartition(_MARK)[2], full.rpartition(_MARK)[2]


def _reply(ending: Ending, before: str, full: str) -> str:
    """Return what `full` adds to `before`, up to and including the end-of-turn token."""
    end = len(full) - len(ending.tail)
    if not full.endswith(ending.tail) or end < len(before):
        raise RecordError(f"the chat template does not end this reply with {ending.tail!r} as it ends others")
    rendered = full[len(before) : end]
    if not rendered.strip():
        raise RecordError("the chat template renders nothing of an assistant's reply")
    return rendered + ending.closing


def _contradiction(prompt: str, full: str, role: str, reply: Message) -> str:
    """Return why a reply after a message of `role` is not usable: `prompt` and `full` differ after it."""
    differs = (
        "the chat template renders this reply in a way that inference never does: the prompt ends with "
        f"{prompt[-_SHOWN:]!r}, the rendered conversation continues differently there. "
    )
    opened = prompt.rstrip()
    if "".join(full.split()).startswith("".join(prompt.split())):
        only_thinks = opened.endswith(OPENS_THOUGHT) and CLOSES_THOUGHT not in reply.content
        return differs + (ALWAYS_THINKS if only_thinks else WHITE_SPACE_ONLY)
    if opened.endswith(OPENS_THOUGHT) and opened.removesuffix(OPENS_THOUGHT).rstrip() in full:
        if reply.content.lstrip().startswith(OPENS_THOUGHT):
            return differs + (
                "The prompt opens the reply's thoughts, and the template cuts them from the reply. Use a "
                "template that keeps the thoughts of the last reply"
            )
        return differs + ALWAYS_THINKS
    if opened.endswith(CLOSES_THOUGHT) and CLOSES_THOUGHT in reply.content:
        return differs + (
            "The prompt has a closed thought, so no reply can think; remove the thoughts from the "
            "record, or use a template that leaves them to the reply"
        )
    if role == "assistant":
        return differs + (
            "This template does not separate two assistant turns in a row; write them as one in the record"
        )
    return differs + (
        f"The template opens no turn of its own for a reply after a message of role {role}; use a template "
        "that does"
    )
