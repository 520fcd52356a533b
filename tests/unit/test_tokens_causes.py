"""What is said of a reply that cannot be learned names the cause, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.lossy_templates import ALWAYS_THINKS, composed
from tests.fixtures.tokenizers import BY_NAME, build_backend, label_runs, load_family, with_template

from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Conversation, Message

pytestmark = pytest.mark.engine

USER, REPLY = Message("user", "hello"), Message("assistant", "hi")
SYSTEM, TOOL = Message("system", "Answer in rhyme."), Message("tool", "13")
THOUGHT = Message("assistant", "<think>\nhm\n</think>\n\nhi")
ALWAYS = "Models that always think first need replies that start with '<think>'"
WIDE = ALWAYS_THINKS.replace("<think>", "<think>\n")
WHITE_SPACE = "They differ in white space only"
TWO = "This template does not separate two assistant turns in a row"


def refusal(chat: ChatTokenizer, *messages: Message) -> str:
    with pytest.raises(RecordError) as caught:
        chat.samples(Conversation(messages), train_on="allAssistant", max_length=10_000)
    return str(caught.value)


def labels(chat: ChatTokenizer, *messages: Message, **options) -> list[str]:
    samples = chat.samples(Conversation(messages, **options), train_on="allAssistant", max_length=10_000)
    return [chat.decode(s.ids[start:end]) for s in samples for start, end in label_runs(s)]


# Results of tools stand in the assistant's own turn, which goes on after them.
JOINS_TOOL = (
    "{%- for m in messages -%}{%- if m.role == 'tool' -%}{{- m.content -}}{%- else -%}"
    "{%- if loop.previtem and loop.previtem.role != 'tool' -%}{{- '<|im_end|>\n' -}}{%- endif -%}"
    "{%- if not loop.previtem or loop.previtem.role != 'tool' -%}"
    "{{- '<|im_start|>' + m.role + '\n' -}}{%- endif -%}"
    "{{- m.content -}}{%- endif -%}{%- endfor -%}"
    "{{- '<|im_end|>\n<|im_start|>assistant\n' if add_generation_prompt else '<|im_end|>' -}}"
)


# A reply without thoughts gets empty ones, in one line, where the prompt opens them with a line break.
EMPTY_THOUGHT = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}"
    "{{- '<think></think>' if m.role == 'assistant' and '</think>' not in m.content -}}"
    "{{- m.content + '<|im_end|>\n' -}}{%- endfor -%}"
    "{{- '<|im_start|>assistant\n<think>\n' if add_generation_prompt -}}"
)


@each(
    ("template", "messages", "cause"),
    [
        (composed(prompt=ALWAYS_THINKS), (USER, REPLY), ALWAYS),
        (EMPTY_THOUGHT, (USER, REPLY), ALWAYS),
        (composed("merges", prompt=ALWAYS_THINKS), (USER, THOUGHT, THOUGHT), TWO),
        (composed("merges"), (USER, REPLY, REPLY), TWO),
        (composed("adds a thought", prompt=WIDE), (USER, THOUGHT), WHITE_SPACE),
        (
            JOINS_TOOL,
            (USER, REPLY, TOOL, REPLY),
            "a reply after a message of role tool",
        ),
    ],
    ids=["always-thinks", "adds-empty-thoughts", "merges-thoughts", "merges", "white-space", "joins-a-tool"],
)
def test_a_reply_that_inference_would_not_give(template, messages, cause) -> None:
    reason = refusal(with_template("chatml", template), *messages)
    assert cause in reason
    assert [other for other in (ALWAYS, TWO) if other != cause and other in reason] == []


def test_a_system_message_in_the_last_user_turn() -> None:
    """The prompt is no prefix of what follows it, but the reply is there (Mistral 7B v0.3, Nemo)."""
    chat = load_family("mistral3")
    for messages in ((SYSTEM, USER, REPLY), (SYSTEM, USER, REPLY, USER, REPLY)):
        samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=1000)
        assert len(samples) == len(messages) // 2
        for sample, at in zip(samples, range(2, len(messages), 2), strict=True):
            assert chat.decode(sample.ids) == chat.prompt_text(messages[:at]) + " hi</s>"
            assert "Answer in rhyme." in chat.decode(sample.ids)


def test_two_assistant_turns_where_the_first_is_rendered_otherwise_later() -> None:
    """As Qwen3's: only the last reply shows that it had no thought."""
    template = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}"
        "{{- '<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last -}}"
        "{{- m.content + '<|im_end|>\n' -}}"
        "{%- endfor -%}{{- '<|im_start|>assistant\n' if add_generation_prompt -}}"
    )
    assert (
        labels(with_template("chatml", template), USER, REPLY, REPLY)
        == ["<think>\n\n</think>\n\nhi<|im_end|>"] * 2
    )


