"""Wrong manifests that only Tunesmith's own reading refuses.

`LOCAL` are single objects, `TEXTS` files that do not even give an object, `SETS` go wrong only together.
"""

from good_manifests import FINE_TUNE, REMOVED, changed
from wrong_objects import DATA, OUT, Wrong, dg, ft

LOCAL = [
    ft("kind-typo", {"kind": "FinetuneJob"}, "kind", 'did you mean "FineTuneJob"?'),
    ft("kind-missing", {"kind": REMOVED}, "kind", "is required: FineTuneJob"),
    ft("kind-list", {"kind": []}, "kind", "must be FineTuneJob"),
    Wrong(
        "other-object",
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}},
        "kind",
        'not "Secret"',
    ),
    ft("metadata-missing", {"metadata": REMOVED}, "metadata", "is required"),
    ft("name-missing", {"metadata.name": REMOVED}, "metadata.name", "is required"),
    ft("generate-name", {"metadata": {"generateName": "a-"}}, "metadata.name", "is required"),
    ft("metadata-typo", {"metadata.label": {}}, "metadata.label", '"labels"'),
    ft("namespace", {"metadata.namespace": "My"}, "metadata.namespace", "must be a namespace"),
    ft("label-value", {"metadata.labels": {"a": "b c"}}, "metadata.labels.a", "label's value"),
    ft("label-number", {"metadata.labels": {"a": 1}}, "metadata.labels.a", "must be text, not 1"),
    ft("spec-too-large", {"spec.deepspeed": {"config": {"x": "é" * 40000}}}, "spec", "at most 64 KiB"),
    dg(
        "budget-and-no-price-known",
        {"spec.endpoints.big.price": REMOVED},
        "spec.endpoints.big.price",
        "is required with a budget: genai-prices does not list big at https://api.example.com/v1",
    ),
    ft("nul", {DATA: "s3://data/a\x00b"}, DATA, "control characters"),
    ft("nan", {"spec.training.learningRate": float("nan")}, "spec.training.learningRate", "finite number"),
    ft("infinite", {"spec.training.weightDecay": float("inf")}, "spec.training.weightDecay", "finite number"),
    ft(
        "nan-in-config",
        {"spec.deepspeed": {"config": {"a": [float("nan")]}}},
        "spec.deepspeed.config",
        "finite numbers",
    ),
    Wrong("document-list", [1], "", "must be an object with apiVersion, kind, metadata and spec, not a list"),
    Wrong("document-text", "hello", "", 'not "hello"'),
    Wrong("document-number", 5, "", "not 5"),
]

GOOD_TEXT = """\
apiVersion: tunesmith.dev/v1alpha1
kind: FineTuneJob
metadata: {name: tune}
spec:
  model: {uri: hf://org/model}
  datasets: [{uri: s3://data/x, chat: {}}]
  method: {lora: {}}
  output: {uri: s3://models/tune}
"""


def bomb():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "\n".join(lines)


