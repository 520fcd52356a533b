"""Which files of a data set are read: by its card, by the names of files, by what the manifest says."""

from itertools import pairwise

import pytest
from tests.cases import each

from tunesmith.artifacts.hub.configurations import FilesChoice, Repository, chosen_files, configurations
from tunesmith.artifacts.hub.patterns import default_splits, matching
from tunesmith.errors import DataError

URI = "hf://datasets/org/set"


def chosen(paths, card="", revision="", uri=URI, **choice):
    return chosen_files(Repository(uri, sorted(paths), card, revision), FilesChoice(**choice))


def refusal(*args, **kwargs):
    with pytest.raises(DataError) as caught:
        chosen(*args, **kwargs)
    assert "\n" not in caught.value.message
    return caught.value.message


def card(text):
    return f"---\nlicense: mit\n{text}\n---\n# Title\n---\nmore\n"


PATTERNS = {
    "one folder": ("*.jsonl", ["a.jsonl"]),
    "any folder": ("**/*.jsonl", ["a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]),
    "all but hidden and about": ("**", ["a.jsonl", "data.csv", "x/b.jsonl", "x/y/c.jsonl"]),
    "a character": ("x/[ab].jsonl", ["x/b.jsonl"]),
    "a file": ("./x/b.jsonl", ["x/b.jsonl"]),
    "hidden": (".h/*", [".h/d.jsonl"]),
    "about": ("README.md", ["README.md"]),
    "double underscores": ("__x/*", ["__x/e.jsonl"]),
    "nothing": ("z*", []),
}
PATHS = [".h/d.jsonl", "README.md", "__x/e.jsonl", "a.jsonl", "data.csv", "x/b.jsonl", "x/y/c.jsonl"]


@each(("pattern", "files"), PATTERNS.values(), ids=PATTERNS)
def test_patterns(pattern, files):
    assert matching(pattern, PATHS) == files


@each("pattern", ["https://example.org/x.csv", "../x", "zip://a.csv::b.zip", "**.csv"])
def test_what_is_no_pattern(pattern):
    assert f"dataFiles has the pattern {pattern}: " in refusal(PATHS, data_files=(pattern,))


SPLITS = {
    "nothing": ([".gitattributes", "README.md"], []),
    "one file": (["data.csv"], ["train"]),
    "files": (["data/train.csv", "data/my-test-1.csv", "data/trainer.csv"], ["train", "test"]),
    "words for validation": (["train_0.csv", "dev.csv"], ["train", "validation"]),
    "folders come first": (["train/a.csv", "x/eval/b.csv", "test.csv"], ["train", "test"]),
    "shards come first of all": (
        ["data/odd-00000-of-00001.parquet", "data/train-00000-of-00001.parquet", "test/x.csv"],
        ["train", "odd"],
    ),
}


@each(("paths", "names"), SPLITS.values(), ids=SPLITS)
def test_splits_by_the_names_of_files(paths, names):
    assert list(default_splits(paths)) == names


def test_files_of_a_split_by_their_names():
    paths = ["train/a.jsonl", "train/b.jsonl", "x/test/c.jsonl", "LICENSE"]
    assert chosen(paths, split="train") == ["train/a.jsonl", "train/b.jsonl"]
    assert chosen(paths, split="test") == ["x/test/c.jsonl"]
    assert f"{URI} has several splits: train, test." in refusal(paths)
    assert chosen(["a/x.json", ".git", "README.md"]) == ["a/x.json"]


FORMS = {
    "a path": ("data_files: a.jsonl", {}, ["a.jsonl"]),
    "paths": ("data_files: [x/*, a.jsonl]", {}, ["a.jsonl", "x/b.jsonl"]),
    "splits": (
        "data_files: [{split: test, path: a.jsonl}, {split: more, path: ['x/*', 'x/y/*']}]",
        {"split": "more"},
        ["x/b.jsonl", "x/y/c.jsonl"],
    ),
    "a folder": ("data_dir: ./x/", {}, ["x/b.jsonl", "x/y/c.jsonl"]),
    "paths in a folder": ("{data_dir: x, data_files: 'y/*'}", {}, ["x/y/c.jsonl"]),
}


@each(("text", "choice", "files"), FORMS.values(), ids=FORMS)
def test_configurations_of_a_card(text, choice, files):
    text = text.strip("{}") if text.startswith("{data_dir") else text
    fields = text.replace(", data_files", "\n  data_files")
    assert chosen(PATHS, card(f"configs:\n- config_name: main\n  {fields}"), **choice) == files


def test_the_default_configuration():
    named = (
        "configs: [{config_name: other, data_files: data.csv}, {config_name: default, data_files: a.jsonl}]"
    )
    marked = named.replace("default,", "chosen, default: true,")
    for text in (named, marked):
        assert chosen(PATHS, card(text)) == ["a.jsonl"]
        assert chosen(PATHS, card(text), config="other") == ["data.csv"]
    assert "has several configurations: other, x. Set config" in refusal(
        PATHS, card(named.replace("default", "x"))
    )
    assert f"{URI} has no configuration y; it has default. Set config" in refusal(PATHS, config="y")


CARDS = {
    "no YAML": ("configs: [", "its front matter is not YAML"),
    "no list": ("configs: main", "configs is not a list"),
    "files": ("configs: [{config_name: a, data_files: 7}]", "data_files of the configuration a is neither"),
    "a name that is a bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghijk"))
        + "configs: [{config_name: *k, data_files: a.jsonl}]",
        "has a name that is not text",
    ),
    "a split twice": (
        "configs: [{config_name: a, data_files: [{split: x, path: a}, {split: x, path: b}]}]",
        "data_files of the configuration a is neither",
    ),
    "a way of reading": (
        "configs: [{config_name: a, data_files: data.csv, sep: ';'}]",
        "sets sep, which is not",
    ),
    "no such file": (
        "configs: [{config_name: a, data_files: none.csv}]",
        "has no file none.csv, which the split",
    ),
    "no such files": (
        "configs: [{config_name: a, data_files: 'n*'}]",
        "has no file n*, which the split train",
    ),
    "elsewhere": (
        "configs: [{config_name: a, data_files: 'https://x/y.csv'}]",
        "it leads out of the data set",
    ),
    "nothing to read": ("configs: [{config_name: a, data_files: README.md}]", "has no file that can be read"),
}


