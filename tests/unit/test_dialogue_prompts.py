"""The prompts of the roles: templates, languages, and how much of a dialogue they show. And the dry run."""

import pytest
from hostile import PROMPTS
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each
from tests.support import write_jsonl
from tests.unit.dialogue_world import TEMPLATES, plan, planned, seeds

from tunesmith.api.dialogue import DialogueGenSpec, RolesSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.language import language_of
from tunesmith.dialogue.context import messages_for, recent, transcript
from tunesmith.dialogue.dry_run import dry_run, sentences
from tunesmith.dialogue.rounds import DialoguePlan
from tunesmith.dialogue.state import Dialogue, Role
from tunesmith.dialogue.templates import (
    LONGEST,
    Template,
    Templates,
    checked,
    load_templates,
    own_template,
)
from tunesmith.errors import DataError, StoragePermanentError
from tunesmith.tokens.conversation import Message

OWN = TEMPLATES


@pytest.mark.parametrize(
    ("text", "language"),
    [
        pytest.param("Who wrote this book?", "en", id="english"),
        pytest.param("这本书是谁写的？", "zh", id="chinese"),
        pytest.param("请解释 TensorFlow 的 GradientTape 用法", "zh", id="chinese-with-names"),
        pytest.param("What does 你好 mean in English?", "en", id="english-with-chinese"),
        pytest.param("この本は誰が書きましたか", "en", id="japanese"),
        pytest.param("東京都庁展望台への行き方", "en", id="japanese-with-many-ideographs"),
        pytest.param("이 책은 누가 썼어요? 冊", "en", id="korean"),
        pytest.param("Qui a écrit ce livre ?", "en", id="french"),
        pytest.param("𠮷野家在哪里", "zh", id="rare-ideograph"),
    ],
)
def test_the_language_is_told_by_characters(text, language):
    assert language_of(text) == language


def test_the_first_text_with_letters_decides():
    assert language_of("1 + 1 = ?", None, "等于二。") == "zh"
    assert language_of("What?", "什么也没有。") == "en"
    assert language_of("", "42", None) == "en"


def dialogue(rounds, most=10, text="{role} {number}"):
    made = Dialogue(planned("r1-000001", "k", "Q1", "A1", "C1"), most)
    for number in range(2, rounds + 1):
        for letter in "QAC":
            made.say(f"{letter}{number}")
    return made


def contents(messages):
    return [message.content for message in messages]


def test_a_dialogue_is_what_was_asked_and_the_corrected_answers():
    made = dialogue(2)
    assert contents(made.messages()) == ["Q1", "C1", "Q2", "C2"]
    made.say("Q3")
    made.say("A3")
    assert contents(made.messages()) == ["Q1", "C1", "Q2", "C2", "Q3", "A3"]


@pytest.mark.parametrize(
    ("most", "said", "expected"),
    [
        (16, "uaua", "uaua"),
        (4, "uauaua", "uaua"),
        (3, "uauaua", "ua"),
        (3, "uauau", "uau"),
        (2, "uauau", "u"),
        (1, "uau", "u"),
        (1, "uaua", "ua"),
        (5, "", ""),
    ],
)
def test_the_last_messages_never_begin_with_an_assistants(most, said, expected):
    messages = [Message({"u": "user", "a": "assistant"}[c], str(at)) for at, c in enumerate(said)]
    shown = recent(messages, most)
    assert "".join(message.role[0] for message in shown) == expected
    assert not shown or shown[-1] is messages[-1]


@given(st.integers(1, 30), st.lists(st.sampled_from("ua"), max_size=40))
def test_recent_is_an_end_of_the_dialogue(most, said):
    messages = [Message({"u": "user", "a": "assistant"}[c], str(at)) for at, c in enumerate(said)]
    shown = recent(messages, most)
    assert shown == messages[len(messages) - len(shown) :]
    assert not shown or shown[0].role == "user"
    assert len(shown) <= most or "user" not in [each.role for each in messages[-most:]]


def test_the_simulated_user_sees_a_transcript():
    (message,) = messages_for(dialogue(2), OWN, 16)
    assert message["role"] == "user"
    assert (
        "User:\nQ1\n\nAssistant:\nC1\n\nUser:\nQ2\n\nAssistant:\nC2\n\nThe user's next" in message["content"]
    )
    (message,) = messages_for(dialogue(3), OWN, 3)
    assert "User:\nQ3\n\nAssistant:\nC3" in message["content"]
    assert "C2" not in message["content"]


