"""A conversation of a person and a model on a console; the person gives the results of calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tunesmith.api.generation import PreviewGeneration
from tunesmith.data.prompts.asking import Exchange
from tunesmith.engines.hf.generate import reply
from tunesmith.local.chat_as import Asking
from tunesmith.text import visible
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Message, ToolCall

ENDINGS = ("", "/exit", "/quit", "/bye")
RESET = "/reset"
HELP = "An empty line or Ctrl-D quits, /reset starts a new conversation, Ctrl-C interrupts a reply."


class _LeftError(Exception):
    """The person has left the conversation; `reset` if a new one begins."""

    def __init__(self, *, reset: bool = False) -> None:
        self.reset = reset


class ChatSession:
    """Turns of a person and a model, on a console."""

    def __init__(
        self,
        console: Console,
        model: Any,
        tokenizer: ChatTokenizer,
        settings: PreviewGeneration,
        how: Asking,
        tools: str = "",
    ) -> None:
        """`tools` are those that `tokenizer` shows, as in `Conversation`."""
        self._console, self._model, self._tokenizer, self._settings = console, model, tokenizer, settings
        self._how, self._tools = how, tools
        self._past: list[Exchange] = []
        self._turn = 0
        self._prompt = "you> "
        if console.is_terminal and sys.stdin.isatty():
            import readline  # noqa: F401  (gives `input` its line editing)

            self._prompt = "\x01\x1b[1;36m\x02you>\x01\x1b[0m\x02 "
        self._context = context_length(model)

    def run(self) -> None:
        """Ask and answer until the end of input."""
        try:
            if self._how.first:
                self._note(self._how.first)
                self._ask(self._how.first)
            while True:
                self._line()
        except _LeftError:
            return

    def _line(self) -> None:
        """Deal with one line of the person's. Raises _LeftError at the end."""
        text = self._read(self._prompt).strip()
        if text in ENDINGS and (text or self._how.takes_text):
            raise _LeftError
        if text == RESET:
            self._reset()
        elif text == "/help":
            self._note(HELP)
        elif text and not self._how.takes_text:
            self._note("this preset takes no input; an empty line sends the prompt, /exit quits")
        else:
            self._ask(text)

    def _ask(self, text: str) -> None:
        try:
            self._exchange(text)
        except _LeftError as left:
            if not left.reset:
                raise
            self._reset()

    def _read(self, prompt: str) -> str:
        """Return a line of input. Raises _LeftError at its end."""
        while True:
            try:
                return input(prompt)
            except (EOFError, KeyboardInterrupt):
                self._console.print()
                raise _LeftError from None
            except UnicodeDecodeError:
                self._note("the input was not UTF-8 text")

    def _reset(self) -> None:
        self._past = []
        self._note("a new conversation")

    def _exchange(self, text: str) -> None:
        """Let the model reply, with the results of its calls, until it calls no more."""
        messages = self._tokenizer.asked(self._how.ask(self._past, text))
        between: list[Message] = []
        while (answer := self._reply([*messages, *between])) is not None:
            if not answer.calls:
                self._past.append(Exchange(text, answer.content, tuple(between)))
                return
            between += [answer, *map(self._result, answer.calls)]

    def _result(self, call: ToolCall) -> Message:
        """Ask the person for what a call returns. Raises _LeftError."""
        self._note(f"{call.name} is called with {call.arguments}; what does it return? (one line)")
        text = self._read(f"{call.name}> ").strip()
        if text == RESET:
            raise _LeftError(reset=True)
        if text and text in ENDINGS:
            raise _LeftError
        return Message("tool", text, name=call.name, call_id=call.id)

    def _reply(self, messages: Sequence[Message]) -> Message | None:
        """Return the model's reply; None if there is no room for one, or the prompt cannot be rendered."""
        try:
            used = len(self._tokenizer.prompt_ids(messages))
        except RecordError as error:
            self._note(f"this cannot be sent to the model: {error.message}")
            return None
        room = self._settings.max_new_tokens if self._context is None else self._context - used
        if room < 1:
            self._note(
                f"the conversation is longer than the model's {self._context} tokens; /reset starts over"
            )
            return None
        self._turn += 1
        limit = min(room, self._settings.max_new_tokens)
        answer = self._answer(messages, self._settings.model_copy(update={"max_new_tokens": limit}))
        return self._tokenizer.reply_message(answer, self._tools)

    def _answer(self, messages: Sequence[Message], settings: PreviewGeneration) -> str:
        self._console.print("[bold green]model>[/bold green] ", end="")
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            self._console.print(Text(visible(piece)), end="", soft_wrap=True)

        try:
            answer = reply(self._model, self._tokenizer, messages, settings, seed=self._turn, on_text=show)
        except KeyboardInterrupt:
            answer = "".join(pieces)
        self._console.print(Text("" if pieces else "(nothing)", style="dim"))
        return answer

    def _note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))


def context_length(model: Any) -> int | None:
    """Return the tokens the model can attend to, if its configuration says so."""
    length = getattr(model.config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None
