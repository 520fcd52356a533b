"""Which S3 a run uses, what each job's processes are told of it, and seeds."""

import os
from contextlib import suppress

import pytest
from good_manifests import FINE_TUNE, changed
from tests.cases import each

from tunesmith.api.manifest import parse_document
from tunesmith.artifacts.store import StorageOptions
from tunesmith.errors import UsageError
from tunesmith.local.storage import (
    AWS_VARIABLES,
    RunStorage,
    credentials,
    has_own_s3,
    own_s3,
    own_s3_in_words,
    parse_seed,
    put_seed,
    s3_uris,
    variables,
)

SECRET = "TUNESMITH_SECRET_S3_CREDENTIALS_"


def job(changes=None):
    return parse_document(changed(FINE_TUNE, changes or {}), "m.yaml", 1)


LOCAL = {"spec.datasets[0].uri": "file:///d", "spec.output.uri": "/out"}
REF = {"spec.storage.secretRef": {"name": "s3-credentials"}}


def test_every_address_of_a_job():
    changes = {
        "spec.validation": {"uri": "s3://data/v", "chat": {}},
        "spec.previews": [{"name": "a", "user": "s3://not/asked? no"}],
    }
    assert {"s3://data/train.jsonl", "s3://models/tune", "s3://data/v"} <= s3_uris(job(changes), {})
    assert s3_uris(job(LOCAL), {}) == set()


def test_the_base_of_an_adapter_of_this_machine_counts(tmp_path):
    config = tmp_path / "adapter_config.json"
    made = job(LOCAL | {"spec.model": {"uri": f"file://{tmp_path}"}})
    assert s3_uris(made, {}) == set()
    config.write_text('{"base_model_name_or_path": "s3://models/base"}')
    assert s3_uris(made, {}) == {"s3://models/base"}
    config.write_text('{"base_model_name_or_path": "org/base"}')
    assert s3_uris(made, {}) == set()


@each(
    ("changes", "environment", "embedded"),
    [
        ({}, {}, True),
        (LOCAL, {}, False),
        ({"spec.storage.endpointUrl": "http://s3"}, {}, False),
        *(({}, {name: "x"}, False) for name in AWS_VARIABLES),
        ({}, {"AWS_ACCESS_KEY_ID": ""}, True),
        ({}, {"AWS_REGION": "eu-1"}, True),
        (REF, {}, True),
        (REF, {f"{SECRET}AWS_ACCESS_KEY_ID": "x"}, False),
        ({}, {f"{SECRET}AWS_ACCESS_KEY_ID": "x"}, True),
    ],
)
def test_when_s3_is_the_embedded_server(changes, environment, embedded):
    made = job(changes)
    assert (bool(s3_uris(made, {})) and not has_own_s3(made, environment)) is embedded


def test_what_a_job_reads_of_another_counts_too():
    """A job with nothing but files of its own may start from a model that another put into S3."""
    reads = {**LOCAL, "spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "first"}}}
    outputs = {("research", "FineTuneJob", "first"): "s3://models/first"}
    assert s3_uris(job(reads), outputs) == {"s3://models/first/final_model"}
    assert s3_uris(job(reads), {("other", "FineTuneJob", "first"): "s3://models/first"}) == set()


def test_the_base_of_a_checkpoint_of_this_machine_counts(tmp_path):
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4/adapter_config.json").write_text(
        '{"base_model_name_or_path": "s3://models/base"}'
    )
    target = {"fromJob": {"kind": "FineTuneJob", "name": "first", "checkpoint": 4}}
    outputs = {("research", "FineTuneJob", "first"): f"file://{tmp_path}"}
    assert s3_uris(job({**LOCAL, "spec.model": target}), outputs) == {"s3://models/base"}


