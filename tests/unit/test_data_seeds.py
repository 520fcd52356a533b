import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.formats.seeds import DialogueSeed, SeedRound, seed_from
from tunesmith.data.record import RecordProblem

CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
ALIGNER = {"question": "Q", "answer": "A", "correction": "C"}
ALPACA = {"instruction": "Q", "output": "A"}
FULL = DialogueSeed((SeedRound("Q", "A", "C"),))
NEXT = {"question": "Q2", "answer": "A2", "correction": "C2"}
TWO = DialogueSeed((SeedRound("Q", "A", "C"), SeedRound("Q2", "A2", "C2")))
CORRECTED = [
    {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"},
    {"role": "assistant", "content": "C"}, {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "A2"}, {"role": "assistant", "content": "C2"},
]  # fmt: skip


def one(*texts, **fields):
    return DialogueSeed((SeedRound(*texts),), **fields)


SEEDS = {
    "aligner": (ALIGNER, FULL),
    "aligner-id": ({**ALIGNER, "id": "s-1"}, one("Q", "A", "C", id="s-1")),
    "aligner-number": ({**ALIGNER, "id": 0}, one("Q", "A", "C", id="0")),
    "aligner-blank-id": ({**ALIGNER, "id": " "}, FULL),
    "aligner-row": ({**ALIGNER, "id": None, "instruction": None, "messages": None}, FULL),
    "aligner-as-written": ({**ALIGNER, "answer": " A\n"}, one("Q", " A\n", "C")),
    "alpaca": (ALPACA, one("Q", "A")),
    "alpaca-correction": ({**ALPACA, "correction": "C", "id": "x"}, one("Q", "A", "C", id="x")),
    "alpaca-input": ({**ALPACA, "input": "I"}, one("Q\nI", "A")),
    "alpaca-row": ({**ALPACA, "correction": None, "question": None}, one("Q", "A")),
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
        one("Q", "A", "C", id="3"),
    ),
    "history": ({"id": "r1-000001", "rounds": [ALIGNER, NEXT]}, DialogueSeed(TWO.rounds, "r1-000001")),
    "history-of-made-id": (
        {"id": "r1-000001", "seed": "x.jsonl, line 1", "rounds": [ALIGNER]},
        DialogueSeed(FULL.rounds, "r1-000001", "x.jsonl, line 1"),
    ),
    "history-cut-text": (
        {"rounds": [ALIGNER, NEXT | {"truncated": ["correction", "answer"]}]},
        DialogueSeed((*FULL.rounds, SeedRound("Q2", "A2", "C2", ("answer", "correction")))),
    ),
    "history-that-failed-at-the-answer": (
        {"id": "s", "round": 2, "role": "answer", "rounds": [ALIGNER, {"question": "Q2"}]},
        DialogueSeed((*FULL.rounds, SeedRound("Q2")), "s"),
    ),
    "history-that-failed-at-the-correction": (
        {"rounds": [ALIGNER, {"question": "Q2", "answer": "A2", "correction": None}]},
        DialogueSeed((*FULL.rounds, SeedRound("Q2", "A2"))),
    ),
    "history-row": ({"rounds": [ALIGNER], "question": None, "messages": None, "seed": None}, FULL),
    "chat-corrections": (
        {"messages": [*CHAT, {"role": "user", "content": "Q2"}, {"role": "assistant", "content": "A2"}],
         "corrections": ["C", "C2"]}, TWO,
    ),
    "chat-with-corrections-behind-answers": ({"id": 7, "messages": CORRECTED}, DialogueSeed(TWO.rounds, "7")),
}  # fmt: skip


def test_seeds():
    made = {name: seed_from(record) for name, (record, _) in SEEDS.items()}
    assert made == {name: expected for name, (_, expected) in SEEDS.items()}


MORE = "a seed is one question and one answer"
BAD = {
    "nothing": ({}, "no seed was found: the record is empty; question, answer and correction, or rounds"),
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
        "the dialogue has 2 rounds, and corrections is missing: a list, one per answer (messages.jsonl",
    ),
    "chat-few-corrections": (
        {"messages": CHAT * 2, "corrections": ["C"]},
        "the length of corrections is 1, but the dialogue has 2 answers",
    ),
    "chat-blank-correction": ({"messages": CHAT * 2, "corrections": ["C", " "]}, "corrections[1] is empty"),
    "chat-text-corrections": (
        {"messages": CHAT * 2, "corrections": "C"},
        "corrections is a string, not a list",
    ),
    "chat-some-corrections-behind": (
        {"messages": CORRECTED[:-1]},
        "the dialogue is user, assistant, assistant",
    ),
    "history-text": ({"rounds": "Q"}, "rounds is a string, not a list"),
    "history-empty": ({"rounds": []}, "rounds is empty"),
    "history-list": ({"rounds": [["Q"]]}, "rounds[0] is a list, not an object"),
    "history-no-question": ({"rounds": [{"answer": "A"}]}, "rounds[0].question is missing"),
    "history-gap": ({"rounds": [{"question": "Q"}, ALIGNER]}, "rounds[0].answer is missing"),
    "history-correction-alone": (
        {"rounds": [ALIGNER, {"question": "Q", "correction": "C"}]},
        "rounds[1].answer is missing",
    ),
    "history-blank": ({"rounds": [ALIGNER | {"correction": ""}]}, "rounds[0].correction is empty"),
    "history-marks": (
        {"rounds": [ALIGNER | {"truncated": ["history"]}]},
        "rounds[0].truncated is not a list of question, answer or correction",
    ),
    "history-thoughts": (
        {"rounds": [ALIGNER | {"reasoning": {"history": "Hm."}}]},
        "rounds[0].reasoning is not an object of texts named question, answer or correction",
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
        f"the record has 2 dialogues; {MORE}",
    ),
}


def reason_of(record):
    with pytest.raises(RecordProblem) as problem:
        seed_from(record)
    return problem.value.message


def test_a_bad_seed_names_the_field():
    found = {name: reason_of(record)[: len(reason)] for name, (record, reason) in BAD.items()}
    assert found == {name: reason for name, (_, reason) in BAD.items()}


VALUES = (
    st.none() | st.text(max_size=4) | st.integers() | st.just(CHAT) | st.just({"role": "prompter"})
    | st.just(CORRECTED) | st.just([ALIGNER, NEXT])
)  # fmt: skip
FIELDS = (
    "question", "answer", "correction", "instruction", "input", "output", "messages", "prompt", "id",
    "rounds", "corrections", "seed",
)  # fmt: skip


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES)))
def test_any_record_is_a_seed_or_bad(record):
    try:
        seed = seed_from(record)
    except RecordProblem:
        return
    texts = [text for each in seed.rounds for text in (each.question, each.answer, each.correction)]
    assert seed.rounds
    assert texts[0]
    assert all(text is None or text.strip() for text in texts)
