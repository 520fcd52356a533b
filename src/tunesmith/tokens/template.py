"""The shape of a chat template, found from made-up conversations: how it opens a turn and ends a reply.

Does not depend on any template by name, and never looks for markers in a record's text: where a reply starts
and ends is determined from renderings alone.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from tunesmith.errors import ModelError
from tunesmith.tokens.conversation import Message, ToolCall
from tunesmith.tokens.encode import Encoder, RecordError, pattern_of
from tunesmith.tokens.renderer import Renderer
from tunesmith.tokens.thoughts import CLOSES_THOUGHT, OPENS_THOUGHT, THOUGHT_TAGS

# Words that no template writes itself; letters only, so that trimming leaves them whole.
ASKED, REPLIED, ASKED_AGAIN = "qtunesmithaskedq", "qtunesmithrepliedq", "qtunesmithaskedagainq"
WHITE_SPACE_ONLY = "They differ in white space only; make the template's generation prompt match its replies"
_VALUE = "qtunesmithvalueq"
CALL = ToolCall("qtunesmithtoolq", f'{{"key": "{_VALUE}"}}')
THOUGHT = f"{OPENS_THOUGHT}\nqtunesmiththoughtq\n{CLOSES_THOUGHT}\n\n"


class Ending(NamedTuple):
    """A reply's end, as in TemplateShape: the text after it, its own part of that, and its last token."""

    tail: str
    closing: str
    eot_id: int


@dataclass(frozen=True, slots=True)
class TemplateShape:
    """How a template ends a reply and opens a turn.

    `tail` is the text after the last reply, `closing` the part that still belongs to the reply: up to and
    including the end-of-turn token `eot`, `eot_id`. `role_ids` are the tokens that open a turn (empty if
    the template marks roles by plain words); `markers` are the texts of all these tokens.
    `inner_ids` are control tokens inside a reply with thoughts or calls; `call_ending` is the ending of
    replies that call tools, if it differs.
    """

    tail: str
    closing: str
    eot: str
    eot_id: int
    role_ids: frozenset[int]
    markers: frozenset[str]
    inner_ids: frozenset[int] = frozenset()
    call_ending: Ending | None = None

    def ending(self, reply: Message) -> Ending:
        """Return how the template ends this reply."""
        own = self.call_ending if reply.calls else None
        return own or Ending(self.tail, self.closing, self.eot_id)

    @property
    def eot_ids(self) -> frozenset[int]:
        """The ids that end a reply."""
        return frozenset({self.eot_id, *([self.call_ending.eot_id] if self.call_ending else [])})


def learn_shape(render: Renderer, encoder: Encoder) -> TemplateShape:
    """Find a template's shape from made-up conversations. Raises ModelError if it gives no exact labels."""
    try:
        return _learn(render, encoder)
    except RecordError as error:
        raise ModelError(
            f"The model's chat template cannot render a question and an answer: {error}."
        ) from error


def _learn(render: Renderer, encoder: Encoder) -> TemplateShape:
    asked = [Message("user", ASKED)]
    prompt = render(asked, prompt=True)
    full = _render_reply(render, asked, prompt)
    lead, found, tail = full[len(prompt) :].rpartition(REPLIED)
    if not found:
        raise ModelError("The model's chat template leaves out the assistant's reply.")
    if lead.strip() and prompt == render(asked, prompt=False):
        raise ModelError(
            "The model's chat template ignores add_generation_prompt: inference would send a prompt without "
            f"{lead!r}, which must come before a reply. Fix the template."
        )
    closing, eot = _closing(render, encoder, tail)
    role_tokens = _role_tokens(render, encoder, prompt, eot)
    # In some formats the model itself writes tokens that also occur in headers (harmony's <|message|>).
    role_tokens -= set(pattern_of(list(encoder.added)).findall(lead + closing))
    inner, call_ending = _within(render, encoder, prompt, Ending(tail, closing, encoder.added[eot]))
    return TemplateShape(
        tail=tail,
        closing=closing,
        eot=eot,
        eot_id=encoder.added[eot],
        role_ids=frozenset(encoder.added[token] for token in role_tokens) - inner,
        markers=frozenset({*role_tokens, eot}),
        inner_ids=inner,
        call_ending=call_ending,
    )


def _within(
    render: Renderer, encoder: Encoder, prompt: str, plain: Ending
) -> tuple[frozenset[int], Ending | None]:
    """Return the control tokens inside replies with thoughts or calls, and how a reply with calls ends."""
    control = pattern_of(list(encoder.added))
    thinks = _added(render, prompt, Message("assistant", THOUGHT + REPLIED)).rpartition(REPLIED)[0]
    calls, _, rest = _added(render, prompt, Message("assistant", "", calls=(CALL,))).rpartition(_VALUE)
    ending = _call_ending(encoder, rest, plain) if calls else None
    inner = control.findall(thinks + calls + rest.removesuffix((ending or plain).tail))
    return frozenset(encoder.added[token] for token in inner), ending