@each(("text", "words"), CARDS.values(), ids=CARDS)
def test_a_card_that_cannot_be_followed(text, words):
    message = refusal(PATHS, card(text))
    assert words in message
    assert URI in message


def test_a_card_without_configurations_says_nothing():
    for text in ("# Title", "---\n---\n", card("tags: [a]"), "---\nno end", "---\n- 1\n---\n"):
        assert chosen(["a.jsonl"], text) == ["a.jsonl"]


def test_of_several_containers_the_most_frequent_is_meant():
    paths = ["a.csv", "b.jsonl", "c.jsonl", "notes.pdf"]
    assert chosen(paths) == ["b.jsonl", "c.jsonl"]
    assert chosen(["a.csv", "b.parquet"]) == ["b.parquet"]
    assert chosen(["a.txt", "b.txt.gz"]) == ["a.txt", "b.txt.gz"]
    assert "only a.zip" in refusal(["a.zip"])


def test_a_set_that_a_program_loads():
    paths = ["set.py", "data.zip", "train.jsonl"]
    message = refusal(paths, uri=f"{URI}@v1")
    assert message.startswith(
        f"{URI}@v1 is loaded by a program of its own, set.py, and code of a data set is"
    )
    assert f"write {URI}@refs/convert/parquet; or name files in dataFiles." in message
    assert chosen(paths, data_files=("train.jsonl",)) == ["train.jsonl"]
    assert chosen(paths, card("configs: [{config_name: a, data_files: '*.jsonl'}]")) == ["train.jsonl"]
    assert chosen(["other.py", "train.jsonl"]) == ["train.jsonl"]


def test_the_branch_of_what_the_hub_has_converted():
    paths = [
        "a[1]/train/0000.parquet",
        "a[1]/train/0001.parquet",
        "a[1]/partial-test/0000.parquet",
        "b/train/0000.parquet",
        ".gitattributes",
    ]
    found = configurations(Repository(URI, paths, "", "refs/convert/parquet"))
    assert [(each.name, list(each.splits)) for each in found] == [
        ("a[1]", ["train", "partial-test"]),
        ("b", ["train"]),
    ]
    branch = {"revision": "refs/convert/parquet"}
    assert chosen(paths, config="a[1]", split="train", **branch) == paths[:2]
    assert chosen(paths, config="a[1]", split="partial-test", **branch) == paths[2:3]
    assert "has no split test; it has partial-test, train." in refusal(
        paths, config="a[1]", split="test", **branch
    )
    assert chosen(paths, config="b", **branch) == paths[3:4]
