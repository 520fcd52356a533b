"""What made-up conversations tell about a chat template: how it opens a turn and ends a reply.

Does not depend on any template by name, and never looks for markers in a record's text: where a reply starts
and ends is known from renderings alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.errors import ModelError
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import Encoder, RecordError, pattern_of
from tunesmith.tokens.renderer import Renderer

# Words no template writes itself; letters only, so that trimming leaves them whole.
ASKED, REPLIED, ASKED_AGAIN = "qtunesmithaskedq", "qtunesmithrepliedq", "qtunesmithaskedagainq"
THOUGHT_TAGS = OPENS_THOUGHT, CLOSES_THOUGHT = "<think>", "</think>"
WHITE_SPACE_ONLY = (
    "They differ in white space only; give the template's generation prompt what its replies have"
)
THOUGHT = f"{OPENS_THOUGHT}\nqtunesmiththoughtq\n{CLOSES_THOUGHT}\n\n"


@dataclass(frozen=True, slots=True)
class TemplateShape:
    """How a template ends a reply and opens a turn.

    `tail` is the text after the last reply, `closing` the part that is still the reply's own: up to and
    including the end-of-turn token `eot`, `eot_id`. `role_ids` are the tokens that open a turn (empty where
    the template marks roles by plain words); `markers` the texts of all these tokens.
    """

    tail: str
    closing: str
    eot: str
    eot_id: int
    role_ids: frozenset[int]
    markers: frozenset[str]


def learn_shape(render: Renderer, encoder: Encoder) -> TemplateShape:
    """Find a template's shape from made-up conversations. Raises ModelError where labels cannot be known."""
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
            f"{lead!r}, which must come before a reply. Mend the template."
        )
    closing, eot = _closing(render, encoder, tail)
    role_tokens = _role_tokens(render, encoder, prompt, eot)
    # Some formats let the model itself write tokens that also stand in headers (harmony's <|message|>).
    role_tokens -= set(pattern_of(list(encoder.added)).findall(lead + closing))
    return TemplateShape(
        tail=tail,
        closing=closing,
        eot=eot,
        eot_id=encoder.added[eot],
        role_ids=frozenset(encoder.added[token] for token in role_tokens),
        markers=frozenset({*role_tokens, eot}),
    )


def _render_reply(render: Renderer, asked: list[Message], prompt: str) -> str:
    """A rendering of a made-up reply that starts with `prompt`: a plain one, or one that thinks first."""
    found = [
        render([*asked, Message("assistant", reply)], prompt=False) for reply in (REPLIED, THOUGHT + REPLIED)
    ]
    for full in found:
        if full.startswith(prompt):
            return full
    raise ModelError(
        "The model's chat template contradicts itself: the prompt it makes for generation ends with "
        f"{prompt[-30:]!r}, but no rendered reply continues that, so training would teach what "
        f"inference never asks. {_mend(prompt, found)}"
    )


def _mend(prompt: str, found: list[str]) -> str:
    """What to do where the rendered conversations `found` do not continue `prompt`."""
    if any("".join(full.split()).startswith("".join(prompt.split())) for full in found):
        return f"{WHITE_SPACE_ONLY}."
    if prompt.rstrip().endswith(OPENS_THOUGHT):
        return (
            "It opens the thoughts in the prompt and cuts them from replies, as that of the DeepSeek-R1 "
            "distillations does. In a copy of the model, end the template's generation prompt before "
            f"{OPENS_THOUGHT!r} and write the assistant's content whole (without its split at "
            f"{CLOSES_THOUGHT!r}); replies then hold their own thoughts, in training and in inference."
        )
    return "Mend the template's generation prompt or its rendering of replies."


def _closing(render: Renderer, encoder: Encoder, tail: str) -> tuple[str, str]:
    """What ends a reply, with its end-of-turn token: from the tail, or from what stands between turns."""
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
        f"would never learn to stop.{opens} In a copy of the model, write {{{{ eos_token }}}} after the "
        "assistant's content in the chat template."
    )


def _role_tokens(render: Renderer, encoder: Encoder, prompt: str, eot: str) -> set[str]:
    """Control tokens that open a turn: all before a question, and those of the generation prompt.

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
        pass  # the template knows no system role
    return found - plain
