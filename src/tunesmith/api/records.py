"""Common part of datasets, validation, prompts and seeds: where records are, and their fields' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.alias_generators import to_camel

from tunesmith.api.addresses import HUB_DATASETS, RecordsUri
from tunesmith.api.base import Model, Rule, has, in_words
from tunesmith.api.scalars import ShortText

Columns = Annotated[dict[ShortText, ShortText], Field(min_length=1, max_length=32)]

_SYSTEM = ("system", "system_prompt", "system_message")
_INSTRUCTION = ("instruction", "input", "output", "response", "history", *_SYSTEM)
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "chat": (
        "messages", "conversations", "conversation", "prompt", "completion", "label", *_SYSTEM, "id", "tools",
        "query", "answers", "reasoning_content",
    ),
    "instruction": (*_INSTRUCTION, "id"),
    "text": ("text", "prompt", "completion", "label", "id"),
    "user_simulation": (
        "user_hash", "user", "task", "user_profile", "context", "next_question", "history", "timestamp", "id",
    ),
    "character": ("speaker", "text", "input", "source_title", *_INSTRUCTION, "id"),
    "sampled": (
        "prompt", "response", "num_correct_for_this_sample", "sample_index", "id", "fact",
        "relevant_articles", "charge", "prison_time", "label", "finish_reason", "tools", "response_message",
    ),
}  # fmt: skip
"""The fields of a record that each format of a dataset reads, to which `columns` may map others."""
SEED_COLUMNS = (
    "question", "answer", "correction", "corrections", "rounds", "messages", "conversations", "conversation",
    *_INSTRUCTION, "id", "tools",
)  # fmt: skip
"""The same for seeds."""


DataFiles = Annotated[list[ShortText], Field(min_length=1, max_length=32)]
_CHOOSES = "(has(self.config) || has(self.split) || has(self.dataFiles))"


def _chooses(m: RecordsSource) -> bool:
    return any(has(m, name) for name in ("config", "split", "data_files"))


class RecordsSource(Model):
    """Where records are read from."""

    uri: RecordsUri | None = None
    """File or folder: s3://bucket/key or file:///path; or hf://datasets/organisation/name[@revision]."""
    config: ShortText | None = None
    """Configuration of a data set on the hub, where it has several."""
    split: ShortText | None = None
    """Split of a data set on the hub, where it has several."""
    data_files: DataFiles | None = None
    """Files of a data set on the hub, instead of a configuration and split: paths, * and ** allowed."""
    columns: Columns | None = None
    """Maps the format's field names to those in the records: {messages: conversation}.
    Dots lead into objects: {output: reply.text}."""

    shared_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"is for data sets on the hub ({HUB_DATASETS}…)",
            f"!{_CHOOSES} || (has(self.uri) && self.uri.startsWith('{HUB_DATASETS}'))",
            lambda m: not _chooses(m) or (m.uri or "").startswith(HUB_DATASETS),
            "config",
        ),
        Rule(
            "names the files that are read; leave out config and split",
            "!has(self.dataFiles) || !(has(self.config) || has(self.split))",
            lambda m: m.data_files is None or (m.config is None and m.split is None),
            "dataFiles",
        ),
    )


def column_rules() -> tuple[Rule, ...]:
    """Return a rule for each format of a dataset: `columns` names fields of that format only."""
    return tuple(_rule(known, f"{to_camel(name)} has", name) for name, known in COLUMNS.items())


def seed_column_rule() -> Rule:
    """Return the same rule for seeds."""
    return _rule(SEED_COLUMNS, "seeds have")


def _rule(known: tuple[str, ...], what: str, block: str = "") -> Rule:
    """Return the rule for when the block `block` is set, or for always."""
    listed = ", ".join(f"'{name}'" for name in known)
    unless = f"!has(self.{to_camel(block)}) || " if block else ""
    return Rule(
        f"must have fields of the format on the left; {what} {in_words(list(known))}",
        f"{unless}!has(self.columns) || self.columns.all(name, name in [{listed}])",
        lambda m: (block and not has(m, block)) or all(name in known for name in m.columns or ()),
        "columns",
    )
