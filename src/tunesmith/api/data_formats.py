"""The formats of datasets and prompts, each with its options."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith.api.addresses import StorageUri
from tunesmith.api.base import Model, Rule
from tunesmith.api.scalars import Positive, RandomSeed, ShortText, Text


class ChatFormat(Model):
    """Conversations: OpenAI messages, ShareGPT, pairs, or OASST trees."""

    train_on: Literal["lastAssistant", "allAssistant"] = "allAssistant"
    """Which replies are trained on."""
    thoughts: Literal["learn", "context", "drop"] = "learn"
    """Thoughts of replies: train on them, keep them as context, or drop them."""


class InstructionFormat(Model):
    """Alpaca records: instruction, input, output."""


class TextFormat(Model):
    """Plain text in which every token is a label."""

    join: Literal["file", "paragraph", "line"] = "line"
    """What counts as one document in a plain text file: the file, each paragraph, or each line."""


class HistorySpec(Model):
    """What the user said in other dialogues."""

    max_items: Annotated[int, Field(ge=0, le=1000)] = 15
    """Utterances at most; the newest are kept."""
    max_characters: Annotated[int, Field(ge=1, le=100000)] = 200
    """Characters of one utterance at most."""


class UserSimulationFormat(Model):
    """A user's next utterance from profile, history and dialogue."""

    expand: bool = False
    """Also make a sample of every earlier turn of the simulated user."""
    max_samples_per_user: Positive | None = None
    """Samples of one user at most, chosen by sampleSeed and the user alone."""
    one_sample_per_user: bool = False
    """Only the user's last item."""
    sample_seed: RandomSeed = 42
    """Seed of the choice."""
    ablation_config: Literal[
        "profile_and_history_and_context",
        "profile_and_history",
        "profile_and_context",
        "history_and_context",
        "profile_only",
        "history_only",
        "context_only",
    ] = "profile_and_context"
    """Which parts the prompt contains."""
    prompt_style: Literal["simple", "detailed", "flat"] = "simple"
    """How the prompt is written."""
    history: HistorySpec = Field(default_factory=HistorySpec)
    """How much history the prompt contains."""
    use_history: bool | None = None
    """Include history; follows ablationConfig if absent."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "cannot be set together with oneSamplePerUser",
            "!(has(self.maxSamplesPerUser) && has(self.oneSamplePerUser) && self.oneSamplePerUser)",
            lambda m: m.max_samples_per_user is None or not m.one_sample_per_user,
            "maxSamplesPerUser",
        ),
    )


class CharacterFormat(Model):
    """A character's settings and dialogue."""

    name: ShortText
    """The character's name."""
    speakers: Annotated[list[ShortText], Field(min_length=1, max_length=64)] | None = None
    """Speakers whose lines are used, or [any]; only the character's own if absent."""
    background_keys: Annotated[list[ShortText], Field(max_length=64)] | None = None
    """Values of `input` that mark a background record."""
    background_instruction: Text | None = None
    """Instruction of background records; {name} is the character's name."""
    settings_instruction: Text | None = None
    """Instruction of settings questions; {name} is the character's name."""
    imitation_instruction: Text | None = None
    """Instruction of imitation records; {name} is the character's name."""


class SampledFormat(Model):
    """Replies kept by a RejectionSampleJob; each weighs 1/n for its prompt."""

    articles_uri: StorageUri | None = None
    """File of the articles, from which a record without a prompt gets the prompt of legalJudgement."""
    changed_articles_uri: StorageUri | None = None
    """File of the changed articles, if the prompts contain both laws, as with legalJudgement."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "needs articlesUri, the unchanged articles",
            "!has(self.changedArticlesUri) || has(self.articlesUri)",
            lambda m: m.changed_articles_uri is None or m.articles_uri is not None,
            "changedArticlesUri",
        ),
    )


class LegalJudgementFormat(Model):
    """Cases with facts and articles; the reply ends with charge and prison term."""

    articles_uri: StorageUri
    """File of the articles: {id: text} or [{id, content}]."""
    changed_articles_uri: StorageUri | None = None
    """File of the changed articles: the prompt contains both laws, and the case is judged by this one."""
    label: Literal["NV", "V", "TU", "TD", "XT", "NX", "original"] | None = None
    """Direction of the whole file, for direction metrics."""