def test_the_model_that_answers_gets_chat_behind_a_system_message_that_is_not_counted():
    made = dialogue(3)
    made.say("Q4")
    system, *rest = messages_for(made, OWN, 5)
    assert system == {"role": "system", "content": own_template(Role.ANSWER, "en").text}
    assert [(each["role"], each["content"]) for each in rest] == [
        ("user", "Q2"), ("assistant", "C2"), ("user", "Q3"), ("assistant", "C3"), ("user", "Q4"),
    ]  # fmt: skip
    bare = Templates({**OWN.by_role, (Role.ANSWER, "en"): Template("")})
    assert messages_for(made, bare, 5) == rest


def test_the_aligner_sees_what_was_before_and_question_and_answer():
    made = dialogue(3)
    made.say("Q4")
    made.say("A4")
    (message,) = messages_for(made, OWN, 3)
    text = message["content"]
    assert "User:\nQ3\n\nAssistant:\nC3\n\nThe question:\n\nQ4\n\nThe answer:\n\nA4\n\n" in text
    assert "Q2" not in text
    first = Dialogue(planned("r1-000001", "k", "Q1", "A1", None), 1)
    (message,) = messages_for(first, OWN, 16)
    assert "before the question:\n\n(none)\n\nThe question:\n\nQ1" in message["content"]


def test_chinese_seeds_get_chinese_prompts():
    made = Dialogue(planned("r1-000001", "k", "什么是量子？", "A", "C"), 2)
    (message,) = messages_for(made, OWN, 16)
    assert "用户：\n什么是量子？\n\n助手：\nC" in message["content"]
    assert transcript([], "zh") == "（无）"
    for word in ("用户", "助手"):
        assert word in message["content"]


def test_what_is_put_in_is_never_read_as_a_place():
    made = Dialogue(planned("r1-000001", "k", "{answer} {history}", "\\1 {question}", None), 1)
    (message,) = messages_for(made, OWN, 16)
    assert "The question:\n\n{answer} {history}\n\nThe answer:\n\n\\1 {question}\n\n" in message["content"]


def test_braces_that_are_no_places_stand_for_themselves():
    template = checked(Role.QUESTION, ' {history} {"a": {}} {{history}} { history } {} \n')
    assert template.fill({"history": "H"}) == 'H {"a": {}} {history} { history } {}'


@pytest.mark.parametrize(
    ("role", "text", "message"),
    [
        (
            Role.QUESTION,
            "Ask.",
            r"roles\.question\.promptUri: the prompt lacks {history}.*places are {history}",
        ),
        (Role.QUESTION, "{{history}}", "lacks {history}"),
        (Role.QUESTION, "{history} {answer}", "has a place {answer}, which is unknown"),
        (Role.CORRECTION, "{history} {question}", "lacks {answer}"),
        (Role.CORRECTION, "{history}", "lacks {question} and {answer}"),
        (Role.ANSWER, "{history}", "no places: it is the system message"),
        (Role.QUESTION, "", "lacks {history}"),
        (Role.QUESTION, "{history} {name}", r"Write {{name}} to mean these characters"),
    ],
)
def test_wrong_templates_are_refused(role, text, message):
    with pytest.raises(DataError, match=message.replace("{", r"\{")):
        checked(role, text)


@each("text", PROMPTS)
def test_a_prompt_does_not_repeat_a_dialogue_without_end(text):
    with pytest.raises(DataError, match=r"the placeholder {history} more than 20 times"):
        checked(Role.CORRECTION, "{question} {answer}" + text)
    assert checked(Role.QUESTION, "{history}" * 20 + "{{history}}" * 50)


def roles(**uris):
    return RolesSpec.model_validate(
        {
            role: {"endpoint": "e"} | ({"promptUri": uris[role]} if role in uris else {})
            for role in ("question", "answer", "correction")
        }
    )


def test_a_users_own_prompt_is_for_both_languages(tmp_path):
    path = tmp_path / "ask.txt"
    path.write_bytes("\ufeffAsk on: {history}\n".encode())
    found = load_templates(roles(question=path.as_uri()), StorageOptions())
    assert found.of(Role.QUESTION, "zh") == found.of(Role.QUESTION, "en") == Template("Ask on: {history}")
    assert found.of(Role.ANSWER, "zh") == OWN.of(Role.ANSWER, "zh")
    assert found.digest != OWN.digest == load_templates(roles(), StorageOptions()).digest


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, StoragePermanentError, "There is no file"),
        (
            b"\xff\xfe{history}",
            DataError,
            r"roles\.question\.promptUri: .*ask.txt is not UTF-8 \(at byte 0\)",
        ),
        (b"{history}" + b" " * LONGEST, DataError, "bytes, but a prompt may"),
    ],
    ids=["missing", "not-utf-8", "long"],
)
def test_prompts_that_cannot_be_read(tmp_path, content, error, message):
    path = tmp_path / "ask.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        load_templates(roles(question=path.as_uri()), StorageOptions())


