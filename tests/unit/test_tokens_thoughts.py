"""Thoughts are cut from replies, whatever a family's tags are."""

from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.tokens.thoughts import KNOWN, THINK, SplitReply, Tags, begun_by, split, tags_in, tags_of

SEED = Tags("<seed:think>", "</seed:think>")


@each(
    ("text", "expected"),
    [
        ("Blue.", SplitReply("Blue.")),
        ("<think>\nLet me see.\n</think>\n\nBlue.", SplitReply("Blue.", "Let me see.")),
        ("Let me see.\n</think>\n\nBlue.", SplitReply("Blue.", "Let me see.")),
        ("<think></think>Blue.", SplitReply("Blue.")),
        ("<think>\nLet me s", SplitReply("", "Let me s", unended=True)),
        ("Blue. <think>Or not", SplitReply("", "Or not", unended=True)),
        ("Well. <think>Hm.</think> Blue. <think>Sure?</think>", SplitReply("Well.  Blue.", "Hm.\n\nSure?")),
        ("<think>It ends with </think> so</think>Blue.", SplitReply("Blue.", "It ends with\n\nso")),
        ("<think>Hm.</think>The tags are `<think>` and `</think>`.",
         SplitReply("The tags are `<think>` and `</think>`.", "Hm.")),
        ("[THINK]Hm.[/THINK]Blue.", SplitReply("Blue.", "Hm.")),
        ("<seed:think>Hm.</seed:think>Blue.", SplitReply("Blue.", "Hm.")),
        ("◁think▷Hm.◁/think▷Blue.", SplitReply("Blue.", "Hm.")),
        ("<reasoning>Hm.</reasoning>Blue.", SplitReply("Blue.", "Hm.")),
        ("So: <reasoning>Hm.</reasoning>Blue.", SplitReply("So: <reasoning>Hm.</reasoning>Blue.")),
        ("Hm.</reasoning>Blue.", SplitReply("Blue.", "Hm.")),
        ("Here is my thought process: Hm. Here is my response: Blue.", SplitReply("Blue.", "Hm.")),
        ("Well. Here is my response: Blue.", SplitReply("Well. Here is my response: Blue.")),
        ("<|inner_prefix|>Hm.<|inner_suffix|>Blue.", SplitReply("Blue.", "Hm.")),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Blue.",
         SplitReply("Blue.", "Hm.")),
    ],
)  # fmt: skip
def test_what_is_answer_and_what_is_thought(text, expected):
    assert split(text) == expected


@each(
    ("text", "expected"),
    [
        ("Let me s", SplitReply("", "Let me s", unended=True)),
        ("Let me see.</seed:think>Blue.", SplitReply("Blue.", "Let me see.")),
        ("<seed:think>Let me see.</seed:think>Blue.", SplitReply("Blue.", "<seed:think>Let me see.")),
    ],
)
def test_thoughts_that_the_prompt_has_opened(text, expected):
    assert split(text, begun=SEED) == expected


@each(
    ("template", "text", "answer"),
    [
        ("{{ '<deep_thought>' }}{{ '</deep_thought>' }}", "<deep_thought>Hm.</deep_thought>Blue.", "Blue."),
        ("{{ '[REASONING]' }}{{ '[/REASONING]' }}", "[REASONING]Hm.[/REASONING]Blue.", "Blue."),
        # Between tags that a family has, thoughts may end without a beginning.
        ("{% if '</thinking>' in content %}", "Hm.</thinking>Blue.", "Blue."),
        # Harmony's channels, as an engine decodes them without special tokens.
        ("<|start|>assistant<|channel|>analysis<|message|>", "analysisHm.assistantfinalBlue.", "Blue."),
        ("nothing", "analysisHm.assistantfinalBlue.", "analysisHm.assistantfinalBlue."),
    ],
)
def test_tags_that_a_template_tells(template, text, answer):
    assert split(text, tags_of(template)).answer == answer


@each(
    ("text", "answer"),
    [
        ("<THINK>Hm.</THINK>Blue.", "Blue."),
        ("<antThinking>Hm.</antThinking>Blue.", "Blue."),
        ("<ant:inner_thoughts>Hm.</ant:inner_thoughts>Blue.", "Blue."),
        ("[Thoughts]Hm.[/Thoughts]Blue.", "Blue."),
        ("Hm.</deep_think>Blue.", "Blue."),
        ("<deep_think>Hm.", ""),
        ("So: <deep_think>Hm.</deep_think>Blue.", "So: <deep_think>Hm.</deep_think>Blue."),
        ("<b>Blue.</b>", "<b>Blue.</b>"),
        ("I think [so](think.html) <i>thus</i>.", "I think [so](think.html) <i>thus</i>."),
    ],
)
def test_tags_of_families_that_nobody_has_listed(text, answer):
    assert split(text, tags_in(text)).answer == answer


def test_a_reply_full_of_tags_costs_no_more():
    text = "".join(f"</{'a' * (n % 20)}think{'b' * (n % 19)}>" for n in range(2000))
    assert len(tags_in(text)) < len(KNOWN) + 10


def test_a_prompt_says_whether_it_has_opened_thoughts():
    tags = tags_of("")
    assert begun_by("<|im_start|>assistant\n<think>\n", tags) == THINK
    assert begun_by("<|im_start|>assistant\n<think>\n\n</think>\n\n", tags) is None
    assert begun_by("<|im_start|>assistant\n", tags) is None


@given(st.text().filter(lambda text: not any(t in text for tag in KNOWN for t in (tag.begin, tag.end))))
def test_a_text_without_tags_is_an_answer(text):
    assert split(text) == SplitReply(text.strip())


@given(st.lists(st.sampled_from(["a", " ", "\n", THINK.begin, THINK.end])))
def test_no_tag_stays_in_an_answer(parts):
    found = split("".join(parts))
    assert THINK.begin not in found.answer
    assert THINK.end not in found.answer
    assert found.unended == (THINK.begin in "".join(parts).rpartition(THINK.end)[2])
