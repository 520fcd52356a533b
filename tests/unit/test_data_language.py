"""Prompts around a text are in its language: which one that is, and what user simulation writes in it."""

from dataclasses import asdict

from tunesmith.api.data_formats import CharacterFormat, UserSimulationFormat
from tunesmith.data.formats.character import conversation_from_character, instructions
from tunesmith.data.formats.language import language_of
from tunesmith.data.formats.user_simulation import user_items
from tunesmith.data.formats.user_words import WORDS
from tunesmith.data.formats.users import dialogues_of
from tunesmith.data.record import SourceLocation

TEXTS = {
    "Who wrote this book?": "en",
    "这本书是谁写的？": "zh",
    "這本書是誰寫的？": "zh",
    "请解释 TensorFlow 的 GradientTape 用法": "zh",
    "我在「鲜の每日」买了三斤苹果，老板人很好，下次还去": "zh",
    "他喜欢韩剧，会说안녕하세요，也会做泡菜": "zh",
    "この本は誰が書きましたか": "ja",
    "東京都庁展望台への行き方": "ja",
    "東京都渋谷区在住の会社員": "ja",
    "カラオケ": "ja",
    "ｶﾗｵｹ 10 分": "ja",
    "PythonのGILを説明してください": "ja",
    "What does 你好 mean in English?": "en",
    "What does ありがとう mean, and when do people say it in daily life here?": "en",
    "이 책은 누가 썼어요? 冊": "en",
    "Кто написал эту книгу?": "en",
    "42 🙂": "en",
}
SAID = {
    "en": ("Tea?", "Always."),
    "zh": ("要喝茶吗？", "一直都要。"),
    "ja": ("お茶はいかがですか。", "いつでも。"),
}
MARKS = {
    each: [value for value in asdict(words).values() if isinstance(value, str)]
    for each, words in WORDS.items()
}


def record(asked, said, *, profile=None, task="Chat.", context=True, user="u1"):
    items = [{"context": [{"source": "other", "content": asked}] if context else [], "continuation": said}]
    return {
        "user_hash": user,
        "user": {"profile": profile or {"name": "X"}, "personality": {"unstructured": "calm"}},
        "task": {"description": task, "task_behavior_collections": [{"type": "chat", "data": items}]},
    }


def prompt(value, style="flat", others=()):
    """The system message of a record's first sample, after those of `others`."""
    fmt = UserSimulationFormat(prompt_style=style, ablation_config="profile_and_history_and_context")
    dialogues = [d for each in (*others, value) for d in dialogues_of(SourceLocation("f", "1"), each)]
    items = list(user_items("u1", dialogues, fmt, by=None, validates=lambda key: False))
    return items[-1].content.messages[0].content


def test_the_language_of_a_text():
    among = ("en", "zh", "ja")
    assert {text: language_of(text, among=among) for text in TEXTS} == TEXTS
    japanese = [text for text, language in TEXTS.items() if language == "ja"]
    assert {language_of(text) for text in japanese} == {"en"}, (
        "where there are only English and Chinese prompts"
    )


def test_every_style_is_in_the_language_of_the_record():
    wrong = []
    for language, (asked, said) in SAID.items():
        words = WORDS[language]
        shown = {
            "simple": [words.profile, words.task],
            "detailed": [*words.instruction, words.profile, words.personality, words.task],
            "flat": [words.profile, words.task, words.dialogue, words.other + asked],
        }
        for style, expected in shown.items():
            text = prompt(record(asked, said), style)
            wrong += [(language, style, mark) for mark in expected if mark not in text]
            others = [
                mark
                for each in WORDS
                if each != language
                for mark in MARKS[each]
                if mark not in MARKS[language]
            ]
            wrong += [(language, style, mark) for mark in others if mark in text]
        past = prompt(record(asked, said), "flat", [record(asked + "2", said + "2")])
        wrong += [(language, "history")] if f"{words.history}\n{said}2" not in past else []
    assert wrong == []


def test_what_decides_the_language_of_a_record():
    zh, en = SAID["zh"], SAID["en"]
    cases = {
        "field names do not count": (record(*zh, profile={"name": "小满", "gender": "女", "age": 3}), "zh"),
        "a short word beside a profile": (record("OK", "好", profile={"about": "住在杭州，喜欢喝茶"}), "zh"),
        "an English task": (record(*zh, task="Chat with a friend about the weather, please."), "zh"),
        "a Chinese name": (record(*en, profile={"name": "小满"}), "en"),
        "only a task": (record("", "好", profile={"age": 3}, task="写一条影评。", context=False), "en"),
        "nothing but the reply": (
            {"user_hash": "u1", "context": [], "next_question": "今天去哪里？", "user_profile": {}},
            "zh",
        ),
        "a sample": (
            {
                "user_hash": "u1",
                "context": [{"role": "user", "content": "お元気ですか"}],
                "next_question": "はい",
            },
            "ja",
        ),
    }
    wrong = [
        name
        for name, (value, language) in cases.items()
        if dialogues_of(SourceLocation("f", "1"), value)[0].persona.language != language
    ]
    assert wrong == []


def test_other_records_change_no_language():
    for language, (asked, said) in SAID.items():
        value = record(asked, said)
        for other, texts in SAID.items():
            beside = prompt(value, "detailed", [record(*texts)])
            assert WORDS[language].profile in beside, (language, other)


def test_a_characters_instructions_are_in_the_language_of_the_name():
    names = {
        "Ada": "As Ada",
        "芙宁娜": "请以芙宁娜",
        "Furina 芙宁娜": "请以Furina",
        "ナヒーダ": "ナヒーダとして",
    }
    told = {name: instructions(CharacterFormat(name=name))["imitation"] for name in names}
    assert [name for name, start in names.items() if not told[name].startswith(start)] == []


def test_a_name_in_an_instruction_of_ones_own():
    cases = {
        "Speak as {name}.": "Speak as Ada.",
        "{name}, {name}!": "Ada, Ada!",
        'As {name}: {"mood": "{mood}"}': 'As Ada: {"mood": "{mood}"}',
        "Write {{name}} for {name}.": "Write {name} for Ada.",
        "{Name} { name } {}": "{Name} { name } {}",
    }
    wrong = []
    for text, expected in cases.items():
        for kind, topic in (("background", "神之眼"), ("settings", "tea"), ("imitation", "")):
            spec = CharacterFormat.model_validate({"name": " Ada ", f"{kind}Instruction": text})
            value = {"speaker": "Ada", "input": topic, "text": "Hm."}
            system, asked, _ = conversation_from_character(value, spec, system_prompt=text).messages
            if asked.content.split("\n")[0] != expected or system.content != expected:
                wrong.append((kind, text, asked.content, system.content))
    assert wrong == []
