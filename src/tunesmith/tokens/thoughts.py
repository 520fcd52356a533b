"""A model's thoughts before its answer, split from its reply by one rule for sampling and dialogues.

Thoughts are between two tags. The opening one may be in the prompt, since many chat templates write it there.
A family's tags are read from its chat template; if there is none, the `KNOWN` ones are looked for. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from tunesmith.tokens.conversation import Message


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags around thoughts. With `anywhere`, only a model that thinks writes them.

    Others mean thoughts only at the start of a reply: a prompt may ask for such XML.
    """

    begin: str
    end: str
    anywhere: bool = True


THINK = Tags("<think>", "</think>")
THOUGHT_TAGS = OPENS_THOUGHT, CLOSES_THOUGHT = THINK.begin, THINK.end
_CHANNELS = Tags("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")
# The same without special tokens, as engines decode it.
_BARE_CHANNELS = Tags("analysis", "assistantfinal", anywhere=False)
KNOWN = (
    THINK,
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<mm:think>", "</mm:think>"),
    Tags("◁think▷", "◁/think▷"),
    Tags("<|begin_of_thought|>", "<|end_of_thought|>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<unused94>thought", "<unused95>"),
    Tags("<|channel>thought", "<channel|>"),
    Tags("<|inner_prefix|>", "<|inner_suffix|>"),
    _CHANNELS,
    Tags("<thinking>", "</thinking>", anywhere=False),
    Tags("<thought>", "</thought>", anywhere=False),
    Tags("<thoughts>", "</thoughts>", anywhere=False),
    Tags("<reasoning>", "</reasoning>", anywhere=False),
    Tags("Here is my thought process:", "Here is my response:", anywhere=False),
    Tags("Here's my thought process:", "Here's my response:", anywhere=False),
)
"""The tags of known families."""
TAGS = frozenset(text for tag in KNOWN for text in (tag.begin, tag.end))
"""Texts that stay in a reply even if they are control tokens: they separate thoughts from the answer."""
_NAME = r"(?:\w+:)?[a-z_]*(?:think|thought|reason)[a-z_]*"
_ANGLE, _SQUARE = re.compile(rf"</({_NAME})>", re.IGNORECASE), re.compile(rf"\[/({_NAME})\]", re.IGNORECASE)
# Tags of an unlisted family; names are short and few, whatever a reply contains.
_UNLISTED = re.compile(
    r"[<\[]/?((?:\w{1,20}:)?[a-z_]{0,20}(?:think|thought)[a-z_]{0,20})[>\]]", re.IGNORECASE
)
_MOST_UNLISTED = 8
_QUOTES = frozenset("`'\"“”‘’«»「」")
_TURN_ENDS = re.compile(r"(?:<\|end\|>)?(?:<\|start\|>assistant)?\s*$")


@dataclass(frozen=True, slots=True)
class SplitReply:
    """The parts of a reply, stripped. `unended` means that it ends in its thoughts and has no `answer`."""

    answer: str
    reasoning: str = ""
    unended: bool = False


def thought_of(message: Message) -> tuple[str, str, str] | None:
    """Return opening tag, thought and answer of an assistant's turn that thinks first; None for others.

    The tag is "" if the prompt opens the thought.
    """
    if message.role != "assistant" or CLOSES_THOUGHT not in message.content:
        return None
    thought, _, answer = message.content.partition(CLOSES_THOUGHT)
    before, opening, rest = thought.partition(OPENS_THOUGHT)
    if not opening:
        return "", thought, answer
    return None if before.strip() else (opening, rest, answer)


def with_thought(thought: str, answer: str) -> str:
    """Return a reply that thinks first, as `thought_of` reads it."""
    return f"{OPENS_THOUGHT}\n{thought.strip()}\n{CLOSES_THOUGHT}\n\n{answer}" if thought.strip() else answer


def split(text: str, tags: Sequence[Tags] = KNOWN, *, begun: Tags | None = None) -> SplitReply:
    """Split the thoughts from a reply; `begun` are the tags that the prompt has opened.

    Tags in quotes or backticks are mentions, and are text. A closing tag without an opening one ends thoughts
    that the prompt has opened: everything before it is thoughts.
    """
    pattern, by_text = _pattern(tags if begun is None else (begun, *tags))
    answer, thoughts, inside, position = list[str](), list[str](), begun, 0
    spoken = set[Tags]()
    for match in pattern.finditer(text):
        tag, before = by_text[match.group()], text[position : match.start()]
        if _quoted(text, match.start(), match.end()):
            continue
        ends = match.group() == tag.end
        if inside is not None:
            if not ends or tag.end != inside.end:
                continue
            thoughts.append(before)
            inside = None
        elif ends:
            if tag in spoken or not (tag.anywhere or tag.end.startswith(("</", "[/"))):
                continue
            thoughts.append("".join([*answer, before]))
            answer = []
        elif tag.anywhere or not "".join([*answer, before]).strip():
            answer.append(before)
            inside = tag
        else:
            spoken.add(tag)
            continue
        position = match.end()
    if inside is not None:
        return SplitReply("", _joined([*thoughts, text[position:]]), unended=True)
    return SplitReply("".join([*answer, text[position:]]).strip(), _joined(thoughts))


def tags_of(template: str) -> tuple[Tags, ...]:
    """Return the tags that a chat template's source contains, followed by `KNOWN`."""
    found = [Tags(f"<{name}>", f"</{name}>") for name in _ANGLE.findall(template)]
    found += [Tags(f"[{name}]", f"[/{name}]") for name in _SQUARE.findall(template)]
    found += [tag for tag in KNOWN if tag.begin in template or tag.end in template]
    if "<|channel|>" in template:
        found += [_CHANNELS, _BARE_CHANNELS]
    by_end: dict[str, Tags] = {}
    for tag in (*found, *KNOWN):
        by_end.setdefault(tag.end, tag)
    return tuple(by_end.values())


def tags_in(reply: str) -> tuple[Tags, ...]:
    """Return `KNOWN`, followed by tags in the reply whose names suggest thoughts of other families."""
    listed = {tag.begin for tag in KNOWN}
    names = dict.fromkeys(found[1] for found in islice(_UNLISTED.finditer(reply), 100))
    pairs = [("<", ">"), ("[", "]")]
    unlisted = [Tags(f"{a}{name}{b}", f"{a}/{name}{b}", anywhere=False) for name in names for a, b in pairs]
    return (*KNOWN, *[tag for tag in unlisted if tag.begin not in listed][:_MOST_UNLISTED])


def begun_by(prompt: str, tags: Sequence[Tags]) -> Tags | None:
    """Return the tags that a prompt has opened for the reply, by ending with the first of them."""
    text = prompt.rstrip()
    return next((tag for tag in tags if tag.anywhere and text.endswith(tag.begin)), None)


def _pattern(tags: Iterable[Tags]) -> tuple[re.Pattern[str], dict[str, Tags]]:
    by_text: dict[str, Tags] = {}
    for tag in tags:
        by_text.setdefault(tag.begin, tag)
        by_text.setdefault(tag.end, tag)
    return re.compile("|".join(re.escape(text) for text in sorted(by_text, key=len, reverse=True))), by_text


def _quoted(text: str, start: int, end: int) -> bool:
    return start > 0 and end < len(text) and text[start - 1] in _QUOTES and text[end] in _QUOTES


def _joined(thoughts: Iterable[str]) -> str:
    parts = (_TURN_ENDS.sub("", thought).strip() for thought in thoughts)
    return "\n\n".join(part for part in parts if part)
