"""What is written is read as the same by every reader of YAML, also by kubectl's of version 1.1."""

from __future__ import annotations

import yaml
from hostile import STEERING

from tunesmith.api.yaml_dump import Dumper, dump

# Plain, some reader takes each for a boolean, nothing or a number.
DOUBTFUL = [
    "y",
    "N",
    "n",
    "yes",
    "Off",
    "true",
    "null",
    "~",
    "1",
    "0.5",
    "1e3",
    "1_000",
    "0o17",
    "0x1F",
    "0b1",
    ".inf",
]
PLAIN = ["name", "no-name", "1.2.3", "64Gi", "s3://bucket/key", "1a"]


def test_a_text_that_some_reader_takes_for_another_kind_is_quoted_as_key_and_as_value():
    written = {word: yaml.dump({word: word}, Dumper=Dumper) for word in DOUBTFUL}
    assert {
        word: text for word, text in written.items() if text.count(word) != 2 or len(text) < 2 * len(word) + 6
    } == {}
    assert [yaml.safe_load(text) for text in written.values()] == [{word: word} for word in DOUBTFUL]


def test_other_texts_stay_plain():
    assert [yaml.dump({word: word}, Dumper=Dumper) for word in PLAIN] == [
        f"{word}: {word}\n" for word in PLAIN
    ]


def test_what_reorders_a_line_is_escaped_and_read_as_it_was():
    values = [f"a{STEERING}b", f"a{STEERING}b\nc", f"a\n{STEERING[3]}\n", f"{STEERING[4]}: #", "שלום"]
    for value in values:
        document = {"x": {value: [value, {"y": value}]}}
        text = dump(document)
        assert not set(STEERING) & set(text)
        assert yaml.safe_load(text) == document
    assert "שלום" in dump({"x": "שלום"})