def test_a_folder_is_no_prompt(tmp_path):
    write_jsonl(tmp_path / "a.txt", ["x"])
    write_jsonl(tmp_path / "b.txt", ["x"])
    with pytest.raises(DataError, match="has 2 files"):
        load_templates(roles(question=tmp_path.as_uri()), StorageOptions())


# The dry run.


def spec(**fields):
    endpoint = {
        "openai": {"baseUrl": "https://example.org/v1", "model": "big"},
        "limits": {"maxParallelRequests": 32, "requestsPerMinute": 600},
        "price": {"inputPerMillion": 0.1, "outputPerMillion": 0.4},
    }
    small = {**endpoint, "openai": {**endpoint["openai"], "model": "small"}, "price": None}
    return DialogueGenSpec.model_validate(
        {
            "seeds": {"uri": "file:///seeds.jsonl"},
            "rounds": 3,
            "endpoints": {"big": endpoint, "small": small},
            "roles": {
                "question": {"endpoint": "big", "maxTokens": 20},
                "answer": {"endpoint": "small", "maxTokens": 30},
                "correction": {"endpoint": "big", "maxTokens": 40},
            },
            "output": {"uri": "file:///out"},
            **fields,
        }
    )


def dry(count=500, made=None, **fields):
    job = spec(**fields)
    return dry_run(job, DialoguePlan.of(job, OWN, "f"), made or seeds(count))


def test_a_dry_run_shows_the_first_requests_as_they_would_be_sent():
    found = dry()
    assert [(each["id"], each["round"], each["role"]) for each in found["requests"][:7]] == [
        *[("r1-000001", number, role) for number in (2, 3) for role in ("question", "answer", "correction")],
        ("r1-000002", 2, "question"),
    ]
    assert len(found["requests"]) == 18
    first, second = found["requests"][:2]
    assert first["messages"] == messages_for(Dialogue(seeds(1)[0], 3), OWN, 16)
    assert (first["endpoint"], first["model"], first["max_tokens"]) == ("big", "big", 20)
    assert second["messages"][-1] == {"role": "user", "content": "⟨question of round 2⟩"}


def test_a_dry_run_estimates_calls_tokens_cost_and_time():
    found = dry()
    assert found["total"]["calls"] == 500 * 6
    assert [found["roles"][role]["calls"] for role in ("question", "answer", "correction")] == [1000] * 3
    assert found["roles"]["answer"]["cost_usd"] == 0
    priced = [found["roles"][role] for role in ("question", "correction")]
    cost = sum(each["tokens"]["prompt"] * 0.1 + each["tokens"]["completion"] * 0.4 for each in priced) / 1e6
    assert found["total"]["cost_usd"] == pytest.approx(cost, rel=1e-3)
    assert found["most_cost_usd"] > found["total"]["cost_usd"]
    assert (found["busiest"], found["seconds"]) == ("big", 200.0)
    assert "About 3,000 calls" in " ".join(sentences(found))


def test_a_dry_run_says_when_the_budget_will_not_do():
    told = sentences(
        dry(
            20_000,
            budget={"maxUsd": 0.01},
            endpoints=spec().to_json()["endpoints"]
            | {}
            | {
                "small": {
                    **spec().to_json()["endpoints"]["small"],
                    "price": {"inputPerMillion": 0, "outputPerMillion": 0},
                }
            },
        )
    )
    assert any("the job would stop before its end" in line for line in told)


def test_a_dry_run_counts_batches_at_their_price():
    single = dry(12_000)
    endpoints = spec().to_json()["endpoints"]
    endpoints["big"]["openai"]["batch"] = {}
    found = dry(12_000, endpoints=endpoints)
    assert (single["batches"], found["batches"]) == (0, 2 * 2 * 2)
    assert found["total"]["cost_usd"] == pytest.approx(single["total"]["cost_usd"] / 2, rel=1e-3)
    assert (single["busiest"], found["busiest"]) == ("big", "small")
    assert "8 batches, one after the other; each may take a day." in sentences(found)


def test_a_dry_run_counts_missing_corrections_of_round_one():
    found = dry(made=seeds(10, correction=None), rounds=1)
    assert found["roles"]["correction"]["calls"] == found["total"]["calls"] == 10
    half = seeds(300) + seeds(300, correction=None)
    assert dry(made=half, rounds=1)["total"]["calls"] == 300
    assert dry(made=seeds(3), rounds=1)["total"]["calls"] == 0


def test_plans_and_seeds_make_calls_with_the_roles_settings():
    call = plan().call_for(Dialogue(seeds(1)[0], 2))
    assert (call.temperature, call.max_tokens, call.round, call.role) == (0.5, 50, 2, Role.QUESTION)
