"""Render every prefix of a conversation at once, for chat templates that never look ahead.

Such a template writes each message from what came before it alone, so that the text of a shorter conversation
is a prefix of the longer one's. Whether a template is of that kind is read from its syntax tree; in case of
doubt it is not. Depends on templates only, not on labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MESSAGES, PROMPT = "messages", "add_generation_prompt"
# Attributes of `loop` that depend on the past only; all others may depend on the future.
_PAST = ("first", "index", "index0", "previtem")


@dataclass(frozen=True, slots=True)
class RenderedPrefixes:
    """The `text` of all messages; `starts[k]` is where message k starts, the last one where the text ends.

    `prompt` and `end` follow the last message with and without a generation prompt.
    """

    text: str
    starts: list[int]
    prompt: str
    end: str

    def prefix(self, messages: int, *, prompt: bool) -> str:
        """Return the rendering of the first `messages` messages."""
        return self.text[: self.starts[messages]] + (self.prompt if prompt else self.end)


def endings(environment: Any, source: str) -> tuple[str, str] | None:
    """Return what a template that never looks ahead writes after the last message, with and without a prompt.

    None if it may look ahead, or is written in an unknown way.
    """
    from jinja2 import nodes

    body = environment.parse(source).body
    loops = [at for at, node in enumerate(body) if isinstance(node, nodes.For)]
    if len(loops) != 1:
        return None
    loop, after = body[loops[0]], body[loops[0] + 1 :]
    before = nodes.Template(body[: loops[0]])
    if not _is_plain_loop(loop) or not all(_looks_back(node) for node in (before, *loop.body)):
        return None
    with_prompt, without = _constant(after, True), _constant(after, False)
    return None if with_prompt is None or without is None else (with_prompt, without)


def _is_plain_loop(loop: Any) -> bool:
    from jinja2 import nodes

    over = isinstance(loop.iter, nodes.Name) and loop.iter.name == MESSAGES
    return over and isinstance(loop.target, nodes.Name) and not (loop.else_ or loop.test or loop.recursive)


def _looks_back(tree: Any) -> bool:
    """Return whether nothing in `tree` depends on later messages or on the generation prompt."""
    from jinja2 import nodes

    odd = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.Include, nodes.Import, nodes.FromImport)
    if isinstance(tree, odd) or any(tree.find_all(odd)):
        return False
    allowed: set[int] = set()
    for part in tree.find_all(nodes.Getitem):
        first = isinstance(part.arg, nodes.Const) and part.arg.value == 0
        if isinstance(part.node, nodes.Name) and part.node.name == MESSAGES and first:
            allowed.add(id(part.node))
    for part in tree.find_all(nodes.Getattr):
        if isinstance(part.node, nodes.Name) and part.node.name == "loop" and part.attr in _PAST:
            allowed.add(id(part.node))
    names = (name for name in tree.find_all(nodes.Name) if name.name in (MESSAGES, PROMPT, "loop"))
    return all(id(name) in allowed for name in names)


def _constant(after: list[Any], prompt: bool) -> str | None:
    """Return the text of nodes that depend on nothing but `add_generation_prompt`; None for others."""
    from jinja2 import nodes

    text = ""
    for node in after:
        if isinstance(node, nodes.Output):
            for part in node.nodes:
                if isinstance(part, nodes.TemplateData):
                    text += part.data
                elif isinstance(part, nodes.Const) and isinstance(part.value, str):
                    text += part.value
                else:
                    return None
        elif isinstance(node, nodes.If) and isinstance(node.test, nodes.Name) and node.test.name == PROMPT:
            inner = None if node.elif_ else _constant(node.body if prompt else node.else_, prompt)
            if inner is None:
                return None
            text += inner
        else:
            return None
    return text


def render_all(
    template: Any, values: Mapping[str, Any], turns: list[dict[str, str]]
) -> tuple[str, list[int]]:
    """Return the text of all turns without what follows them, and where each starts and the last one ends."""
    watched = _RecordedMessages(turns)
    context = template.new_context({**values, MESSAGES: watched, PROMPT: False})
    for chunk in template.root_render_func(context):
        watched.chunks.append(chunk)
        watched.length += len(chunk)
    text = "".join(watched.chunks)
    return text, watched.starts


class _RecordedMessages(list[dict[str, str]]):
    """Messages that record how much was written when each was read: templates write as they iterate."""

    def __init__(self, turns: list[dict[str, str]]) -> None:
        super().__init__(turns)
        self.chunks: list[str] = []
        self.length = 0
        self.starts: list[int] = []

    def __iter__(self) -> Iterator[dict[str, str]]:
        for turn in list.__iter__(self):
            self.starts.append(self.length)
            yield turn
        self.starts.append(self.length)
