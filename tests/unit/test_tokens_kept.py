"""What a record holds is in its samples, or the record is bad and says what was lost."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.lossy_templates import ALWAYS_THINKS, backend, chat_with, composed, streamed
from tests.fixtures.tokenizers import label_runs

from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Conversation, Message, Sample

pytestmark = pytest.mark.engine

THINK, END = "<think>", "</think>"
USER, REPLY = Message("user", "hello"), Message("assistant", "hi")
SYSTEM, TOOL = Message("system", "Answer in rhyme."), Message("tool", "13")
THOUGHT = Message("assistant", f"{THINK}\nThe glass falls.\n{END}\n\nBy noon, yes.")


def samples_of(template: str, *messages: Message, **options) -> tuple[ChatTokenizer, list[Sample]]:
    chat = chat_with(template)
    settings = {"train_on": "allAssistant", "max_length": 10_000, **options}
    return chat, chat.samples(Conversation(messages), **settings)


def refusal(template: str, *messages: Message, **options) -> str:
    with pytest.raises(RecordError) as caught:
        samples_of(template, *messages, **options)
    return str(caught.value)


def labels(chat: ChatTokenizer, samples: list[Sample]) -> list[str]:
    return [chat.decode(s.ids[start:end]) for s in samples for start, end in label_runs(s)]


@each(
    ("template", "messages", "said"),
    [
        (streamed("drops system", "drops tool"), (SYSTEM, USER, REPLY, TOOL, REPLY),
         ("leaves out message 1 ('Answer in rhyme.'), message 4 ('13') of role system and tool",)),
        (composed("drops system"), (SYSTEM, USER, REPLY), ("'Answer in rhyme.'", "of role system")),
        (composed("drops a later system"), (SYSTEM, USER, SYSTEM, REPLY), ("message 3", "of role system")),
        (composed("keeps the last three"), (USER, REPLY, USER, REPLY, USER, REPLY),
         ("message 1 ('hello'), message 2 ('hi') of role user and assistant",)),
        (streamed("holds back"), (USER, SYSTEM, REPLY, USER, REPLY), ("message 2", "of role system")),
        (composed("drops equals"), (USER, USER, REPLY), ("message 2 ('hello') of role user",)),
        (composed("drops short"), (Message("user", "7"), USER, REPLY), ("message 1 ('7') of role user",)),
        (composed("cuts short"), (Message("user", "some question"), REPLY),
         ("cuts or changes 'question' of message 1 (role user)",)),
        (composed("cuts thoughts"), (Message("user", "q</think>x"), THOUGHT), ("The glass falls.",)),
    ],
    ids=["system-and-tool", "system", "later-system", "last-three", "late", "equal", "one-letter", "short",
         "thought"],
)  # fmt: skip
def test_a_message_that_the_template_drops_or_cuts(template, messages, said) -> None:
    reason = refusal(template, *messages)
    assert [part for part in said if part not in reason] == [], reason


def test_the_file_of_the_template_is_named(tmp_path) -> None:
    backend().chat_template = streamed("drops system")
    backend().save_pretrained(tmp_path)
    with pytest.raises(RecordError, match=str(tmp_path / "chat_template.jinja")):
        ChatTokenizer.load(tmp_path).samples(
            Conversation((SYSTEM, USER, REPLY)), train_on="allAssistant", max_length=99
        )


def test_the_found_templates_refuse_their_records() -> None:
    """What vanished without a word: roles without a branch, and thoughts."""
    no_system = (
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
        "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ m.content }}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert "of role system and tool" in refusal(no_system, SYSTEM, USER, REPLY, TOOL, REPLY)
    cut = refusal(composed("cuts thoughts"), USER, THOUGHT)
    assert f"cuts '{THINK}\\nThe glass falls.\\n{END}' from the reply in message 2" in cut


@each(
    ("template", "reply"),
    [
        (composed("cuts thoughts"), THOUGHT.content),
        (composed("cuts tags"), THOUGHT.content),
        (composed("cuts thoughts"), f"{THINK}\n\n{END}\n\nhi"),
        (composed("cuts short"), "By noon, yes."),
        (composed("cuts the end"), "By noon."),
        (composed("cuts a letter"), "7 and 8"),
        (composed("cuts at a letter"), "a z b"),
        (streamed("cuts thoughts"), THOUGHT.content),
    ],
    ids=["thought", "tags", "empty-thought", "long", "end", "letter", "at", "streamed"],
)
def test_a_reply_that_the_template_cuts(template, reply) -> None:
    assert "from the reply in message 2" in refusal(
        template, Message("user", "hey"), Message("assistant", reply)
    )


@each(
    ("template", "labelled"),
    [
        (composed(), f"{THINK}\nThe glass falls.\n{END}\n\nBy noon, yes."),
        (composed("cuts earlier thoughts"), f"{THINK}\nThe glass falls.\n{END}\n\nBy noon, yes."),
        (composed("joins words"), f"{THINK} The glass falls. {END} By noon, yes."),
        (composed("other tags"), "[T]\nThe glass falls.\n[/T]\n\nBy noon, yes."),
        (composed(prompt=ALWAYS_THINKS), f"The glass falls.\n{END}\n\nBy noon, yes."),
    ],
    ids=["whole", "earlier", "white-space", "other-tags", "opened-by-the-prompt"],
)  # fmt: skip
def test_thoughts_that_the_template_renders_its_way(template, labelled) -> None:
    chat, samples = samples_of(template, USER, THOUGHT)
    assert labels(chat, samples) == [labelled + "<|im_end|>"]


def test_an_empty_thought_in_the_prompt() -> None:
    """Models that shall not think have it from their prompt (Qwen3.5)."""
    template = composed("adds a thought", prompt=ALWAYS_THINKS.replace("<think>", "<think>\n\n</think>\n"))
    empty = Message("assistant", f"{THINK}\n\n{END}\n\nhi")
    assert (
        labels(*samples_of(template, USER, empty))
        == labels(*samples_of(template, USER, REPLY))
        == ["hi<|im_end|>"]
    )
    assert "no reply can think" in refusal(template, USER, THOUGHT)


def test_earlier_thoughts_are_learned_where_they_are_said() -> None:
    """Later prompts lack them as in inference; the turn that has them is a sample of its own."""
    chat, samples = samples_of(composed("cuts earlier thoughts"), USER, THOUGHT, USER, THOUGHT)
    assert [label.count("glass") for label in labels(chat, samples)] == [1, 1]
    assert chat.decode(samples[1].ids).count("glass") == 1
    answer = replace(THOUGHT, content=f"yes {THINK}no{END} and so on")
    assert "'yes <think>no</think>' of message 2" in refusal(
        composed("cuts earlier thoughts"), USER, answer, USER, REPLY, train_on="lastAssistant"
    )


def test_a_template_that_goes_by_the_text() -> None:
    """A result of a tool in a user message is no question (Qwen3): nothing is lost, so nothing is refused."""
    asks = "m.role == 'user' and not m.content.startswith('<result>')"
    template = (
        "{%- set ns = namespace(last=0) -%}{%- for m in messages -%}{%- if " + asks + " -%}"
        "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}{%- for m in messages -%}"
        "{{- '<|im_start|>' + m.role + '\n' -}}{%- if m.role == 'assistant' and loop.index0 > ns.last -%}"
        "{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{{- m.content + '<|im_end|>\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    )
    result = Message("user", "<result>13</result>")
    chat, samples = samples_of(template, USER, REPLY, result, REPLY)
    assert labels(chat, samples) == ["<think>\n\n</think>\n\nhi<|im_end|>"] * 2
    assert chat.decode(samples[-1].ids).count(THINK) == 2


def test_a_result_as_json_is_whole() -> None:
    """Llama 3.1 writes what tools say as a JSON string."""
    result = Message("tool", 'a "b"\nc')
    chat, samples = samples_of(composed("as JSON"), USER, REPLY, result, REPLY)
    assert r'"a \"b\"\nc"' in chat.decode(samples[0].ids)


def test_what_is_shortened_is_whole_again() -> None:
    """A shortened conversation is looked at as it is rendered then."""
    long = Message("user", "x" * 300)
    template = composed("drops the first of five")
    assert "message 1" in refusal(template, long, REPLY, USER, REPLY, USER, REPLY, train_on="lastAssistant")
    chat, samples = samples_of(composed("system into the last user turn"), SYSTEM, long, REPLY, USER, REPLY,
                               train_on="lastAssistant", max_length=150)  # fmt: skip
    assert "Answer in rhyme.\nhello" in chat.decode(samples[0].ids)


def test_a_prompt_to_be_sampled_holds_everything() -> None:
    with pytest.raises(RecordError, match="of role system"):
        chat_with(composed("drops system")).whole_prompt_ids([SYSTEM, USER])
    chat = chat_with(composed("system into the first turn"))
    assert chat.whole_prompt_ids([SYSTEM, USER]) == chat.prompt_ids([SYSTEM, USER])


def test_a_private_character_in_a_text() -> None:
    """Marks are such characters; a text may hold one."""
    said = Message("user", "a\U000f0000b\U000f0001")
    _, samples = samples_of(composed("trims"), said, said, REPLY)
    assert len(samples) == 1
    assert "message 1" in refusal(composed("cuts short"), replace(said, content="1234\U000f000034567"), REPLY)
