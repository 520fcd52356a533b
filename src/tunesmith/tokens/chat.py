"""A model's tokenizer and chat template: prompts as inference sends them, samples with exact labels.

For each trained assistant turn the prompt is the template's own rendering with a generation prompt, and the
labels are what the rendering of the whole turn adds to it, up to and including the end-of-turn token.
Does not depend on file formats, models and training; imports transformers only when loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.tokens.calls import MADE_UP_TOOLS, CallForm, learn_calls, with_calls
from tunesmith.tokens.control import named_ends, refuse_control, refuse_forged
from tunesmith.tokens.conversation import Conversation, Document, Message, Sample
from tunesmith.tokens.encode import Encoder, RecordError, pattern_of
from tunesmith.tokens.kept import KeptTexts
from tunesmith.tokens.light_imports import auto_tokenizer
from tunesmith.tokens.plain import chunks, completion
from tunesmith.tokens.renderer import Renderer
from tunesmith.tokens.source import TokenizerSource
from tunesmith.tokens.template import TemplateShape, learn_shape
from tunesmith.tokens.thoughts import TAGS, THOUGHT_TAGS, SplitReply, Tags, begun_by, split, tags_of
from tunesmith.tokens.tools import refuse_hidden_tools, template_values
from tunesmith.tokens.truncation import LengthLimits, Truncator
from tunesmith.tokens.turns import append_sample, encode_turns, lone_sample, reply_labels, trained_turns
from tunesmith.tokens.whole import WholeCharacters

__all__ = ["ChatTokenizer", "RecordError"]
# Number of tokens that contain the tag that opens thoughts, and what is around it.
_PROMPT_END = 32
_OTHERS = 64
"""Maximum number of sets of tools and arguments whose tokenizers are cached."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