# id, text, path, words
TEXTS = [
    ("empty", "", "", "contains no manifest"),
    ("only-comment", "# nothing\n", "", "contains no manifest"),
    ("only-separators", "---\n---\n", "", "contains no manifest"),
    (
        "duplicate-key",
        GOOD_TEXT + "kind: FineTuneJob\n",
        "",
        'line 9, column 1: not readable as YAML: the key "kind" is repeated',
    ),
    (
        "duplicate-key-deep",
        GOOD_TEXT.replace("{lora: {}}", "{lora: {}, lora: {}}"),
        "",
        'the key "lora" is repeated',
    ),
    (
        "tab",
        GOOD_TEXT.replace("  model", "\tmodel"),
        "",
        "line 5, column 1: not readable as YAML: a value cannot begin with a tab",
    ),
    ("unclosed", "a: [1, 2", "", "not readable as YAML"),
    ("unclosed-quote", 'a: "x', "", "not readable as YAML"),
    ("bad-indent", "a:\n  b: 1\n c: 2\n", "", "line 3"),
    ("json-broken", '{"a": 1,, }', "", "not readable as YAML"),
    ("number-key", "1: x", "", "a key must be text; put 1 into quotes"),
    ("list-key", "[a]: x", "", "a key must be text"),
    ("unknown-alias", "a: *b", "", "undefined alias"),
    ("alias-of-itself", "a: &a [*a]", "", "recursive"),
    ("python-tag", "a: !!python/object:os.system {}", "", "has no meaning in a manifest"),
    ("binary-tag", "a: !!binary aGk=", "", "the tag !!binary has no meaning"),
    ("own-tag", "a: !secret x", "", "the tag !secret has no meaning"),
    ("int-tag-on-text", "a: !!int x", "", '"x" is not a whole number'),
    ("float-tag-on-text", "a: !!float x", "", '"x" is not a number'),
    ("bool-tag-on-text", "a: !!bool x", "", '"x" is not true or false'),
    ("octal-or-not", "a: 010", "", "010 is read as different numbers by different programs"),
    ("merge-of-text", "a: {<<: x}", "", "can merge only objects"),
    ("bomb", bomb(), "", "contains too many values"),
    ("deep-lists", "a: " + "[" * 5000, "", "nested more than 100 deep"),
    ("deep-objects", "{a: " * 5000, "", "nested more than 100 deep"),
    (
        "deep-by-alias",
        "\n".join(["- &a0 [x]"] + [f"- &a{i} [*a{i - 1}]" for i in range(1, 300)]),
        "",
        "nested more than 100 deep",
    ),
    ("latin-1", b"a: \xe9", "", "is not UTF-8 text (byte 3)"),
    ("utf-16", "a: b".encode("utf-16"), "", "is not UTF-8 text"),
    ("nul-byte", b"a: \x00", "", "not readable as YAML"),
    ("five-mebibytes", b"#" * (5 * 1024**2), "", "is larger than 4 MiB"),
]

FT_FROM = {"spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "tune"}}}
OTHER = {"metadata.name": "other", OUT: "s3://models/other"}
THIRD = {"metadata.name": "third", OUT: "s3://models/third"}


def _from(name):
    return {"spec.model": {"fromJob": {"kind": "FineTuneJob", "name": name}}}


# id, documents, path, words
SETS = [
    (
        "duplicate-job",
        [FINE_TUNE, changed(FINE_TUNE, {OUT: "s3://models/b"})],
        "metadata.name",
        "is already defined in file.yaml",
    ),
    (
        "one-output",
        [FINE_TUNE, changed(FINE_TUNE, {"metadata.name": "b"})],
        OUT,
        "is also the output of FineTuneJob tune",
    ),
    (
        "one-output-slash",
        [FINE_TUNE, changed(FINE_TUNE, {"metadata.name": "b", OUT: "s3://models/tune/"})],
        OUT,
        "is also the output of",
    ),
    (
        "not-there",
        [changed(FINE_TUNE, OTHER | FT_FROM)],
        "spec.model.fromJob",
        "FineTuneJob tune is not in these files (namespace research)",
    ),
    (
        "other-namespace",
        [changed(FINE_TUNE, {"metadata.namespace": "x"}), changed(FINE_TUNE, OTHER | FT_FROM)],
        "spec.model.fromJob",
        "is not in these files",
    ),
    (
        "checkpoint-after-the-end",
        [
            changed(FINE_TUNE, {"spec.training": {"maxSteps": 300}}),
            changed(FINE_TUNE, OTHER | _from("tune") | {"spec.model.fromJob.checkpoint": 301}),
        ],
        "spec.model.fromJob.checkpoint",
        "tune ends at step 300 (training.maxSteps)",
    ),
    (
        "cycle-of-two",
        [changed(FINE_TUNE, _from("other")), changed(FINE_TUNE, OTHER | _from("tune"))],
        "spec.model.fromJob",
        "these jobs wait for each other: ",
    ),
    (
        "cycle-of-three",
        [
            changed(FINE_TUNE, _from("other")),
            changed(FINE_TUNE, OTHER | _from("third")),
            changed(FINE_TUNE, THIRD | _from("tune")),
        ],
        "spec.model.fromJob",
        "these jobs wait for each other: ",
    ),
]
