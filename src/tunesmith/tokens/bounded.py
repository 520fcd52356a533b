"""Render chat templates in a separate process, within limits that no legitimate template comes near.

A model's author wrote its template, a program that may loop, multiply and nest without end; Jinja's sandbox
limits none of that. A single child process renders all templates, and is restarted after it had to be
stopped. Does not depend on what messages mean, nor on what a rendering is for.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import count
from typing import Any, BinaryIO, NamedTuple, Self

from tunesmith.errors import TemporaryError
from tunesmith.processes import Ended, Process

# What one rendering may use, and how much more per character of the conversation.
SECONDS, SECONDS_EACH = 10.0, 1 / 20_000
MEMORY_BYTES, MEMORY_BYTES_EACH = 256 << 20, 64
CHARACTERS, CHARACTERS_EACH = 4_000_000, 100
LONGEST_SOURCE = 1_000_000
_WORKER = "tunesmith.tokens.template_worker"
_LONGEST_ANSWER = 1 << 40
"""Longer than any text within the limits, since the conversation itself is in our memory too."""
_WAITS = 60
"""Wall-clock time, as a multiple of the CPU time limit, after which a process counts as dead."""
_ATTEMPTS = 2
_FAR = ", far more than a chat template needs"
_keys = count()

Turns = Sequence[Mapping[str, Any]]


class OverLimit(Exception):  # noqa: N818 - its text is the end of a sentence about the template
    """A template uses more than any legitimate one."""


class Limits(NamedTuple):
    """Limits of one rendering: seconds of CPU time, bytes of memory, characters of output."""

    seconds: float
    memory: int
    characters: int


class Request(NamedTuple):
    """A request to the process: a task, the template's key, and the values of each rendering."""

    task: str
    template: int
    values: Sequence[Mapping[str, Any]]
    limits: Limits

    def plain(self) -> tuple[object, ...]:
        """Return the request as a tuple, which is pickled in half the time."""
        return self.task, self.template, self.values, tuple(self.limits)

    @classmethod
    def read(cls, messages: BinaryIO) -> Self:
        """Return the next request. Raises EOFError after the last."""
        task, template, values, limits = pickle.load(messages)
        return cls(task, template, values, Limits(*limits))


