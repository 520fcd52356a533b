"""Where a reply ends, and what its text is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.tokenizers import load_family

from tunesmith.engines.engine import GeneratedReply
from tunesmith.engines.reply_text import Endings


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global CHATML, PIECES, END, NOISE
    CHATML, PIECES = load_family("chatml"), load_family("metaspace-first")
    END = min(CHATML.stop_ids)
    special = CHATML.tokenizer.added_tokens_decoder.items()
    NOISE = [id_ for id_, token in special if token.special and id_ not in CHATML.stop_ids]


def ids_of(text: str) -> list[int]:
    return list(CHATML.tokenizer(text, add_special_tokens=False)["input_ids"])


def complete(endings: Endings, ids: list[int], limit: int) -> tuple[int, GeneratedReply] | None:
    """What comes of drawing one token after the other, and with how many."""
    for count in range(1, len(ids) + 1):
        reply = endings.reply(ids[:count], limit)
        if reply is not None:
            return count, reply
    return None


def test_the_end_of_turn() -> None:
    ids = ids_of(" Hello, you \n")
    count, reply = complete(Endings(CHATML, []), [*ids, END, *ids], 100) or pytest.fail("no end")
    assert count == len(ids) + 1
    assert reply == GeneratedReply(" Hello, you \n", len(ids) + 1, "stop")


def test_every_token_that_ends_a_turn_ends_it() -> None:
    for id_ in CHATML.stop_ids:
        assert Endings(CHATML, []).reply([id_], 5) == GeneratedReply("", 1, "stop")


def test_the_limit() -> None:
    ids = ids_of("one two three four five six")
    assert complete(Endings(CHATML, []), ids, 3) == (3, GeneratedReply(CHATML.decode(ids[:3]), 3, "length"))
    assert complete(Endings(CHATML, []), ids, len(ids) + 1) is None


def test_an_end_at_the_limit_is_an_end() -> None:
    assert Endings(CHATML, []).reply([*ids_of("a"), END], 2) == GeneratedReply("a", 2, "stop")
    ids = ids_of("ab!")
    assert Endings(CHATML, ["!"]).reply(ids, len(ids)) == GeneratedReply("ab", len(ids), "stop")


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("hello User: x", ["User:"], "hello "),
        ("hello User: x", ["\n\n", "lo"], "hel"),
        ("one。two", ["。"], "one"),
        ("a\n\nb", ["\n\n"], "a"),
        ("x" * 300 + "STOP" + "y" * 20, ["STOP"], "x" * 300),
        ("a 👨‍👩‍👧 b 💃 c", ["💃"], "a 👨‍👩‍👧 b "),
    ],
    ids=["word", "the-first-of-two", "one-character", "blank-lines", "after-much", "many-bytes"],
)
def test_stop_texts(text: str, stops: list[str], expected: str) -> None:
    ids = ids_of(text)
    count, reply = complete(Endings(CHATML, stops), ids, 10_000) or pytest.fail("no end")
    assert (reply.text, reply.finish_reason, reply.tokens) == (expected, "stop", count)
    assert CHATML.decode(ids[: count - 1]).find(stops[-1]) == -1  # not later than needed


def test_special_tokens_are_no_text() -> None:
    ids = [*NOISE[:1], *ids_of("a b"), *NOISE, END]
    count, reply = complete(Endings(CHATML, []), ids, 100) or pytest.fail("no end")
    assert (reply.text, reply.tokens, count) == ("a b", len(ids), len(ids))


def test_a_stop_text_across_special_tokens() -> None:
    ids = [*ids_of("abS"), NOISE[0], *ids_of("T")]
    assert complete(Endings(CHATML, ["ST"]), ids, 100) == (len(ids), GeneratedReply("ab", len(ids), "stop"))


def test_a_blank_in_front_stays() -> None:
    """Decoders of pieces that bring their blank take the first one away."""
    ids = list(PIECES.tokenizer(" Hello", add_special_tokens=False)["input_ids"])
    assert PIECES.decode(ids) == "Hello"
    assert Endings(PIECES, []).text(ids) == " Hello"


def test_an_end_of_turn_that_is_no_special_token() -> None:
    backend = SimpleNamespace(all_special_ids=[], added_tokens_decoder={}, eos_token_id=None)

    def letters(ids: list[int]) -> str:
        return "".join(chr(97 + id_) for id_ in ids)

    plain: Any = SimpleNamespace(tokenizer=backend, stop_ids={9}, decode=letters, decode_whole=letters)
    assert Endings(plain, []).reply([0, 1, 9], 5) == GeneratedReply("ab", 3, "stop")


@settings(max_examples=100, deadline=None)
@given(st.text("ab \n。", max_size=30), st.lists(st.text("ab\n。", min_size=1, max_size=5), max_size=3))
def test_the_text_is_what_stands_before_the_first_stop_text(text: str, stops: list[str]) -> None:
    result = complete(Endings(CHATML, stops), [*ids_of(text), END], 1000)
    assert result is not None
    found = [text.find(stop) for stop in stops if stop in text]
    kept = result[1].text
    assert text.startswith(kept)
    assert not any(stop in kept for stop in stops)
    assert kept == text if not found else len(kept) in [text.find(s) for s in stops if s in text]
