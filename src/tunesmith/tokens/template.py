"""Rendering by the model's own chat template, and what made-up conversations tell about that template.

transformers' `apply_chat_template` is the truth. Refuses to know any template by name, and never looks
for markers in a record's text: where a reply starts and ends is known from renderings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.tokens.beginnings import Rendered, endings, render_all
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import Encoder, RecordError, pattern_of

# Words no template writes itself; letters only, so that trimming leaves them whole.
ASKED, REPLIED, ASKED_AGAIN = "qtunesmithaskedq", "qtunesmithrepliedq", "qtunesmithaskedagainq"
THOUGHT_TAGS = OPENS_THOUGHT, CLOSES_THOUGHT = "<think>", "</think>"
WHITE_SPACE_ONLY = (
    "They differ in white space only; give the template's generation prompt what its replies have"
)
THOUGHT = f"{OPENS_THOUGHT}\nqtunesmiththoughtq\n{CLOSES_THOUGHT}\n\n"


# After so many equal renderings the compiled template is used by itself.
AGREEMENTS, NEVER = 8, -1
NOW_AND_THEN = 500


class Renderer:
    """Messages to the text the model sees. `today` is the date for templates that print it."""

    def __init__(self, tokenizer: Any, today: date) -> None:
        self._tokenizer, self._today = tokenizer, today
        self._agreed = 0
        self._compiled: Any = None
        self._endings: tuple[str, str] | None = None
        self._asked = 0
        self._values: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What messages call the template: the file that has it, where that can be found."""
        folder = Path(self._tokenizer.name_or_path or "")
        for file in (folder / "chat_template.jinja", folder / "tokenizer_config.json"):
            if self._tokenizer.name_or_path and file.is_file():
                return f"the chat template in {file}"
        return "the model's chat template"

    def __call__(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """Render; with `prompt`, up to where the model is to go on (`add_generation_prompt`).

        Raises RecordError with the template's own message where it refuses, ModelError without a template.
        """
        from jinja2.exceptions import TemplateError

        if not self._tokenizer.chat_template:
            raise ModelError(
                "The model's tokenizer has no chat template. Use an instruction-tuned model, put a "
                "chat_template.jinja beside the tokenizer, or train on plain text."
            )
        if not messages:
            raise RecordError(
                "nothing stands before the assistant's first turn, so there is no prompt to answer"
            )
        turns = [message.as_dict() for message in messages]
        try:
            return self._render(turns, prompt)
        except (TemplateError, TypeError) as error:
            raise RecordError(f"the model's chat template refuses this conversation: {error}") from error

    def _render(self, turns: list[dict[str, str]], prompt: bool) -> str:
        """transformers' rendering, which does much around the template; after some, the template alone."""
        if self._agreed == AGREEMENTS:
            return self._alone(turns, prompt)
        text: str = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompt, strftime_now=self._today.strftime
        )
        if self._compiled is None:
            self._compile()
        if self._agreed >= 0:
            self._agreed = self._agreed + 1 if self._alone(turns, prompt) == text else NEVER
        return text

    def _compile(self) -> None:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        source = self._tokenizer.get_chat_template()
        self._compiled = _compile_jinja_template(source)
        self._endings = endings(self._compiled, source)
        self._values = {
            **self._tokenizer.special_tokens_map,
            "tools": None,
            "documents": None,
            "strftime_now": self._today.strftime,
        }

    def beginnings(self, messages: Sequence[Message]) -> Rendered | None:
        """All beginnings of `messages` at once; None where the template may look ahead.

        Raises RecordError with the template's own message where it refuses any of them.
        """
        from jinja2.exceptions import TemplateError

        if self._agreed != AGREEMENTS or self._endings is None:
            return None
        turns = [message.as_dict() for message in messages]
        try:
            text, starts = render_all(self._compiled, self._values, turns)
        except (TemplateError, TypeError) as error:
            raise RecordError(f"the model's chat template refuses this conversation: {error}") from error
        whole = Rendered(text, starts, *self._endings)
        self._asked += 1
        doubt = len(starts) != len(turns) + 1
        if doubt or (self._asked % NOW_AND_THEN == 1 and not self._holds(whole, turns)):
            self._endings = None
            return None
        return whole

    def _holds(self, whole: Rendered, turns: list[dict[str, str]]) -> bool:
        """Whether two beginnings are what transformers itself renders."""
        half = max(1, len(turns) // 2)
        return all(
            whole.beginning(n, prompt=prompt)
            == self._tokenizer.apply_chat_template(
                turns[:n], tokenize=False, add_generation_prompt=prompt, strftime_now=self._today.strftime
            )
            for n, prompt in ((half, True), (len(turns), False))
        )

    def _alone(self, turns: list[dict[str, str]], prompt: bool) -> str:
        template = self._compiled
        values = {**self._values, "messages": turns, "add_generation_prompt": prompt}
        return "".join(template.root_render_func(template.new_context(values)))


@dataclass(frozen=True, slots=True)
class Shape:
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


def learn_shape(render: Renderer, encoder: Encoder) -> Shape:
    """Find a template's shape from made-up conversations. Raises ModelError where labels cannot be known."""
    try:
        return _learn(render, encoder)
    except RecordError as error:
        raise ModelError(
            f"The model's chat template cannot render a question and an answer: {error}."
        ) from error


def _learn(render: Renderer, encoder: Encoder) -> Shape:
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
    return Shape(
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
