"""What the bounded process renders is what transformers renders, one by one and in batches."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each
from tests.fixtures.lossy_templates import LETTERS, chat_with, templates
from tests.fixtures.tokenizers import BY_NAME, FAMILIES, template_of, unbounded, with_template

from tunesmith.data.parallel_encoder import EncodingSettings, encode_all
from tunesmith.errors import ModelError
from tunesmith.processes import Process
from tunesmith.tokens import bounded
from tunesmith.tokens.bounded import BoundedTemplate
from tunesmith.tokens.conversation import Conversation, Message
from tunesmith.tokens.template_worker import environment

pytestmark = pytest.mark.engine
ASKED = [Message("user", "hello")]

# --- As transformers renders ------------------------------------------------------------------------------


def test_the_environment_is_that_of_transformers():
    """Seen with transformers 5.19: what it gives to templates, and how they are read."""
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    theirs, ours = _cached_compile_jinja_template("").environment, environment()
    for names in ("filters", "tests", "globals", "policies"):
        assert getattr(ours, names).keys() == getattr(theirs, names).keys(), names
    for name in (
        "trim_blocks",
        "lstrip_blocks",
        "keep_trailing_newline",
        "autoescape",
        "undefined",
        "sandboxed",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert type(ours) is type(theirs)
    tags = [
        {tag for extension in one.extensions.values() for tag in extension.tags} for one in (ours, theirs)
    ]
    assert tags[0] == tags[1]


PIECES = [
    *(
        "{{ m.content }}",
        "{{- m['role'] -}}",
        " {{ loop.index0 }} ",
        "{{ m | tojson }}",
        "{{ m | tojson(indent=2) }}",
    ),
    *(
        "{% if loop.last %}{% break %}{% endif %}",
        "{% if m.content %}{% continue %}{% endif %}",
        "\n",
        "  \n",
    ),
    *(
        "{% generation %}{{ m.content }}{% set x = 1 %}{% endgeneration %}",
        "{{ x }}",
        "{% set ns.x = ns.x ~ m.role %}",
    ),
    *(
        "{{ m.content | trim | upper }}",
        "{{ m.content.split('a')[-1] }}",
        "{{ m.missing.more }}",
        "{{ bos_token }}",
    ),
    *(
        "{{ raise_exception('no ' ~ m.role) }}",
        "{{ strftime_now('%d %B %Y') }}",
        "{{ '%s' | format(m.content) }}",
    ),
    *(
        "{{ f(m) }}",
        "{{ [m.role, m.content] }}",
        "{{ 1 // 0 }}",
        "{{ messages[0] }}",
        "{{ tools }}{{ ns.x }}",
    ),
]
FRAME = (
    "{% macro f(m) %}<{{ m.role }}>{% endmacro %}{% set ns = namespace(x='') %}"
    "{% for m in messages %}%s{% endfor %}{{ ns.x }}{% if add_generation_prompt %}go{% endif %}"
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TALKS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "a\nb"]), "content": TEXTS}),
    max_size=4,
)


def rendered(render):
    """The text, or the refusal, with its class where Jinja has none for it."""
    from jinja2.exceptions import TemplateError

    try:
        return render()
    except (TemplateError, TypeError) as error:
        return f"refused: {error}"
    except ZeroDivisionError as error:
        return f"refused: ZeroDivisionError: {error}"


@given(st.lists(st.sampled_from(PIECES), max_size=6), TALKS, st.booleans())
def test_every_template_renders_as_in_transformers(pieces, turns, prompt):
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    source = FRAME.replace("%s", "".join(pieces))
    values = {"messages": turns, "add_generation_prompt": prompt, "bos_token": "<s>", "tools": None}
    ours = rendered(lambda: BoundedTemplate(source).render(**values))
    assert ours == rendered(lambda: _cached_compile_jinja_template(source).render(**values))


@given(st.sampled_from(FAMILIES), TALKS.filter(bool), st.booleans())
@settings(max_examples=200)
def test_every_family_renders_as_in_transformers(family, turns, prompt):
    tokenizer = with_template("chatml", template_of(family)).tokenizer
    bounded.bound_transformers()

    def text():
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)

    ours = rendered(text)
    with unbounded():
        assert ours == rendered(text)


# --- Many at once -----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """The requests to the process."""
    found, ask = [], Process.ask
    monkeypatch.setattr(Process, "ask", lambda self, *request: found.append(request) or ask(self, *request))
    return found


@each("family", [family.name for family in FAMILIES if not family.metaspace])
def test_a_batch_needs_one_request_and_its_samples_are_the_same(family, asked):
    chat = with_template(family, template_of(BY_NAME[family]))
    talks = [
        Conversation(tuple(Message(role, f"{role} {n}") for n in range(k) for role in ("user", "assistant")))
        for k in (1, 2, 3, 2, 1, 3)
    ]
    alone = [one for talk in talks * 3 for one in encode_all(chat, EncodingSettings(500), [talk])]
    asked.clear()
    assert encode_all(chat, EncodingSettings(500), talks * 3) == alone
    assert len(asked) == 1


def test_a_batch_says_of_each_what_it_would_say_alone():
    chat = with_template("gemma", template_of(BY_NAME["gemma"]))
    good = Conversation((*ASKED, Message("assistant", "a")))
    bad = Conversation((*ASKED, *ASKED, Message("assistant", "a")))
    for _ in range(3):
        first, second, third = encode_all(chat, EncodingSettings(500), [good, bad, good])
    assert first == third
    assert "turns must go user, assistant" in second


ROLES = st.sampled_from(["system", "user", "assistant", "assistant", "tool"])
CONVERSATIONS = st.lists(
    st.builds(Message, ROLES, st.text(LETTERS + " <", max_size=5)), min_size=1, max_size=6
)


@given(templates(), st.lists(CONVERSATIONS, min_size=1, max_size=4))
@settings(max_examples=200)
def test_whatever_the_template_a_batch_says_of_each_what_it_would_say_alone(template, conversations):
    chat, talks = chat_with(template), [Conversation(tuple(messages)) for messages in conversations]
    with suppress(ModelError):
        assert chat.shape  # else the template is unfit for all
        alone = [one for talk in talks for one in encode_all(chat, EncodingSettings(60), [talk])]
        assert encode_all(chat, EncodingSettings(60), talks) == alone


def test_what_was_rendered_ahead_is_forgotten():
    chat = with_template("chatml", template_of(BY_NAME["chatml"]))
    for _ in range(20):
        encode_all(chat, EncodingSettings(500), [Conversation((*ASKED, Message("assistant", "a")))])
    assert chat._render._ready == {}
