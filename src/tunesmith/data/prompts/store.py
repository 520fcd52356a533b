"""Prompts on the local disk, read by position: a million of them take some megabytes per process.

A folder of `rows` (a JSON line per prompt: id, record, messages, label, tools), `tokens` (int32, all prompts
end to end), their offsets in the two (`row_starts` and `token_starts`, int64, prompts + 1), `ids` (a JSON
string per line), `digests` (two per prompt: of its id and of its whole content) and `facts.json`. The folder
is written atomically. Does not depend on where prompts come from.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from io import FileIO
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from tunesmith.artifacts.folder_writer import FACTS, FolderWriter
from tunesmith.artifacts.journal.key_set import DIGEST_SIZE, digest_of
from tunesmith.artifacts.local_files import explained
from tunesmith.data.formats.fields import unread_text
from tunesmith.data.record import RecordProblem
from tunesmith.data.report import counted
from tunesmith.tokens.calls import CallForm, with_calls
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.packed import pack_message, unpack_message

# Deeper nesting is a mistake or an attack, and would exceed the recursion limit when written or sent.
DEEPEST = 100
CALLS_STAY_TEXT = (
    "calls of tools stay text, without control tokens: the chat template does not write them as JSON"
)
_NAMED = 3
_FILES = ("rows", "tokens", "ids", "digests")
_ID_TYPE, _START_TYPE = np.dtype("<i4"), np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and what a verifier needs to check its reply.

    `id` is unique. `record` has the record's own fields, `ids` the token ids of `messages` as sent in
    inference, `label` the direction of a changed law, for cases that have one, `set` the name of the test set
    it belongs to, "" if there are none. `tools` and `arguments` are as in `Conversation`; `calls` is how the
    model writes calls of them, if known.
    """

    id: str
    record: dict[str, Any]
    messages: tuple[Message, ...]
    ids: list[int]
    label: str | None = None
    set: str = ""
    tools: str = ""
    arguments: str = ""
    calls: CallForm | None = None

    def reply(self, text: str) -> Message:
        """Return a reply to this prompt as a message, with its calls if it ends in some of the tools."""
        return with_calls(text, self.tools, self.calls)


@dataclass(frozen=True, slots=True)
class PackedPrompt:
    """A prompt as written to disk: its row as a line of JSON, and its tokens as little-endian int32."""

    id: str
    row: bytes
    tokens: bytes
    has_tools: bool = False


def pack(prompt: Prompt) -> PackedPrompt:
    """Return a prompt's bytes. Raises RecordProblem for what JSON cannot hold, and for too deep nesting."""
    messages = [pack_message(message) for message in prompt.messages]
    fields = {"id": prompt.id, "record": prompt.record, "messages": messages, "label": prompt.label}
    # Only what there is, so that digests of other prompts stay what they were.
    given = {"set": prompt.set, "tools": prompt.tools, "arguments": prompt.arguments}
    fields |= {name: value for name, value in given.items() if value}
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        row = text.encode() + b"\n"
    except UnicodeEncodeError:
        raise RecordProblem("the text contains a lone surrogate (\\ud800 to \\udfff)") from None
    except ValueError:
        raise RecordProblem("a number is NaN or infinite, which is not JSON; use a number or null") from None
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(prompt.record):
        raise RecordProblem(f"the record is nested more than {DEEPEST} levels deep")
    return PackedPrompt(prompt.id, row, np.asarray(prompt.ids, _ID_TYPE).tobytes(), bool(prompt.tools))


def _content_digest(packed: PackedPrompt) -> bytes:
    whole = blake2b(packed.row, digest_size=DIGEST_SIZE)
    whole.update(packed.tokens)
    return whole.digest()


def _is_deep(record: dict[str, Any]) -> bool:
    level: list[Any] = [record]
    for _ in range(DEEPEST):
        inside = (inner for outer in level for inner in (outer.values() if type(outer) is dict else outer))
        level = [inner for inner in inside if isinstance(inner, dict | list)]
    return bool(level)