@each("special", [False, True])
def test_thoughts_where_bos_opens_turns(special) -> None:
    """A tag in the generation prompt opens a thought, not a turn."""
    line = "{%- for m in messages -%}{{- bos_token + m.role + '\n' + m.content + eos_token -}}{%- endfor -%}"
    backend = build_backend(BY_NAME["deepseek"])
    tags = ["<think>", "</think>"]
    backend.add_special_tokens({"additional_special_tokens": tags}) if special else backend.add_tokens(tags)
    backend.chat_template = line + "{{- bos_token + 'assistant\n<think>\n' if add_generation_prompt -}}"
    assert labels(ChatTokenizer(backend), USER, THOUGHT) == ["hm\n</think>\n\nhi<|end|>"]
    backend.chat_template = line + "{{- bos_token + 'assistant\n' if add_generation_prompt -}}"
    assert labels(ChatTokenizer(backend), USER, THOUGHT) == ["<think>\nhm\n</think>\n\nhi<|end|>"]


def test_a_template_whose_prompt_differs_in_white_space() -> None:
    template = composed().replace("assistant\n' -}}", "assistant\n\n' -}}")
    with pytest.raises(ModelError, match=WHITE_SPACE):
        labels(with_template("chatml", template), USER, REPLY)


GLM = (
    "{%- for m in messages -%}{{- '<|' + m.role + '|>\n' + m.content -}}{%- endfor -%}"
    "{{- '<|assistant|>' if add_generation_prompt -}}"
)
R1 = (
    "{{- bos_token -}}{%- for m in messages -%}"
    "{%- if m.role == 'user' -%}{{- 'User: ' + m.content -}}{%- else -%}"
    "{%- set said = m.content.split('</think>')[-1] -%}{{- 'Assistant: ' + said + eos_token -}}{%- endif -%}"
    "{%- endfor -%}{{- 'Assistant: <think>\n' if add_generation_prompt -}}"
)


def glm(template: str) -> ChatTokenizer:
    backend = build_backend(BY_NAME["between"])
    backend.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    backend.chat_template = template
    return ChatTokenizer(backend)


def test_a_template_without_an_end_of_turn_is_mended_as_its_message_says() -> None:
    """GLM-4 stops at the next turn's '<|user|>'."""
    with pytest.raises(ModelError, match=r"with '<\|user\|>'\. In a copy.*write {{ eos_token }} after"):
        labels(glm(GLM), USER, REPLY)
    mended = GLM.replace("m.content -", "m.content + (eos_token if m.role == 'assistant' else '') -")
    assert labels(glm(mended), USER, REPLY) == ["\nhi<|endoftext|>"]


def test_a_template_that_cuts_the_thoughts_it_opens_is_mended_as_its_message_says() -> None:
    """The DeepSeek-R1 distillations' template."""
    with pytest.raises(ModelError, match="generation prompt before '<think>'"):
        labels(with_template("deepseek", R1), USER, THOUGHT)
    mended = R1.replace("<think>\n' if", "' if").replace(".split('</think>')[-1]", "")
    assert labels(with_template("deepseek", mended), USER, THOUGHT) == ["<think>\nhm\n</think>\n\nhi<|end|>"]
