"""One rendering for all beginnings of a conversation, where the template never looks ahead."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each
from tests.fixtures.tokenizers import FAMILIES, load_family, unbounded

from tunesmith.tokens import renderer as module
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import RecordError
from tunesmith.tokens.renderer import AGREEMENTS
from tunesmith.tokens.template_prefixes import endings
from tunesmith.tokens.template_worker import environment

pytestmark = pytest.mark.engine
NAMES = [family.name for family in FAMILIES]
PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
END = "{% if add_generation_prompt %}<assistant>{% endif %}"
LOOP = "{% for m in messages %}"
LOOKS_BACK = {
    "plain": PLAIN + END,
    "first": LOOP + "{% if loop.first and messages[0].role != 'system' %}S{% endif %}x{% endfor %}",
    "previous": LOOP + "{% if loop.previtem %}{{ loop.previtem.role }}{% endif %}x{% endfor %}" + END,
    "counts": "{% set ns = namespace(n=0) %}" + LOOP + "{% set ns.n = ns.n + 1 %}{{ ns.n }}{% endfor %}",
    "else": PLAIN + "{% if add_generation_prompt %}<a>{% else %}<end>{% endif %}",
}
MAY_LOOK_AHEAD = {
    "last": "{% for m in messages %}{{ m.content }}{% if loop.last %}!{% endif %}{% endfor %}",
    "length": "{% for m in messages %}{{ loop.length }}{% endfor %}",
    "next": "{% for m in messages %}{{ loop.nextitem }}{% endfor %}",
    "number": "{{ messages | length }}" + PLAIN,
    "index": "{% for m in messages %}{{ messages[1].role }}{% endfor %}",
    "last-message": "{{ messages[-1].content }}" + PLAIN,
    "slice": "{% for m in messages[1:] %}x{% endfor %}",
    "another-name": "{% set all = messages %}{% for m in all %}x{% endfor %}",
    "filtered": "{% for m in messages if m.role != 'tool' %}x{% endfor %}",
    "prompt-inside": "{% for m in messages %}{% if add_generation_prompt %}x{% endif %}{% endfor %}",
    "state-after": "{% set ns = namespace(n=0) %}" + LOOP + "{% set ns.n = 1 %}{% endfor %}{{ ns.n }}",
    "two-loops": PLAIN + PLAIN,
    "macro": "{% macro f(m) %}{{ messages[-1] }}{% endmacro %}{% for m in messages %}{{ f(m) }}{% endfor %}",
    "no-loop": "{{ messages[0].content }}",
}


def found(source):
    return endings(environment(), source)


@pytest.mark.parametrize("source", LOOKS_BACK.values(), ids=LOOKS_BACK)
def test_templates_that_look_back_are_known(source):
    assert found(source) is not None


@each("source", MAY_LOOK_AHEAD.values(), ids=MAY_LOOK_AHEAD)
def test_a_template_that_may_look_ahead_is_not_believed(source):
    assert found(source) is None


def test_what_follows_the_last_message():
    assert found(LOOKS_BACK["plain"]) == ("<assistant>", "")
    assert found(LOOKS_BACK["else"]) == ("<a>", "<end>")


def renderer(name):
    """A family's renderer that has seen enough to believe the template alone."""
    render = load_family(name)._render
    for _ in range(AGREEMENTS + 1):
        render([Message("user", "a")], prompt=True)
    return render


@pytest.mark.parametrize("name", NAMES)
def test_every_beginning_is_what_transformers_renders(name):
    render, rng = renderer(name), random.Random(3)
    believed = 0
    for _ in range(60):
        turns = [
            Message("user" if n % 2 == 0 else "assistant", f" t{rng.random()}\n")
            for n in range(rng.randint(2, 9))
        ]
        whole = render.prefixes(turns)
        if whole is None:
            continue
        believed += 1
        for count in range(1, len(turns) + 1):
            for prompt in (False, True):
                told = [turn.as_dict() for turn in turns[:count]]
                with unbounded():
                    truth = render._tokenizer.apply_chat_template(
                        told, tokenize=False, add_generation_prompt=prompt
                    )
                assert whole.prefix(count, prompt=prompt) == truth
    assert believed == (60 if name in ("chatml", "llama3", "gemma", "deepseek") else 0)


@given(st.lists(st.sampled_from(["user", "assistant", "system", "tool"]), min_size=1, max_size=6), st.text())
def test_any_roles_and_contents(roles, content):
    render = renderer("chatml")
    turns = [Message(role, content) for role in roles]
    whole = render.prefixes(turns)
    for count in range(1, len(turns) + 1):
        assert whole.prefix(count, prompt=True) == render(turns[:count], prompt=True)


def test_a_refusal_is_the_templates_own():
    with pytest.raises(RecordError, match="rejects this conversation"):
        renderer("gemma").prefixes([Message("user", "a"), Message("user", "b")])


def test_a_rendering_that_differs_is_found_and_no_more_believed(monkeypatch):
    render = renderer("chatml")
    monkeypatch.setattr(render._compiled, "endings", ("wrong", ""))
    monkeypatch.setattr(module, "NOW_AND_THEN", 1)
    monkeypatch.setattr(render._compiled, "asked", 0)
    monkeypatch.setattr(module, "NOW_AND_THEN", 2)
    assert render.prefixes([Message("user", "a"), Message("assistant", "b")]) is None
    assert render._compiled.endings is None
