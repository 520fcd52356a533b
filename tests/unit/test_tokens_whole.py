"""Text of tokens that stop in the middle of a character."""

import random
import re
from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.engines.hf.generate import _TextStream
from tunesmith.engines.reply_text import Endings, StopText
from tunesmith.tokens.conversation import Sample
from tunesmith.tokens.show import as_plain
from tunesmith.tokens.whole import WholeCharacters

pytestmark = pytest.mark.engine

CHARACTERS = st.sampled_from("你好，世界鬱㍍𠮷😀👋🏽é߿\ufffd a1\n") | st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, max_size=14)


@cache
def families():
    """Two byte-level tokenizers and two of pieces with byte fallback; transformers is imported only here."""
    from tests.fixtures.tokenizers import load_family

    return [load_family(name) for name in ("chatml", "llama3", "metaspace-first", "metaspace-always")]


def ids_of(tokenizer, text):
    return list(tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"])


def sizes(tokenizer, ids):
    """Bytes of text that each token stands for, from how the two kinds of tokenizers write their tokens."""
    names = tokenizer.tokenizer.convert_ids_to_tokens(ids)
    if tokenizer in families()[:2]:
        return [len(name) for name in names]
    return [1 if re.fullmatch("<0x..>", name) else len(name.replace("▁", " ").encode()) for name in names]


def whole_prefix(text, size):
    """The whole characters among the first bytes of a text."""
    return text.encode()[:size].decode(errors="ignore")


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_cut_after_any_token_a_text_is_its_whole_characters(text):
    wrong = []
    for number, tokenizer in enumerate(families()):
        ids = ids_of(tokenizer, text)
        said, size = tokenizer.decode(ids), 0
        written = said if number < 2 else f" {said}"  # the blank that a text of pieces begins with
        for count, more in enumerate(sizes(tokenizer, ids), 1):
            size += more
            expected = whole_prefix(written, size).removeprefix(" " if number > 1 else "")
            found = tokenizer.decode_whole(ids[:count])
            if found != expected:
                wrong.append((number, count, found, expected))
    assert wrong == []


def test_a_replacement_character_that_was_written_stays():
    for tokenizer in families():
        ids = ids_of(tokenizer, "a\ufffd")
        assert tokenizer.decode_whole(ids) == "a\ufffd"
        assert tokenizer.decode_whole(ids[:-1]) == "a"


def test_bytes_that_begin_no_character_are_not_taken_for_one():
    """Nothing can make them whole, wherever they stand: they are what the model has said."""
    names = {"lone": ["<0x80>"], "too-long": ["<0xE0>", "<0x80>"], "surrogate": ["<0xED>", "<0xA0>"]}
    for case, bytes_ in names.items():
        ids = families()[2].tokenizer.convert_tokens_to_ids(bytes_)
        assert not WholeCharacters(families()[2].tokenizer).unfinished(ids), case


def test_tokens_that_were_added_are_whole_characters():
    backend = SimpleNamespace(
        added_tokens_decoder={0: "ä"},
        is_fast=True,
        backend_tokenizer=families()[0].tokenizer.backend_tokenizer,
        convert_ids_to_tokens=lambda id_: "ä",  # the byte E4, were it not an added token
    )
    whole = WholeCharacters(backend)
    assert whole.unfinished([0]) == 0
    assert (
        WholeCharacters(SimpleNamespace(**{**vars(backend), "added_tokens_decoder": {}})).unfinished([0]) == 1
    )


def test_without_a_rust_backend_no_half_character_is_left():
    whole = WholeCharacters(SimpleNamespace(added_tokens_decoder={}, is_fast=False))
    assert whole.text([1, 2], lambda ids: "a\ufffd\ufffd") == "a"


def test_replies_previews_and_shown_samples_are_cut_at_a_whole_character():
    """Engines' replies at any limit, the stream of chat and previews, and samples whose reply was cut."""
    text, wrong = "你好，世界😀。", []
    for tokenizer in families():
        ids = ids_of(tokenizer, text)
        for count in range(1, len(ids) + 1):
            reply = Endings(tokenizer, []).reply(ids[:count], count)
            shown = []
            stream = _TextStream(tokenizer, StopText([]), tokenizer.stop_ids, shown.append)
            stream._prompt = False
            for id_ in ids[:count]:
                stream.put(Ids([id_]))
            stream.end()
            sample = as_plain(Sample(ids[:count], [1.0] * count), tokenizer).strip("«»")
            found = [reply.text.strip(), stream.text, "".join(shown), sample]
            if reply.tokens != count or not all(text.startswith(each) for each in found):
                wrong.append((count, found))
    assert wrong == []


class Ids(list):
    """As a tensor of ids."""

    def flatten(self):
        return self

    def tolist(self):
        return list(self)


def test_random_tokens_are_never_half_a_character_longer():
    """What a bad model says may be no UTF-8 at all; then only its last, begun character is left out."""
    chance = random.Random(1)
    for tokenizer in families():
        size, whole = tokenizer.vocab_size, WholeCharacters(tokenizer.tokenizer)
        for _ in range(200):
            ids = [chance.randrange(size) for _ in range(chance.randrange(1, 12))]
            if not whole.unfinished(ids):
                assert tokenizer.decode_whole(ids) == tokenizer.decode(ids)
            else:
                assert len(tokenizer.decode_whole(ids)) < len(tokenizer.decode(ids))


def test_a_reply_of_vllm_is_cut_at_a_whole_character_and_at_a_stop_text_where_vllm_has_cut_it():
    from tunesmith.engines.vllm.engine import VllmReplies

    tokenizer, engine = families()[0], VllmReplies.__new__(VllmReplies)
    engine._stop_ids, engine._endings = tokenizer.stop_ids, Endings(tokenizer, ["!"])
    ids = ids_of(tokenizer, "你好😀!")
    for count in range(1, len(ids)):
        cut = SimpleNamespace(token_ids=ids[:count], finish_reason="length", stop_reason=None, text="?\ufffd")
        reply = engine._reply(cut, None)
        assert "你好😀!".startswith(reply.text)
        assert (reply.tokens, reply.finish_reason) == (count, "length")
    ended = SimpleNamespace(token_ids=ids, finish_reason="stop", stop_reason="!", text="你好😀")
    assert engine._reply(ended, None).text == "你好😀"
