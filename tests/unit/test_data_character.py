import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.api.data_formats import CharacterFormat
from tunesmith.data.formats.character import BACKGROUND_KEYS, conversation_from_character
from tunesmith.data.record import RecordProblem, RecordSkipped
from tunesmith.tokens.conversation import Message

NAME = "芙宁娜"
CHINESE = CharacterFormat(name=NAME)
ENGLISH = CharacterFormat(name="Ada")
OWN = CharacterFormat(
    name=NAME, background_instruction="B", settings_instruction="S", imitation_instruction="I"
)


def line(text="好。", speaker=NAME, **fields):
    return {"speaker": speaker, "text": text, **fields}


def question(record, spec=CHINESE):
    asked, reply = conversation_from_character(record, spec).messages
    assert (asked.role, reply) == ("user", Message("assistant", record["text"]))
    return asked.content


KINDS = {
    **{f"background-{key}": (line(input=key), f"B\n{key}") for key in BACKGROUND_KEYS},
    "background-padded": (line(input=" 神之眼\n"), "B\n神之眼"),
    "settings": (line(input="关于雷电将军"), "S\n关于雷电将军"),
    "settings-almost-a-key": (line(input="角色故事6"), "S\n角色故事6"),
    "settings-with-title": (line(input="初次见面", source_title="第一幕"), "S\n初次见面"),
    "imitation-absent": (line(), "I"),
    "imitation-null": (line(input=None, source_title=None), "I"),
    "imitation-blank": (line(input="  "), "I"),
    "imitation-scene": (line(source_title=" 第一幕 "), "I\n场景：第一幕"),
    "speaker-padded": (line(speaker=f" {NAME} "), "I"),
}


@each(("record", "expected"), KINDS.values(), ids=KINDS)
def test_the_kind_of_a_record_is_told_by_its_input(record, expected):
    assert question(record, OWN) == expected


def test_the_default_keys_are_those_of_the_format():
    assert len(BACKGROUND_KEYS) == 9
    assert {"更多描述", "角色故事1", "角色故事5"} < set(BACKGROUND_KEYS)


@pytest.mark.parametrize("topic", ["神之眼", "关于你", ""], ids=["background", "settings", "imitation"])
@pytest.mark.parametrize(("spec", "marks"), [(CHINESE, "请"), (ENGLISH, "Ada")], ids=["chinese", "english"])
def test_the_default_instructions_name_the_character_in_its_language(spec, marks, topic):
    asked = question(line(speaker=spec.name, input=topic), spec)
    assert spec.name in asked
    assert marks in asked
    assert asked.endswith(topic)
    assert "{" not in asked


def test_the_three_default_instructions_differ():
    for spec in (CHINESE, ENGLISH):
        asked = {
            question(line(speaker=spec.name, input=topic), spec).split("\n")[0]
            for topic in ("神之眼", "a", "")
        }
        assert len(asked) == 3


def test_an_english_scene():
    assert question(line(speaker="Ada", source_title="Act 1"), ENGLISH).endswith("\nScene: Act 1")


def test_background_keys_replace_the_default():
    spec = OWN.model_copy(update={"background_keys": ["Story"]})
    assert question(line(input="Story"), spec) == "B\nStory"
    assert question(line(input="神之眼"), spec) == "S\n神之眼"
    assert question(line(input="Story"), OWN.model_copy(update={"background_keys": []})) == "S\nStory"


def test_an_empty_instruction_leaves_the_input():
    assert question(line(input="关于你"), CharacterFormat(name=NAME, settings_instruction="")) == "关于你"


@pytest.mark.parametrize(
    ("speakers", "speaker", "used"),
    [
        (None, NAME, True),
        (None, "旅行者", False),
        (None, "", False),
        (["芙卡洛斯"], "芙卡洛斯", True),
        ([" 芙卡洛斯 "], "芙卡洛斯 ", True),
        (["芙卡洛斯"], NAME, True),
        (["芙卡洛斯"], "旅行者", False),
        (["any"], "旅行者", True),
        (["any"], None, True),
    ],
)
def test_whose_lines_are_used(speakers, speaker, used):
    spec = CharacterFormat(name=NAME, speakers=speakers)
    if used:
        assert question(line(speaker=speaker), spec)
    else:
        with pytest.raises(RecordSkipped) as skipped:
            conversation_from_character(line(speaker=speaker), spec)
        assert skipped.value.reason == "another speaker"


def test_a_character_named_any_speaks_alone():
    with pytest.raises(RecordSkipped):
        conversation_from_character(line(speaker="Ada"), CharacterFormat(name="any"))


def test_another_speakers_empty_line_is_skipped_not_bad():
    with pytest.raises(RecordSkipped):
        conversation_from_character(line(text="", speaker="旅行者"), CHINESE)


def test_converted_records_are_alpaca():
    record = {"instruction": "说一句", "input": "神之眼", "output": "好。"}
    messages = conversation_from_character(record, CHINESE, system_prompt="S").messages
    assert [message.content for message in messages] == ["S", "说一句\n神之眼", "好。"]
    with pytest.raises(RecordSkipped):
        conversation_from_character({**record, "speaker": "旅行者"}, CHINESE)


def test_the_system_prompt_comes_first():
    messages = conversation_from_character(line(), CHINESE, system_prompt="S").messages
    assert messages[0] == Message("system", "S")


def test_a_table_row_with_every_column():
    row = {"instruction": None, "output": None, "input": None, "source_title": None, **line()}
    assert question(row, OWN) == "I"


BAD = {
    "empty": (line(text=" "), "text is empty"),
    "no-text": ({"speaker": NAME}, "text is missing: the record has speaker"),
    "no-speaker": ({"text": "好。"}, "speaker is missing: the record has text"),
    "number-text": (line(text=1), "text is a number, not text"),
    "number-text-of-another": (line(text=1, speaker="旅行者"), "text is a number, not text"),
    "list-input": (line(input=[]), "input is a list, not text"),
    "list-title": (line(source_title=[]), "source_title is a list, not text"),
    "list-speaker": (line(speaker=[NAME]), "speaker is a list, not text"),
    "chat": ({"messages": []}, "this is a chat record; use the format chat: {}"),
    "alpaca-empty": ({"instruction": "a", "output": ""}, "output is empty"),
    "nothing": ({}, "text is missing: the record is empty"),
}


@pytest.mark.parametrize(("record", "reason"), BAD.values(), ids=BAD)
def test_a_bad_record_names_the_field(record, reason):
    with pytest.raises(RecordProblem) as problem:
        conversation_from_character(record, CHINESE)
    assert problem.value.message == reason


def test_nothing_to_answer():
    with pytest.raises(RecordProblem, match="imitationInstruction is empty"):
        conversation_from_character(line(), CharacterFormat(name=NAME, imitation_instruction=" "))


VALUES = st.none() | st.text(max_size=5) | st.integers() | st.lists(st.text(max_size=2), max_size=2)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("speaker", "text", "input", "source_title", "instruction", "output"), VALUES | st.just(NAME)
        ),
    )
)
def test_any_record_is_used_skipped_or_bad(record):
    try:
        messages = conversation_from_character(record, CHINESE).messages
    except (RecordSkipped, RecordProblem):
        return
    assert all(message.content.strip() for message in messages)
