import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.data.place import RecordProblem
from tunesmith.data.seeds import Seed, seed_from

CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
ALIGNER = {"question": "Q", "answer": "A", "correction": "C"}
ALPACA = {"instruction": "Q", "output": "A"}
FULL = Seed("Q", "A", "C")

SEEDS = {
    "aligner": (ALIGNER, FULL),
    "aligner-id": ({**ALIGNER, "id": "s-1"}, Seed("Q", "A", "C", "s-1")),
    "aligner-number": ({**ALIGNER, "id": 0}, Seed("Q", "A", "C", "0")),
    "aligner-blank-id": ({**ALIGNER, "id": " "}, FULL),
    "aligner-row": ({**ALIGNER, "id": None, "instruction": None, "messages": None}, FULL),
    "aligner-as-written": ({**ALIGNER, "answer": " A\n"}, Seed("Q", " A\n", "C")),
    "alpaca": (ALPACA, Seed("Q", "A", None)),
    "alpaca-correction": ({**ALPACA, "correction": "C", "id": "x"}, Seed("Q", "A", "C", "x")),
    "alpaca-input": ({**ALPACA, "input": "I"}, Seed("Q\nI", "A", None)),
    "alpaca-row": ({**ALPACA, "correction": None, "question": None}, Seed("Q", "A", None)),
    "openai": ({"messages": CHAT, "correction": "C"}, FULL),
    "openai-row": ({"instruction": None, "question": None, "messages": CHAT, "correction": "C"}, FULL),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
            "correction": "C",
        },
        FULL,
    ),
    "pair": (
        {"conversation": [{"human": "Q", "assistant": "A"}], "correction": "C", "id": 3},
        Seed("Q", "A", "C", "3"),
    ),
}


@each(("record", "expected"), SEEDS.values(), ids=SEEDS)
def test_seeds(record, expected):
    assert seed_from(record) == expected


MORE = "a seed is one question and one answer"
BAD = {
    "nothing": ({}, "no seed was found: the record is empty; question, answer and correction, or"),
    "other": ({"text": "a"}, "no seed was found: the record has text; question"),
    "no-answer": ({"question": "Q", "correction": "C"}, "answer is missing"),
    "no-correction": ({"question": "Q", "answer": "A"}, "correction is missing"),
    "null-correction": ({**ALIGNER, "correction": None}, "correction is missing"),
    "blank-question": ({**ALIGNER, "question": " "}, "question is empty"),
    "blank-answer": ({**ALIGNER, "answer": ""}, "answer is empty"),
    "blank-correction": ({**ALIGNER, "correction": "\n"}, "correction is empty"),
    "list-question": ({**ALIGNER, "question": ["Q"]}, "question is a list, not text"),
    "list-id": ({**ALIGNER, "id": [1]}, "id is a list, not text or a whole number"),
    "true-id": ({**ALIGNER, "id": True}, "id is true or false, not text or a whole number"),
    "alpaca-output": ({"instruction": "Q"}, "output is missing"),
    "alpaca-correction": ({**ALPACA, "correction": ""}, "correction is empty"),
    "alpaca-system": ({**ALPACA, "system": "S"}, f"the dialogue is system, user, assistant; {MORE}"),
    "alpaca-history": (
        {**ALPACA, "history": [["a", "b"]]},
        f"the dialogue is user, assistant, user, assistant; {MORE}",
    ),
    "chat-correction": ({"messages": CHAT}, "correction is missing"),
    "chat-two-turns": (
        {"messages": CHAT * 2, "correction": "C"},
        f"the dialogue is user, assistant, user, assistant; {MORE}",
    ),
    "chat-no-question": ({"messages": CHAT[1:], "correction": "C"}, f"the dialogue is assistant; {MORE}"),
    "chat-no-reply": ({"messages": CHAT[:1], "correction": "C"}, "there is no assistant reply"),
    "chat-blank-question": (
        {"messages": [{"role": "user", "content": " "}, CHAT[1]], "correction": "C"},
        "the question is empty",
    ),
    "chat-empty": ({"messages": [], "correction": "C"}, "messages is empty"),
    "tree": (
        {
            "messages": [],
            "prompt": {
                "role": "prompter",
                "text": "Q",
                "replies": [{"role": "assistant", "text": "A"}, {"role": "assistant", "text": "B"}],
            },
            "correction": "C",
        },
        f"the record holds 2 dialogues; {MORE}",
    ),
}


@each(("record", "reason"), BAD.values(), ids=BAD)
def test_a_bad_seed_names_the_field(record, reason):
    with pytest.raises(RecordProblem) as problem:
        seed_from(record)
    assert problem.value.message.startswith(reason)


VALUES = st.none() | st.text(max_size=4) | st.integers() | st.just(CHAT) | st.just({"role": "prompter"})
FIELDS = ("question", "answer", "correction", "instruction", "input", "output", "messages", "prompt", "id")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES)))
def test_any_record_is_a_seed_or_bad(record):
    try:
        seed = seed_from(record)
    except RecordProblem:
        return
    assert seed.question.strip()
    assert seed.answer.strip()
    assert seed.correction is None or seed.correction.strip()
