"""The process in which chat templates are rendered: they are programs, written by the model's author.

The kernel kills it when a rendering has used up its CPU time, and gives it no more memory than a rendering
may need, whatever the template does: loops, large numbers, patterns, nesting. Does not depend on
transformers, whose import takes half a second; a test compares the two environments.
"""

from __future__ import annotations

import json
import resource
import signal
import socket
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.processes import limit_memory, memory_in_use
from tunesmith.tokens.bounded import Limits, Request
from tunesmith.tokens.template_prefixes import endings, render_all

_KEPT = 16
_LONGEST_REASON = 1000
_TOO_DEEP = "it recurses endlessly or is nested too deeply"
_HALF = "it writes a lone surrogate, half of a character"


@dataclass(frozen=True, slots=True)
class _Opened:
    source: str
    compiled: Template
    values: Mapping[str, Any]


_Opens = OrderedDict[int, _Opened]


def main(descriptor: int, _parent: int) -> None:
    """Answer requests until the socket is closed, which happens when our parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    made, opened, base = environment(), OrderedDict[int, _Opened](), memory_in_use()
    with socket.socket(fileno=descriptor) as ours, ours.makefile("rb") as messages:
        while True:
            try:
                request = Request.read(messages)
            except EOFError:
                return
            _allow(request.limits, base)
            answer = _answer(made, opened, request)
            _allow(None, base)
            ours.sendall(answer + b"\n")


def _allow(limits: Limits | None, base: int) -> None:
    """Set the limits of a rendering; None lifts them to read a request, which is our parent's own."""
    signal.setitimer(signal.ITIMER_PROF, limits.seconds if limits else 0)
    if base:
        limit_memory(base + limits.memory if limits else None)


def _answer(made: Any, opened: _Opens, request: Request) -> bytes:
    """Return a line of JSON. Only lack of memory makes all renderings fail together."""
    template = opened.get(request.template)
    if request.task != "open" and template is None:
        return b"{}"
    try:
        return json.dumps(
            {"answers": [_guarded(made, opened, request, each) for each in request.values]}
        ).encode()
    except MemoryError:
        return b'{"over": "memory"}'


def _guarded(made: Any, opened: _Opens, request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer, or the reason of a failure: no exception of a template may leave this process."""
    try:
        return _done(made, opened, request, values)
    except MemoryError:
        raise
    except RecursionError:
        reason = _TOO_DEEP
    except (TemplateError, TypeError) as error:
        reason = str(error)
    except UnicodeEncodeError:
        reason = _HALF
    except Exception as error:  # noqa: BLE001
        reason = f"{type(error).__name__}: {error}"
    return {"refused": reason[:_LONGEST_REASON]}


def _done(made: Any, opened: _Opens, request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
    match request.task:
        case "open":
            _open(made, opened, request.template, values)
            return {}
        case "endings":
            return {"endings": endings(made, opened[request.template].source)}
        case "beginnings":
            template = opened[request.template]
            text, starts = render_all(template.compiled, template.values, values["messages"])
            return _checked(text, request.limits) | {"starts": starts}
    return _checked(_text(opened[request.template], values), request.limits)


def _open(made: Any, opened: _Opens, key: int, values: Mapping[str, Any]) -> None:
    source = values["source"]
    opened[key] = _Opened(source, made.from_string(source), values["values"])
    while len(opened) > _KEPT:
        opened.popitem(last=False)


def _text(template: _Opened, values: Mapping[str, Any]) -> str:
    compiled = template.compiled
    return "".join(compiled.root_render_func(compiled.new_context({**template.values, **values})))


def _checked(text: str, limits: Limits) -> dict[str, Any]:
    """Return the rendering, or the limit that it exceeds."""
    if len(text) > limits.characters:
        return {"over": limits.characters}
    if not text.isascii():
        text.encode()
    return {"text": text}


# --- As in transformers -----------------------------------------------------------------------------------


def environment() -> ImmutableSandboxedEnvironment:
    """Return Jinja's environment with what transformers gives to chat templates."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    made.filters["tojson"] = _as_json
    made.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return made


class _Generation(Extension):
    """The tag `{% generation %}`, around what a model writes; it changes nothing in the text."""

    tags = {"generation"}  # noqa: RUF012 - as in jinja2's own

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse to the end of the tag."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Macro) -> str:
        return caller()


def _as_json(
    x: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(format: str) -> str:  # noqa: A002 - templates may name it
    return datetime.now().strftime(format)