def test_it_is_said_which_s3_it_is():
    own = {"AWS_ACCESS_KEY_ID": "x"}
    assert own_s3(own) == "AWS_ACCESS_KEY_ID"
    assert own_s3({}) is None
    assert own_s3_in_words(job(), own) == "AWS (AWS_ACCESS_KEY_ID is set)"
    assert own_s3_in_words(job(), {"AWS_ENDPOINT_URL": "http://x"}) == "http://x (AWS_ENDPOINT_URL is set)"
    at_x = job({"spec.storage.endpointUrl": "http://x"})
    assert own_s3_in_words(at_x, own) == "http://x (storage.endpointUrl)"
    assert "storage.secretRef" in own_s3_in_words(job(REF), {})


def test_credentials_come_from_the_secret_the_job_names():
    given = {
        f"{SECRET}AWS_ACCESS_KEY_ID": "k",
        f"{SECRET}AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "no",
    }
    assert credentials(job(REF), given) == {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    assert credentials(job(), given) == {}


class Server:
    def environment(self):
        return {"AWS_ENDPOINT_URL": "http://embedded", "AWS_ACCESS_KEY_ID": "embedded"}


def test_a_job_with_an_s3_of_its_own_never_gets_the_embedded_servers_keys(monkeypatch):
    monkeypatch.setenv(f"{SECRET}AWS_ACCESS_KEY_ID", "own")
    inside, outside = job(), job({"metadata.name": "other", "spec.storage.endpointUrl": "http://x", **REF})
    storage = RunStorage(Server(), frozenset([inside.key]), outside)
    assert storage.environment(inside)["AWS_ACCESS_KEY_ID"] == "embedded"
    assert storage.environment(outside) == {"AWS_ACCESS_KEY_ID": "own"}


def test_variables_are_set_for_a_while(monkeypatch):
    monkeypatch.setenv("TS_A", "old")
    monkeypatch.delenv("TS_B", raising=False)
    with suppress(KeyError), variables({"TS_A": "new", "TS_B": "new"}):
        assert (os.environ["TS_A"], os.environ["TS_B"]) == ("new", "new")
        raise KeyError
    assert os.environ["TS_A"] == "old"
    assert "TS_B" not in os.environ


def test_a_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a=b.txt").write_text("x")
    uri, path = parse_seed("s3://bucket/some/key.txt=a=b.txt")
    assert (uri, path.read_text()) == ("s3://bucket/some/key.txt", "x")
    assert parse_seed("s3://bucket/key/=~/a=b.txt")[1] == tmp_path / "a=b.txt"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write s3://bucket/key=PATH"),
        ("foo", "write s3://bucket/key=PATH"),
        ("s3://bucket=.", "write s3://bucket/key=PATH"),
        ("s3://bucket/=.", "write s3://bucket/key=PATH"),
        ("s3://bucket/key=", "write s3://bucket/key=PATH"),
        ("s3://bucket/key", "write s3://bucket/key=PATH"),
        ("file:///x=.", "write s3://bucket/key=PATH"),
        ("s3://bucket/key=nothere", "there is no file or folder nothere"),
        ("s3://Bad_Bucket/key=.", "is not an S3 address"),
        ("s3://bucket/../key=.", r"must not contain '\.\.'"),
    ],
)
def test_a_seed_that_cannot_be_meant(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words) as caught:
        parse_seed(text)
    assert caught.value.message.startswith(f"--seed {text}:")
    assert caught.value.message.count("\n") == 0


def test_putting_seeds(tmp_path):
    """Into a folder, whose store follows the same rules as S3's."""
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "deep/b.txt").write_text("b")
    target = tmp_path / "target"
    put_seed(f"file://{target}/folder", source, StorageOptions())
    put_seed(f"file://{target}/renamed.txt", source / "a.txt", StorageOptions())
    put_seed(f"file://{target}/into/", source / "a.txt", StorageOptions())
    found = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*.txt")}
    assert found == {"folder/a.txt": "a", "folder/deep/b.txt": "b", "renamed.txt": "a", "into/a.txt": "a"}
