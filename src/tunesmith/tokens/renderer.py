"""Render messages to text by the model's own chat template, in a separate process (see `bounded`).

transformers' `apply_chat_template` is the reference, but does much besides rendering: the compiled template
is used alone once both have agreed often enough. Does not depend on what a rendering is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.tokens.bounded import BoundedTemplate, OverLimit, bound_transformers
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import RecordError
from tunesmith.tokens.handover import Handover, Turn, learn_handover
from tunesmith.tokens.template_prefixes import MESSAGES, PROMPT, RenderedPrefixes

# Equal renderings after which the compiled template is used alone.
AGREEMENTS, NEVER = 8, -1
NOW_AND_THEN = 500
# Maximum of a conversation's characters times its turns for rendering ahead.
MOST_AHEAD = 1 << 20
# A conversation with or without a generation prompt; None for all its prefixes.
_Key = tuple[bool | None, tuple[Message, ...]]


@dataclass(slots=True)
class _Compiled:
    """The compiled template, and how often it agreed with transformers: without further values, and with."""

    template: BoundedTemplate | None = None
    endings: tuple[str, str] | None = None
    agreed: list[int] = field(default_factory=lambda: [0, 0])
    asked: int = 0


class Renderer:
    """Renders messages to the text that the model sees. `today` is the date for templates that print it."""

    def __init__(self, tokenizer: Any, today: date) -> None:
        self._tokenizer, self._today = tokenizer, today
        self._given: dict[str, Any] = {}
        self._compiled = _Compiled()
        self._ready: dict[_Key, dict[str, Any]] = {}

    @property
    def name(self) -> str:
        """The template's name in messages, with the file that contains it if that can be found."""
        folder = Path(self._tokenizer.name_or_path or "")
        for file in (folder / "chat_template.jinja", folder / "tokenizer_config.json"):
            if self._tokenizer.name_or_path and file.is_file():
                return f"the chat template in {file}"
        return "the model's chat template"

    def __call__(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """Render `messages`; with `prompt`, add the generation prompt (`add_generation_prompt`).

        Raises RecordError with the template's own message if it rejects them, ModelError if there is no
        template or if it exceeds the limits of any legitimate one.
        """
        if not self._tokenizer.chat_template:
            raise ModelError(
                "The model's tokenizer has no chat template. Choose one with model.chatTemplate: "
                "{name: chatml}, {name: llama3} or {name: mistral}, or your own by uri or text; use an "
                "instruction-tuned model; or train on plain text."
            )
        if not messages:
            raise RecordError(
                "there is nothing before the assistant's first turn, so there is no prompt to answer"
            )
        if self._ready and (ready := self._ready.get((prompt, tuple(messages)))):
            return str(ready["text"])
        turns = self.handover.turns(messages)
        with self._refusals():
            return self._render(turns, prompt)

    def given(self, values: Mapping[str, Any]) -> Renderer:
        """Return a renderer of the same template that has these further values, such as `tools`."""
        renderer = Renderer(self._tokenizer, self._today)
        renderer.__dict__["handover"] = self.handover  # learned once for all
        renderer._compiled, renderer._given = self._compiled, dict(values)
        return renderer

    @cached_property
    def handover(self) -> Handover:
        """The form in which the template takes thoughts and calls."""
        source = str(self._tokenizer.chat_template)

        def render(turns: list[Turn]) -> str | None:
            try:
                with self._refusals():
                    return self._by_transformers(turns, False)
            except RecordError:
                return None

        return learn_handover(render, source)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        from jinja2.exceptions import TemplateError

        try:
            yield
        except OverLimit as over:
            name = self.name[0].upper() + self.name[1:]
            raise ModelError(f"{name} {over}. Fix it, or use another model.") from None
        except (TemplateError, TypeError) as error:
            raise RecordError(f"the model's chat template rejects this conversation: {error}") from error

    def _render(self, turns: list[Turn], prompt: bool) -> str:
        """Render with transformers, and after enough agreements with the compiled template alone."""
        agreed, which = self._compiled.agreed, bool(self._given)
        if agreed[which] == AGREEMENTS:
            return self._alone(turns, prompt)
        text = self._by_transformers(turns, prompt)
        if self._compiled.template is None:
            self._open()
        if agreed[which] >= 0:
            agreed[which] = agreed[which] + 1 if self._alone(turns, prompt) == text else NEVER
        return text

    def _by_transformers(self, turns: list[Turn], prompt: bool) -> str:
        bound_transformers()
        values = {"strftime_now": self._today.strftime, **self._given}
        text: str = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompt, **values
        )
        return text

    def _open(self) -> None:
        values = {
            **self._tokenizer.special_tokens_map,
            "tools": None,
            "documents": None,
            "strftime_now": self._today.strftime,
        }
        self._compiled.template = BoundedTemplate(self._tokenizer.get_chat_template(), values)
        self._compiled.endings = self._compiled.template.endings

    @property
    def _is_proved(self) -> bool:
        """Whether conversations, without further values here, are rendered by the template alone."""
        return not self._given and self._compiled.agreed[False] == AGREEMENTS

    def prefixes(self, messages: Sequence[Message]) -> RenderedPrefixes | None:
        """Return all prefixes of `messages` in one rendering; None if the template may look ahead.

        Raises RecordError with the template's own message if it rejects any of them, ModelError as above.
        """
        compiled = self._compiled
        if not self._is_proved or compiled.endings is None or compiled.template is None:
            return None
        turns = self.handover.turns(messages)
        ready = self._ready.get((None, tuple(messages))) if self._ready else None
        with self._refusals():
            text, starts = (ready["text"], ready["starts"]) if ready else compiled.template.prefixes(turns)
            whole = RenderedPrefixes(text, starts, *compiled.endings)
            compiled.asked += 1
            doubt = len(starts) != len(turns) + 1
            if doubt or (compiled.asked % NOW_AND_THEN == 1 and not self._holds(whole, turns)):
                compiled.endings, self._ready = None, {}
                return None
        return whole

    @contextmanager
    def ahead(self, conversations: Iterable[tuple[Sequence[Message], Sequence[int]]]) -> Iterator[None]:
        """Return a context in which the texts of these turns are ready, from one request for all of them."""
        wanted: dict[_Key, dict[str, Any]] = {}
        if self._is_proved:
            for messages, turns in conversations:
                wanted |= self._wanted(messages, turns)
        try:
            self._ready = self._answers(wanted)
            yield
        finally:
            self._ready = {}

    def _wanted(self, messages: Sequence[Message], turns: Sequence[int]) -> dict[_Key, dict[str, Any]]:
        """Return the values with which the texts of `turns` are rendered."""
        told = self.handover.turns(messages[: turns[-1] + 1])
        if self._compiled.endings is not None:
            return {(None, tuple(messages[: len(told)])): {MESSAGES: told}}
        if len(turns) * sum(len(turn["content"]) for turn in told) > MOST_AHEAD:
            return {}
        ends = [(prompt, at if prompt else at + 1) for at in turns if at for prompt in (True, False)]
        return {
            (prompt, tuple(messages[:end])): {MESSAGES: told[:end], PROMPT: prompt} for prompt, end in ends
        }

    def _answers(self, wanted: dict[_Key, dict[str, Any]]) -> dict[_Key, dict[str, Any]]:
        if not wanted or self._compiled.template is None:
            return {}
        task = "text" if self._compiled.endings is None else "beginnings"
        try:
            answers = self._compiled.template.many(task, list(wanted.values()))
        except OverLimit:  # rendering them one by one will show which
            return {}
        return {key: answer for key, answer in zip(wanted, answers, strict=True) if "text" in answer}

    def _holds(self, whole: RenderedPrefixes, turns: list[Turn]) -> bool:
        """Return whether two prefixes are what transformers itself renders."""
        half = max(1, len(turns) // 2)
        return all(
            whole.prefix(n, prompt=prompt) == self._by_transformers(turns[:n], prompt)
            for n, prompt in ((half, True), (len(turns), False))
        )

    def _alone(self, turns: list[Turn], prompt: bool) -> str:
        assert self._compiled.template is not None
        return self._compiled.template.render(**self._given, messages=turns, add_generation_prompt=prompt)
