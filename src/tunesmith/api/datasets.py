"""Datasets, prompts and validation: where records come from, and which of them are used."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.api.addresses import RecordsUri
from tunesmith.api.base import Model, Rule, has, one_of
from tunesmith.api.common import FromJob
from tunesmith.api.data_formats import (
    CharacterFormat,
    ChatFormat,
    InstructionFormat,
    LegalJudgementFormat,
    SampledFormat,
    TextFormat,
    UserSimulationFormat,
)
from tunesmith.api.records import RecordsSource, column_rules
from tunesmith.api.scalars import Encoding, NotNegative, Positive, RandomSeed, Text


class SubsetSpec(Model):
    """A seeded subset of the records."""

    ratio: Annotated[float, Field(gt=0, le=1)]
    """Share of the records that is kept."""
    seed: RandomSeed = 42
    """Seed of the choice."""


# Blocks of which exactly one sets how a dataset is read.
DATASET_FORMATS = ("chat", "instruction", "text", "user_simulation", "character", "sampled")
FORMAT_COUNT = one_of(*DATASET_FORMATS).cel.removesuffix(" == 1")
# The format that a job's output can be read as.
UPSTREAM_FORMATS = {"RejectionSampleJob": "sampled", "DialogueGenJob": "chat"}


def _from_job_formats(model: Any) -> bool:
    if model.from_job is None or not any(has(model, name) for name in DATASET_FORMATS):
        return True
    fmt = UPSTREAM_FORMATS.get(model.from_job.kind)
    return fmt is not None and has(model, fmt)


class DatasetSpec(RecordsSource):
    """One training dataset."""

    from_job: FromJob | None = None
    """Output of a RejectionSampleJob (as sampled) or a DialogueGenJob (as chat)."""
    chat: ChatFormat | None = None
    """Conversations: OpenAI messages, ShareGPT, pairs, or OASST trees."""
    instruction: InstructionFormat | None = None
    """Alpaca records."""
    text: TextFormat | None = None
    """Plain text."""
    user_simulation: UserSimulationFormat | None = None
    """Users with profile, history and dialogues."""
    character: CharacterFormat | None = None
    """A character's settings and dialogue."""
    sampled: SampledFormat | None = None
    """Replies kept by a RejectionSampleJob."""
    repeat: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often the dataset is seen in an epoch; may be a fraction."""
    subset: SubsetSpec | None = None
    """A seeded subset of the records."""
    encoding: Encoding = "utf-8"
    """Encoding of text files that are not UTF-8; gb18030 also reads GBK and GB2312."""
    limit: Positive | None = None
    """Records read at most."""
    system_prompt: Text | None = None
    """System message of conversations that have none."""
    max_bad_records: NotNegative = 0
    """Bad records tolerated before the job fails."""

    rules: ClassVar[tuple[Rule, ...]] = (
        one_of("uri", "from_job"),
        one_of(*DATASET_FORMATS),
        *column_rules(),
        *RecordsSource.shared_rules,
        Rule(
            "a RejectionSampleJob produces sampled data and a DialogueGenJob chat; "
            "set that format, or reference a job of that kind",
            f"!has(self.fromJob) || {FORMAT_COUNT} == 0 || "
            "(self.fromJob.kind == 'RejectionSampleJob' && has(self.sampled)) || "
            "(self.fromJob.kind == 'DialogueGenJob' && has(self.chat))",
            _from_job_formats,
            "fromJob.kind",
        ),
    )

    @property
    def format(self) -> str:
        """Return the name of the format block that is set, in snake case."""
        return next(name for name in DATASET_FORMATS if has(self, name))


class ValidationSpec(RecordsSource):
    """What the model is validated on while it trains."""

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the data to hold out."""
    uri: RecordsUri | None = None
    """A separate file or folder, or data set on the hub, instead of a share."""
    chat: ChatFormat | None = None
    """Format of uri: conversations."""
    instruction: InstructionFormat | None = None
    """Format of uri: Alpaca records."""
    text: TextFormat | None = None
    """Format of uri: plain text."""
    user_simulation: UserSimulationFormat | None = None
    """Format of uri: users with profile, history and dialogues."""
    character: CharacterFormat | None = None
    """Format of uri: a character's settings and dialogue."""
    sampled: SampledFormat | None = None
    """Format of uri: replies kept by a RejectionSampleJob."""
    by: Literal["user", "sample"] | None = None
    """Unit of the hold-out: users (default if records have users) or samples."""
    seed: RandomSeed = 42
    """Seed of the choice."""
    encoding: Encoding = "utf-8"
    """Encoding of text files that are not UTF-8; gb18030 also reads GBK and GB2312."""
    limit: Positive | None = None
    """Records read at most."""
    system_prompt: Text | None = None
    """System message of conversations that have none."""
    max_bad_records: NotNegative = 0
    """Bad records tolerated before the job fails."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "cannot be set together with uri; use one of the two",
            "!(has(self.uri) && self.ratio > 0.0)",
            lambda m: m.uri is None or m.ratio == 0,
            "ratio",
        ),
        Rule(
            "set exactly one format with uri (chat, instruction, text, …), and none without it",
            f"{FORMAT_COUNT} == (has(self.uri) ? 1 : 0)",
            lambda m: sum(has(m, name) for name in DATASET_FORMATS) == (m.uri is not None),
        ),
        Rule(
            "is for the records of uri; leave it out without uri",
            "!has(self.columns) || has(self.uri)",
            lambda m: m.columns is None or m.uri is not None,
            "columns",
        ),
        *column_rules(),
        *RecordsSource.shared_rules,
    )

    @property
    def active(self) -> bool:
        """Return whether there is a validation set."""
        return self.uri is not None or self.ratio > 0

    @property
    def format(self) -> str:
        """Return the name of the format block that is set, in snake case; only with `uri`."""
        return next(name for name in DATASET_FORMATS if has(self, name))


PROMPT_FORMATS = ("legal_judgement", "chat", "instruction")


class PromptsSpec(RecordsSource):
    """Prompts to sample replies for."""

    uri: RecordsUri | None = None
    """File, folder, or data set on the hub: s3://bucket/key, file:///path or hf://datasets/org/name.
    In a folder of sets, each set is a subfolder with a label.json."""
    from_job: FromJob | None = None
    """Output of a DialogueGenJob, as chat."""
    legal_judgement: LegalJudgementFormat | None = None
    """Cases with facts and articles."""
    chat: ChatFormat | None = None
    """Conversations; the last reply, if any, is the reference."""
    instruction: InstructionFormat | None = None
    """Alpaca records; output is the reference."""
    encoding: Encoding = "utf-8"
    """Encoding of text files that are not UTF-8; gb18030 also reads GBK and GB2312."""
    limit: Positive | None = None
    """Records read at most; of a folder of sets, per set."""
    system_prompt: Text | None = None
    """System message of prompts that have none."""
    max_bad_records: NotNegative = 0
    """Bad records tolerated before the job fails."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *RecordsSource.shared_rules,
        one_of("uri", "from_job"),
        one_of(*PROMPT_FORMATS),
        Rule(
            "only a DialogueGenJob produces prompts, and its format is chat",
            "!has(self.fromJob) || !(has(self.chat) || has(self.legalJudgement) || has(self.instruction))"
            " || (self.fromJob.kind == 'DialogueGenJob' && has(self.chat))",
            lambda m: (
                m.from_job is None
                or not any(has(m, name) for name in PROMPT_FORMATS)
                or (m.from_job.kind == "DialogueGenJob" and m.chat is not None)
            ),
            "fromJob.kind",
        ),
    )