class PromptWriter(FolderWriter):
    """Writes one folder. Use as a context manager: without `finish`, nothing is kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, _FILES)
        self._row_starts, self._token_starts = array("q", [0]), array("q", [0])
        self._digest = sha256()
        self.has_tools = False

    def add(self, packed: PackedPrompt) -> None:
        """Append a prompt."""
        with explained("write", self.temp):
            self.files["rows"].write(packed.row)
            self.files["tokens"].write(packed.tokens)
            self.files["ids"].write(json.dumps(packed.id).encode() + b"\n")
            self.files["digests"].write(digest_of(packed.id) + _content_digest(packed))
        self.has_tools = self.has_tools or packed.has_tools
        self._row_starts.append(self._row_starts[-1] + len(packed.row))
        self._token_starts.append(self._token_starts[-1] + len(packed.tokens) // _ID_TYPE.itemsize)
        # A row ends with its line break, and the tokens' size is included: no two lists of prompts collide.
        self._digest.update(b"%b%d\n%b" % (packed.row, len(packed.tokens), packed.tokens))

    def __len__(self) -> int:
        return len(self._row_starts) - 1

    def finish(self, facts: Mapping[str, Any], calls: CallForm | None = None) -> None:
        """Rename the folder, in place of an existing one. Tokens are counted here, not by the caller.

        `calls` is how the model writes calls of the prompts' tools.
        """
        starts = np.asarray(self._token_starts)
        counted = {
            **facts,
            "prompts": len(self),
            "tokens": int(starts[-1]),
            "longest": int(np.diff(starts).max(initial=0)),
        }
        told = {"digest": self._digest.hexdigest(), "facts": counted, "has_tools": self.has_tools}
        told |= {"calls": asdict(calls)} if calls else {}
        starts_of = {"row_starts": np.asarray(self._row_starts), "token_starts": starts}
        files = {name: array_.astype(_START_TYPE).tobytes() for name, array_ in starts_of.items()}
        self.finish_folder(files, told)


class Prompts(Sequence[Prompt]):
    """The prompts of a finished folder, in the order of the input. Any number of processes may open it.

    Reads a prompt on access and caches none. `digest` is a SHA-256 over all ids, records, messages,
    labels and tokens, in order. `facts` are the preparation's counts: `records`, `prompts`, `bad` with the
    first `bad_records`, `skipped` by reason, `equal`, `tokens`, `longest` (tokens of a prompt at most),
    `unread` fields by name and `skipped_files`. Close it when done.
    """

    def __init__(self, folder: Path) -> None:
        with explained("read", folder / FACTS):
            told = json.loads((folder / FACTS).read_text("utf-8"))
            self.digest: str = told["digest"]
            self.facts: dict[str, Any] = told["facts"]
            self._has_tools = told.get("has_tools", False)
            self._calls = CallForm(**told["calls"]) if told.get("calls") else None
            self._row_starts = np.memmap(folder / "row_starts", _START_TYPE, "r")
            self._token_starts = np.memmap(folder / "token_starts", _START_TYPE, "r")
            self._rows, self._tokens = FileIO(folder / "rows"), FileIO(folder / "tokens")
        self.folder = folder

    def __len__(self) -> int:
        return len(self._row_starts) - 1

    @overload
    def __getitem__(self, position: int) -> Prompt: ...

    @overload
    def __getitem__(self, position: slice) -> list[Prompt]: ...

    def __getitem__(self, position: int | slice) -> Prompt | list[Prompt]:
        """Return one prompt, or those of a slice."""
        chosen = range(len(self))[position]
        return self._prompt(chosen) if isinstance(chosen, int) else [self._prompt(at) for at in chosen]

    def _prompt(self, at: int) -> Prompt:
        row = json.loads(_read(self._rows, self._row_starts, at, 1))
        tokens = _read(self._tokens, self._token_starts, at, _ID_TYPE.itemsize)
        messages = tuple(unpack_message(*message) for message in row["messages"])
        ids: list[int] = np.frombuffer(tokens, _ID_TYPE).tolist()
        given = {name: row.get(name, "") for name in ("set", "tools", "arguments")}
        return Prompt(row["id"], row["record"], messages, ids, row["label"], calls=self._calls, **given)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the tokens of each prompt, in order."""
        return np.diff(self._token_starts)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all prompts, in order, without reading the prompts."""
        with (self.folder / "ids").open("rb") as file:
            for line in file:
                yield json.loads(line)

    @property
    def digests(self) -> Path:
        """Return the file of two digests per prompt, in order: of its id, and of its content, id included."""
        return self.folder / "digests"

    def shard(self, number: int, size: int) -> range:
        """Return the positions of shard `number`, with `size` prompts each, the last one possibly smaller.

        Empty past the last shard.
        """
        return range(len(self))[number * size : (number + 1) * size]

    def sentences(self) -> list[str]:
        """Return the facts as text; zeros are left out, except for the first."""
        facts = self.facts
        lines = [
            f"{counted(facts['records'], 'record')} → {counted(len(self), 'prompt')}",
            f"{counted(facts['tokens'], 'token')}, the longest prompt has {facts['longest']:,}",
        ]
        if facts.get("sets"):
            lines[0] += f" in {counted(facts['sets'], 'set')}"
        if facts["equal"]:
            lines.append(f"{counted(facts['equal'], 'prompt')} equal to an earlier one")
        if facts["bad"]:
            lines.append(f"{counted(facts['bad'], 'bad record')}, as maxBadRecords allows; the first:")
            lines += facts["bad_records"][:_NAMED]
        lines += [f"{number:,} left out: {reason}" for reason, number in facts["skipped"].items()]
        lines += [f"not read: {unread_text(facts['unread'])}"] if facts.get("unread") else []
        lines += [CALLS_STAY_TEXT] if self._has_tools and self._calls is None else []
        return [*lines, *(f"file left out: {each}" for each in facts["skipped_files"])]

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _read(file: FileIO, starts: Any, at: int, size: int) -> bytes:
    """Return what begins at `starts[at]` and ends at the next start, in units of `size` bytes.

    Not mapped into memory: pages read would then count as the process's memory, up to the whole file.
    """
    start, end = int(starts[at]) * size, int(starts[at + 1]) * size
    return os.pread(file.fileno(), end - start, start)
