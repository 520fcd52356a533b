"""Text of tokens that stop in the middle of a character."""

import random
import re
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.tokenizers import load_family

from tunesmith.engines.batched_text import Endings
from tunesmith.engines.generate import StopText, _Stream
from tunesmith.tokens.conversation import Sample
from tunesmith.tokens.show import as_plain
from tunesmith.tokens.whole import WholeCharacters

FAMILIES = [load_family(name) for name in ("chatml", "llama3", "metaspace-first", "metaspace-always")]
LEVEL, FALLBACK = FAMILIES[0], FAMILIES[2]
CHARACTERS = st.sampled_from("你好，世界鬱㍍𠮷😀👋🏽é߿\ufffd a1\n") | st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, max_size=14)


def ids_of(tokenizer, text):
    return list(tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"])


def sizes(tokenizer, ids):
    """Bytes of text that each token stands for, from how the two kinds of tokenizers write their tokens."""
    names = tokenizer.tokenizer.convert_ids_to_tokens(ids)
    if tokenizer in FAMILIES[:2]:
        return [len(name) for name in names]
    return [1 if re.fullmatch("<0x..>", name) else len(name.replace("▁", " ").encode()) for name in names]


def whole_prefix(text, size):
    """The whole characters among the first bytes of a text."""
    return text.encode()[:size].decode(errors="ignore")


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_cut_after_any_token_a_text_is_its_whole_characters(text):
    wrong = []
    for number, tokenizer in enumerate(FAMILIES):
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
    for tokenizer in FAMILIES:
        ids = ids_of(tokenizer, "a\ufffd")
        assert tokenizer.decode_whole(ids) == "a\ufffd"
        assert tokenizer.decode_whole(ids[:-1]) == "a"


def test_bytes_that_begin_no_character_are_not_taken_for_one():
    """Nothing can make them whole, wherever they stand: they are what the model has said."""
    names = {"lone": ["<0x80>"], "too-long": ["<0xE0>", "<0x80>"], "surrogate": ["<0xED>", "<0xA0>"]}
    for case, bytes_ in names.items():
        ids = FALLBACK.tokenizer.convert_tokens_to_ids(bytes_)
        assert FALLBACK.is_whole(ids), case


def test_tokens_that_were_added_are_whole_characters():
    backend = SimpleNamespace(
        added_tokens_decoder={0: "ä"},
        is_fast=True,
        backend_tokenizer=LEVEL.tokenizer.backend_tokenizer,
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
    for tokenizer in FAMILIES:
        ids = ids_of(tokenizer, text)
        for count in range(1, len(ids) + 1):
            reply = Endings(tokenizer, []).reply(ids[:count], count)
            shown = []
            stream = _Stream(tokenizer, StopText([]), tokenizer.stop_ids, shown.append)
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
    for tokenizer in FAMILIES:
        size = tokenizer.vocab_size
        for _ in range(200):
            ids = [chance.randrange(size) for _ in range(chance.randrange(1, 12))]
            if tokenizer.is_whole(ids):
                assert tokenizer.decode_whole(ids) == tokenizer.decode(ids)
            else:
                assert len(tokenizer.decode_whole(ids)) < len(tokenizer.decode(ids))