def _added(render: Renderer, prompt: str, reply: Message) -> str:
    """Return the text that a reply adds to the prompt; "" if its rendering does not continue the prompt."""
    full = ""
    with suppress(RecordError):
        full = render([Message("user", ASKED), reply], prompt=False)
    return full[len(prompt) :] if full.startswith(prompt) else ""


def _call_ending(encoder: Encoder, rest: str, plain: Ending) -> Ending | None:
    """Return how `rest`, which follows a call, ends a reply; None if as in plain replies."""
    specials = list(pattern_of(list(encoder.special)).finditer(rest))
    if rest.endswith(plain.tail) or not specials:
        return None
    last = specials[-1]
    return Ending(rest[last.start() :], last.group(), encoder.special[last.group()])


def _render_reply(render: Renderer, asked: list[Message], prompt: str) -> str:
    """Return a rendering, which starts with `prompt`, of a made-up reply: plain, or one that thinks first."""
    found = [
        render([*asked, Message("assistant", reply)], prompt=False) for reply in (REPLIED, THOUGHT + REPLIED)
    ]
    for full in found:
        if full.startswith(prompt):
            return full
    raise ModelError(
        "The model's chat template contradicts itself: the prompt it makes for generation ends with "
        f"{prompt[-30:]!r}, but no rendered reply continues that, so training would use prompts that "
        f"inference never sends. {_mend(prompt, found)}"
    )


def _mend(prompt: str, found: list[str]) -> str:
    """Return how to fix a template whose rendered conversations `found` do not continue `prompt`."""
    if any("".join(full.split()).startswith("".join(prompt.split())) for full in found):
        return f"{WHITE_SPACE_ONLY}."
    if prompt.rstrip().endswith(OPENS_THOUGHT):
        return (
            "It opens the thoughts in the prompt and cuts them from replies, as that of the DeepSeek-R1 "
            "distillations does. In a copy of it, named by model.chatTemplate.uri, end the generation prompt "
            f"before {OPENS_THOUGHT!r} and write the whole content of the assistant (without its split at "
            f"{CLOSES_THOUGHT!r}); replies then hold their own thoughts, in training and in inference."
        )
    return "Fix the template's generation prompt or its rendering of replies."


def _closing(render: Renderer, encoder: Encoder, tail: str) -> tuple[str, str]:
    """Return what ends a reply, and its end-of-turn token: from the tail, or from the text between turns."""
    control = pattern_of(list(encoder.added))
    match = control.search(tail)
    if match:
        return tail[: match.end()], match.group()
    turns = [Message("user", ASKED), Message("assistant", REPLIED), Message("user", ASKED_AGAIN)]
    between = render(turns, prompt=True).partition(REPLIED)[2].partition(ASKED_AGAIN)[0]
    match = control.search(between)
    if match and encoder.added[match.group()] == encoder.eos_id:
        return between[: match.end()], match.group()
    opens = f" Like GLM-4 it only opens the next turn, with {match.group()!r}." if match else ""
    raise ModelError(
        f"The model's chat template writes no end-of-turn token after a reply (only {tail!r}), so the model "
        f"would never learn to stop.{opens} In a copy of it, named by model.chatTemplate.uri, write "
        "{{ eos_token }} after the assistant's content."
    )


def _role_tokens(render: Renderer, encoder: Encoder, prompt: str, eot: str) -> set[str]:
    """Return the control tokens that open a turn: all before a question, and those of the generation prompt.

    Of the generation prompt's tokens that are not special only the first counts, and never the tags of
    thoughts, which may follow it.
    """
    control = pattern_of(list(encoder.added))
    before, _, after = prompt.partition(ASKED)
    ends = {eot, *(token for token, id_ in encoder.added.items() if id_ == encoder.eos_id)}
    plain = {*ends, *THOUGHT_TAGS, *(token for token, id_ in encoder.added.items() if id_ == encoder.bos_id)}
    opening = [token for token in control.findall(after) if token not in ends]
    found = {token for at, token in enumerate(opening) if at == 0 or token in encoder.special}
    found |= set(control.findall(before))
    try:
        with_system = render([Message("system", REPLIED), Message("user", ASKED)], prompt=True)
        found |= set(control.findall(with_system.partition(ASKED)[0]))
    except RecordError:
        pass  # the template has no system role
    return found - plain
