"""The dictionary of words gives the tokenizer's own ids, or none."""

import json
import random
from functools import cache, cached_property

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.tokenizers import FAMILIES, TEXTS, load_family
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from tunesmith.tokens import bpe_cache
from tunesmith.tokens.bpe_cache import AWKWARD, BpeCache
from tunesmith.tokens.encode import Encoder

pytestmark = pytest.mark.engine

NAMES = [family.name for family in FAMILIES]
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
SPLITS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "qwen": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "llama3": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


class Wrapped:
    """The part of a transformers tokenizer that is asked for."""

    def __init__(self, split, normalizer=None):
        self.split, self.normalizer = split, normalizer

    @cached_property
    def backend_tokenizer(self):
        made = Tokenizer.from_str(load_family("chatml").tokenizer.backend_tokenizer.to_str())
        made.pre_tokenizer = self.split
        if self.normalizer:
            made.normalizer = self.normalizer
        return made

    def own(self, text):
        return self.backend_tokenizer.encode(text, add_special_tokens=False).ids


WRAPPED = {name: Wrapped(split) for name, split in SPLITS.items()} | {
    "qwen-nfc": Wrapped(SPLITS["qwen"], normalizers.NFC())
}
texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*" \n\t\r'’1a½ſK.!中é", "\u0301", "ll", "'S", "  ", "😀"]), max_size=30).map(
        "".join
    ),
)


@pytest.mark.parametrize("name", WRAPPED)
def test_known_kinds_have_a_dictionary(name):
    assert BpeCache.of(WRAPPED[name]) is not None


@pytest.mark.parametrize("name", WRAPPED)
@given(text=texts)
def test_ids_are_the_tokenizers_own_or_none(name, text):
    dictionary = dictionary_of(name)
    assert dictionary.ids(text) in (None, WRAPPED[name].own(text))


@cache
def dictionary_of(name):
    return BpeCache.of(WRAPPED[name])


@pytest.mark.parametrize("name", WRAPPED)
def test_usual_text_needs_no_tokenizer(name):
    dictionary = BpeCache.of(WRAPPED[name])
    for text in (*TEXTS, *(each for each in AWKWARD if each.isascii())):
        assert dictionary.ids(text) == WRAPPED[name].own(text)


def test_text_that_is_not_composed_is_left_to_the_tokenizer():
    assert BpeCache.of(WRAPPED["qwen-nfc"]).ids("e\u0301") is None
    assert BpeCache.of(WRAPPED["qwen"]).ids("e\u0301") is not None


UNKNOWN = {
    "prefix-space": Wrapped(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace": Wrapped(pre_tokenizers.Metaspace()),
    "removed": Wrapped(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\s"), "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "lower-case": Wrapped(SPLITS["gpt2"], normalizers.Lowercase()),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_kinds_have_none(name):
    assert BpeCache.of(UNKNOWN[name]) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_is_the_tokenizer(name):
    """Also around control tokens, for every family of templates."""
    tokenizer = load_family(name).tokenizer
    encoder, rng = Encoder(tokenizer), random.Random(0)
    pieces = [*TEXTS, *AWKWARD, *encoder.added, "\n", " ", "x"]
    for _ in range(300):
        text = "".join(rng.choice(pieces)[: rng.randint(1, 60)] for _ in range(rng.randint(1, 6)))
        assert encoder.many([text]) == [tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_a_character_that_is_split_otherwise_is_never_believed():
    dictionary = BpeCache.of(WRAPPED["gpt2"])
    dictionary._split = lambda text: list(text)  # as if the patterns differed
    assert dictionary.ids("ΩΩ") is None


def test_words_that_hardly_repeat_are_left_to_the_tokenizer(monkeypatch):
    monkeypatch.setattr(bpe_cache, "PATIENCE", 50)
    dictionary = BpeCache.of(WRAPPED["gpt2"])
    rng = random.Random(1)
    answers = [dictionary.ids(" ".join(f"w{rng.random()}" for _ in range(20))) for _ in range(20)]
    assert answers[0] is not None
    assert answers[-1] is None


def test_the_dictionary_does_not_grow_for_ever(monkeypatch):
    monkeypatch.setattr(bpe_cache, "WORDS", 100)
    dictionary = BpeCache.of(WRAPPED["gpt2"])
    for number in range(400):
        dictionary.ids("the same words again " * 20 + chr(97 + number % 26) + "zq" * (number % 40))
        assert len(dictionary._ids) <= 100 + 60


@pytest.mark.parametrize(
    ("pattern", "expected"), [(r"\p{L}+", "[A-Za-z]+"), (r"[^\s\p{N}]\P{L}", r"[^\s0-9][^A-Za-z]")]
)
def test_patterns_in_ascii(pattern, expected):
    assert bpe_cache._in_ascii(pattern) == expected


def test_a_class_that_is_not_known_has_no_ascii_pattern():
    with pytest.raises(KeyError):
        bpe_cache._in_ascii(r"\p{Han}")


def test_bytes_as_characters_are_the_pre_tokenizers():
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("plain", "é中😀", "\x00\x7f\x80\xad"):
        assert bpe_cache._as_characters(text) == "".join(word for word, _ in split.pre_tokenize_str(text))
    assert json.loads(split.__getstate__())["type"] == "ByteLevel"