class ChatTokenizer:
    """One tokenizer with its chat template, for training, preview, chat and sampling alike."""

    def __init__(
        self, tokenizer: Any, *, today: date | None = None, source: TokenizerSource | None = None
    ) -> None:
        self.tokenizer, self.source = tokenizer, source
        self.today = today or date.today()
        self._render = Renderer(tokenizer, self.today)
        self._encoder = Encoder(tokenizer)
        self._values: dict[str, Any] = {}
        self._others: dict[tuple[str, str], ChatTokenizer] = {}

    @classmethod
    def load(
        cls, folder: Path, *, trust_remote_code: bool = False, today: date | None = None
    ) -> ChatTokenizer:
        """Load from local files only. Raises ModelError if there is no usable tokenizer in `folder`.

        A missing chat template is an error only when it is needed. `today` is the date that templates print,
        if they print one; a run that resumes tomorrow must still see the same tokens.
        """
        if not folder.is_dir():
            raise ModelError(f"There is no model folder {folder}.")
        try:
            tokenizer = auto_tokenizer().from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:  # the Rust library raises plain Exception
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            said = (lines or [type(error).__name__])[0]
            if not any((folder / name).is_file() for name in TOKENIZER_FILES):
                said = f"there is none (no {', no '.join(TOKENIZER_FILES)})"
            raise ModelError(f"The tokenizer in {folder} cannot be loaded: {said}") from error
        day = today or date.today()
        return cls(tokenizer, today=day, source=TokenizerSource(folder, trust_remote_code, day))

    @cached_property
    def vocab_size(self) -> int:
        """The largest id the tokenizer can return, plus one."""
        return int(max(self.tokenizer.get_vocab().values())) + 1

    @cached_property
    def shape(self) -> TemplateShape:
        """How the template ends replies and opens turns. Raises ModelError if labels cannot be determined."""
        return learn_shape(self._render, self._encoder)

    @cached_property
    def _kept(self) -> KeptTexts:
        return KeptTexts(self._render, self.shape)

    @cached_property
    def _prompts(self) -> KeptTexts:
        return KeptTexts(self._render)

    @property
    def eot_ids(self) -> frozenset[int]:
        """The ids that end a reply in labels."""
        return self.shape.eot_ids

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The ids at which generation stops.

        EOS, the template's end-of-turn token if one can be found, and those control tokens that the model's
        generation config names.
        """
        ids = set() if self._encoder.eos_id is None else {self._encoder.eos_id}
        with suppress(ModelError):  # a template unfit for training may still work for generation
            ids |= self.shape.eot_ids
        named = set() if self.source is None else named_ends(self.source.folder)
        return frozenset(ids | named & set(self._encoder.added.values()))

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Return the prompt text that inference sends for `messages`, with the generation prompt."""
        return self._render(messages, prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of `prompt_text`. BOS is included only if the template writes it, so never twice."""
        return self._encoder.ids(self.prompt_text(messages))

    def whole_prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids as `prompt_ids` does. Raises RecordError if the template omits part of a message.

        The same holds for the tools of a tokenizer that is `given` some.
        """
        refuse_hidden_tools(self._render, self._values, messages)
        return self._encoder.ids(self._prompts.prompt(messages))

    @cached_property
    def call_form(self) -> CallForm | None:
        """How the template writes tool calls; None if that cannot be read back, or if it writes none."""
        kept = self.given(MADE_UP_TOOLS)._kept
        return learn_calls(lambda turns: kept.texts(turns, [1])[0].reply, self._encoder.special)

    def reply_message(self, text: str, tools: str) -> Message:
        """Return a reply as a message, with its calls if it ends in some of `tools` (see `calls`)."""
        bare = pattern_of(list({*self._encoder.special} - TAGS)).sub("", text) if tools else text
        message = with_calls(bare, tools, self.call_form if tools else None)
        return message if message.calls else Message("assistant", text)

    def split_reply(self, prompt: Sequence[int], text: str) -> SplitReply:
        """Separate the thoughts from a reply to these ids, by the template's tags (see `thoughts.split`)."""
        tags = self._thought_tags
        return split(text, tags, begun=begun_by(self.decode(prompt[-_PROMPT_END:]), tags))

    @cached_property
    def _thought_tags(self) -> tuple[Tags, ...]:
        return tags_of(str(self.tokenizer.chat_template or ""))

    def asked(self, conversation: Conversation) -> tuple[Message, ...]:
        """Return the messages before the conversation's last one, a reply, as training renders them."""
        return self._opened(conversation)[:-1]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` with special tokens, without clean-up."""
        return self._encoder.decode(ids)

    def decode_whole(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without an incomplete last character, which a truncated reply may have."""
        return self._whole.text(ids, self._encoder.decode)

    @cached_property
    def _whole(self) -> WholeCharacters:
        return WholeCharacters(self.tokenizer)

    def samples(
        self,
        conversation: Conversation,
        *,
        train_on: str,
        max_length: int,
        truncate_reply: bool = False,
        truncate_prompt: bool = True,
    ) -> list[Sample]:
        """Return samples in which every trained reply is labelled exactly once, none over `max_length`.

        There is one sample if the turns' token sequences continue each other. There are several if the
        template rewrites history, if tokens merge across a turn's start, or if context had to be truncated:
        then each reply has as much of the preceding context as fits. With `merge=False` in the conversation
        there is one sample per reply. What follows the last trained reply is left out. Without
        `truncate_prompt` no context is dropped, except whole turns of a conversation with `merge=False`.
        Raises RecordError for a record that cannot be used, ModelError for a template.
        """
        limits = LengthLimits(
            max_length, truncate_reply, truncate_prompt, truncate_prompt or not conversation.merge
        )
        return self._given(conversation)._samples(conversation, train_on, limits)

    def _samples(self, conversation: Conversation, train_on: str, limits: LengthLimits) -> list[Sample]:
        messages = self._opened(conversation)
        trained = trained_turns(messages, train_on)
        for message in messages[: trained[-1] + 1]:
            for said in message.texts:
                refuse_control(said, f"a message of role {message.role}", self._chat_control)
        refuse_hidden_tools(self._render, self._values, messages[: trained[-1]])
        texts = self._kept.texts(messages, trained)
        pairs = encode_turns(self._encoder, texts, self.shape.eot)
        check = partial(refuse_hidden_tools, self._render, self._values)  # a template may show them in a turn
        cutter = Truncator(self._kept, self._encoder, messages, conversation.system, limits, check)
        samples: list[Sample] = []
        for at, text, full in zip(trained, texts, pairs, strict=True):
            fits = len(full.prompt) + len(full.reply) <= limits.max_length
            pair = full if fits else cutter.fit(at, full)
            refuse_forged(pair.reply, self._turn_ids)
            kept, learn = len(pair.reply), conversation.learn_thoughts
            labels = reply_labels(self._encoder, messages[at], text, full, kept, learn=learn)
            cut = len(full.prompt) - len(pair.prompt)
            if conversation.merge:
                append_sample(samples, pair, labels, cut)
            else:
                samples.append(lone_sample(pair, labels, cut))
        return samples

    def _given(self, conversation: Conversation) -> ChatTokenizer:
        """Return the tokenizer whose template has this conversation's tools and arguments."""
        if not (conversation.tools or conversation.arguments):
            return self
        refuse_control(conversation.tools, "a tool", self._chat_control)
        return self.given(conversation.tools, conversation.arguments)

    def given(self, tools: str, arguments: str = "") -> ChatTokenizer:
        """Return a tokenizer whose template always has these `tools` and `arguments` (as in Conversation)."""
        key = (tools, arguments)
        if key not in self._others:
            if len(self._others) >= _OTHERS:
                self._others.clear()
            values = template_values(tools, arguments, str(self.tokenizer.chat_template))
            other = ChatTokenizer(self.tokenizer, today=self.today, source=self.source)
            other._encoder = self._encoder
            if "shape" in self.__dict__:
                other.__dict__["shape"] = self.shape
            other._render, other._values = self._render.given(values), values
            self._others[key] = other
        return self._others[key]

    def ahead(
        self, contents: Iterable[Conversation | Document], train_on: str
    ) -> AbstractContextManager[None]:
        """Return a context in which the samples of these contents are made faster; they do not change."""
        found = []
        for content in contents:
            with suppress(RecordError):
                plain = isinstance(content, Conversation) and not content.tools and not content.arguments
                if isinstance(content, Conversation) and plain:
                    messages = self._opened(content)
                    found.append((messages, trained_turns(messages, train_on)))
        return self._render.ahead(found)

    def _opened(self, conversation: Conversation) -> tuple[Message, ...]:
        """Return the messages, with the conversation's opening if the template needs one."""
        messages = conversation.messages
        at = next((n for n, message in enumerate(messages) if message.role != "system"), 0)
        first = not conversation.opening or messages[at].role != "assistant"
        if first or (at and self._may_begin):
            return messages
        return (*messages[:at], Message("user", conversation.opening), *messages[at:])

    @cached_property
    def _may_begin(self) -> bool:
        """Whether the template lets the assistant speak first, after a system message."""
        with suppress(RecordError):
            self._kept.texts([Message("system", "x"), Message("assistant", "x")], [1])
            return True
        return False

    def document_samples(
        self,
        document: Document,
        *,
        max_length: int,
        truncate_reply: bool = False,
        truncate_prompt: bool = True,
    ) -> Iterator[Sample]:
        """Return a text in chunks of at most `max_length`; each token, and EOS at the end, is a label once.

        A text after a prompt is one sample, truncated as in `samples`.
        """
        if not document.text.strip():
            raise RecordError("the text is empty")
        refuse_control(document.text, "the text", self._text_control)
        if document.prompt:
            refuse_control(document.prompt, "the prompt", self._text_control)
            limits = LengthLimits(max_length, truncate_reply, truncate_prompt)
            return iter([completion(self._encoder, document, limits)])
        return chunks(self._encoder, document.text, max_length)

    @cached_property
    def _text_control(self) -> re.Pattern[str]:
        return pattern_of(list(self._encoder.special))

    @cached_property
    def _chat_control(self) -> re.Pattern[str]:
        return pattern_of(list({*self._encoder.special, *self.shape.markers}.difference(THOUGHT_TAGS)))

    @cached_property
    def _turn_ids(self) -> frozenset[int]:
        return (self.shape.role_ids | self.eot_ids) - self.shape.inner_ids
