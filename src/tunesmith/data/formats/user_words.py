"""The text around the parts of a simulated user's prompt, in the language of the user's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.data.formats.language import Language


@dataclass(frozen=True, slots=True)
class SectionWords:
    """Section marks, the speakers of a dialogue with their colon, and the instruction of `detailed`."""

    instruction: tuple[str, ...]
    profile: str
    personality: str
    task: str
    history: str
    dialogue: str
    mine: str
    other: str


WORDS: Mapping[Language, SectionWords] = {
    "en": SectionWords(
        (
            "You are the person described below, not an assistant.",
            "Say what this person says next: one turn, in their own language, tone and length, and nothing"
            " else.",
        ),
        "[Profile]",
        "[Personality]",
        "[Task]",
        "[History]",
        "[Dialogue]",
        "You: ",
        "Other: ",
    ),
    "zh": SectionWords(
        (
            "你就是下面描述的这个人，而不是助手。",
            "请说出这个人接下来会说的话：只说一轮，语言、语气和长短都要像本人，除此之外什么都不要写。",
        ),
        "【个人资料】",
        "【性格】",
        "【任务】",
        "【以往发言】",
        "【对话】",
        "你：",
        "对方：",
    ),
    "ja": SectionWords(
        (
            "あなたは以下に説明されている人物本人であり、アシスタントではありません。",
            "この人物が次に言うことを、本人らしい言葉づかい、口調、長さで一回分だけ書き、それ以外は何も書かないでください。",
        ),
        "【プロフィール】",
        "【性格】",
        "【タスク】",
        "【過去の発言】",
        "【会話】",
        "あなた：",
        "相手：",
    ),
}