class BoundedTemplate:
    """A chat template, given its source. `values` are passed to every rendering.

    Methods that render raise jinja2's TemplateError with the template's own message if it raises one,
    OverLimit if a limit is exceeded, and TemporaryError if no process can be started.
    """

    def __init__(self, source: str, values: Mapping[str, Any] | None = None) -> None:
        if len(source) > LONGEST_SOURCE:
            raise OverLimit(f"has more than {LONGEST_SOURCE:,} characters{_FAR}")
        self._source, self._values, self._key = source, dict(values or {}), next(_keys)

    def render(self, **values: Any) -> str:
        """Return the text, as jinja2's own templates return it."""
        return str(self._one("text", values)["text"])

    def prefixes(self, turns: Turns) -> tuple[str, list[int]]:
        """Return the text and the starts of `turns`, as `template_prefixes.render_all`."""
        answer = self._one("beginnings", {"messages": turns})
        return answer["text"], answer["starts"]

    @cached_property
    def endings(self) -> tuple[str, str] | None:
        """The text after the last message with and without a prompt, as `template_prefixes.endings`."""
        found = self._one("endings", {})["endings"]
        return None if found is None else (found[0], found[1])

    def many(self, task: str, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what `render` ("text") or `prefixes` ("beginnings") finds for each, in one request.

        These are the process's raw answers; those without a `text` are explained by the other methods. Raises
        OverLimit if all together exceed the limits, which does not show that any single one does.
        """
        limits = limits_for([_size(each) for each in values])
        opening = {"source": self._source, "values": self._values}
        return _process.ask(
            Request(task, self._key, values, limits), Request("open", self._key, [opening], limits)
        )

    def _one(self, task: str, values: Mapping[str, Any]) -> dict[str, Any]:
        from jinja2.exceptions import TemplateError

        answer = self.many(task, [values])[0]
        if "refused" in answer:
            raise TemplateError(answer["refused"])
        if "over" in answer:
            raise OverLimit(f"renders more than {answer['over']:,} characters{_FAR}")
        return answer


def limits_for(sizes: Sequence[int]) -> Limits:
    """Return the limits for rendering conversations of these sizes (in characters) together.

    The maximum text length of each is that of the shortest one.
    """
    size = sum(sizes)
    return Limits(
        SECONDS + SECONDS_EACH * size,
        MEMORY_BYTES + MEMORY_BYTES_EACH * size,
        CHARACTERS + CHARACTERS_EACH * min(sizes),
    )


def _size(values: Mapping[str, Any]) -> int:
    """Return the characters of what a rendering gets: its messages, and other values such as tools."""
    turns = values.get("messages") or ()
    parts = (part for turn in turns for part in turn.values())
    others = sum(len(repr(value)) for name, value in values.items() if name != "messages")
    return others + sum(len(part) if isinstance(part, str) else len(repr(part)) for part in parts)


class _RenderProcess:
    """The process that renders for all threads: started when first needed, and again after it was stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Process | None = None

    def ask(self, request: Request, opening: Request) -> list[dict[str, Any]]:
        """Return an answer for each of the values, sending `opening` first if the template is unknown.

        Raises OverLimit if there is no answer, after two attempts if the cause may lie elsewhere: memory
        that earlier renderings left behind counts against the first attempt.
        """
        with self._lock:
            for left in reversed(range(_ATTEMPTS)):
                try:
                    return self._answers(request, opening)
                except _Failed as failed:
                    if failed.surely or not left:
                        raise OverLimit(str(failed)) from None
        raise AssertionError

    def _answers(self, request: Request, opening: Request) -> list[dict[str, Any]]:
        answers = self._attempt(request)
        if answers is None:
            opened = self._attempt(opening)
            answers = self._attempt(request) if opened == [{}] else None
            return (opened or []) * len(request.values) if answers is None else answers
        return answers

    def _attempt(self, request: Request) -> list[dict[str, Any]] | None:
        limits, process = request.limits, self._started()
        try:
            answer = process.ask(request.plain(), _WAITS * limits.seconds)
        except TimeoutError:
            self.end()
            raise _too_long(limits) from None
        except Ended:
            code = self.end()
            if code == -signal.SIGPROF:
                raise _too_long(limits) from None
            raise _Failed(f"ends the process that renders it (exit code {code})") from None
        except BaseException:  # its answer would be taken for that of the next request
            self.end()
            raise
        if "over" in answer:
            self.end()
            raise _Failed(f"needs more than {limits.memory >> 20:,} MiB of memory{_FAR}")
        return answer.get("answers")

    def _started(self) -> Process:
        if self._process is None:
            try:
                self._process = Process(_WORKER, _LONGEST_ANSWER)
            except OSError as error:
                raise TemporaryError(
                    f"No process can be started to render chat templates: {error}."
                ) from error
        return self._process

    def end(self) -> int | None:
        """Stop the process and return its exit code."""
        process, self._process = self._process, None
        return None if process is None else process.end()


class _Failed(Exception):  # noqa: N818 - as OverLimit
    """An attempt without an answer. `surely` means that another attempt would fail as well."""

    def __init__(self, text: str, *, surely: bool = False) -> None:
        super().__init__(text)
        self.surely = surely


def _too_long(limits: Limits) -> _Failed:
    return _Failed(f"takes more than {limits.seconds:,.0f} s of processor time{_FAR}", surely=True)


_process = _RenderProcess()


def _begin_anew() -> None:
    """Drop the process in a forked child, which must not write to its parent's socket."""
    global _process
    _process = _RenderProcess()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(lambda: _process.end())


# transformers caches compiled templates too.
_compile = lru_cache(16)(BoundedTemplate)


def bound_transformers() -> None:
    """Make transformers' `apply_chat_template` render here, by replacing its only function that compiles."""
    from transformers.utils import chat_template_utils

    if chat_template_utils._compile_jinja_template is not _compile:
        chat_template_utils._compile_jinja_template = _compile
