"""Keys, URIs and manifests: pure values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cases import each

from tunesmith.artifacts import location
from tunesmith.artifacts.location import FolderLocation, S3Location, split_uri
from tunesmith.artifacts.manifest import decode, digest_of, encode
from tunesmith.artifacts.transfer import FileInfo, for_each
from tunesmith.errors import CorruptObjectError, StoragePermanentError, UsageError

ONE = FileInfo("a/b.bin", 3, "0" * 64)
TWO = FileInfo("c.bin", 0, "f" * 64)


@pytest.mark.parametrize(
    "key", ["a", "a/b", "é/ü", "a b+c%20", ".hidden", "_x", "...", "a..b", "x" * 1024, "日本/语"]
)
def test_good_keys(key: str) -> None:
    assert location.check_key(key) == key


BAD_KEYS = ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a\nb", "a\x00b", "a\x7f", "a\x85b"]


@each("key", [*BAD_KEYS, "x" * 1025, "\udc80", ".tunesmith-tmp-1", "a/.tunesmith-tmp-1/b"])
def test_bad_keys_are_refused(key: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        location.check_key(key)


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "checkpoint-"])
def test_good_prefixes(prefix: str) -> None:
    assert location.check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../", ".."])
def test_bad_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(UsageError):
        location.check_prefix(prefix)


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b"),
        ("s3://bucket/a/b/", "bucket", "a/b"),
        ("s3://my.bucket-1/a?b#c%20", "my.bucket-1", "a?b#c%20"),
    ],
)
def test_s3_uris(uri: str, bucket: str, prefix: str) -> None:
    assert split_uri(uri) == S3Location(bucket, prefix)
    assert split_uri(split_uri(uri).uri) == S3Location(bucket, prefix)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("/a/../b", "/b"),
        ("/a%20b", "/a%20b"),
        ("file:///a%20b", "/a b"),
        ("file://localhost/a", "/a"),
    ],
)
def test_folder_uris(uri: str, path: str) -> None:
    assert split_uri(uri) == FolderLocation(Path(path))
    assert split_uri(split_uri(uri).uri) == FolderLocation(Path(path))


def test_relative_paths_are_below_the_working_folder() -> None:
    assert split_uri("a/b") == FolderLocation(Path.cwd() / "a" / "b")


@each(
    "uri",
    [
        "",
        "  ",
        "s3://",
        "s3:///x",
        "s3://b u/x",
        "s3://bucket//x",
        "s3://bucket/../x",
        "file:a",
        "file://host/a",
        "gs://b/x",
        "https://h/x",
        "a\nb",
        "file:///a%0Ab",
    ],
)
def test_bad_uris_are_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        split_uri(uri)


def test_hidden_names() -> None:
    hidden = [key for key in ["a", "_a", "x/.a", "_x/a", "x/_a"] if location.is_hidden(key)]
    assert hidden == ["_a", "x/.a", "x/_a"]


def test_manifest_round_trip() -> None:
    data = encode([TWO, ONE], {"step": 5, "name": "ü"})
    manifest = decode(data, "here")
    assert manifest.files == (ONE, TWO)
    assert manifest.extra == {"step": 5, "name": "ü"}
    assert manifest.digest == digest_of(data)


def test_manifest_is_canonical() -> None:
    assert encode([ONE, TWO], {"a": 1, "b": {"d": 1, "c": 2}}) == encode(
        [TWO, ONE], {"b": {"c": 2, "d": 1}, "a": 1}
    )
    assert encode([], {}) == b'{"files":[],"version":1}\n'


@pytest.mark.parametrize("extra", [{"version": 2}, {"files": []}])
def test_extra_fields_may_not_replace_the_manifests_own(extra: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="extra fields"):
        encode([], extra)


def test_a_manifest_lists_a_file_once() -> None:
    with pytest.raises(UsageError, match=r"c\.bin twice"):
        encode([TWO, ONE, TWO], {})


ENTRY = {"key": "a", "size": 1, "sha256": "0" * 64}


@each(
    "value",
    [
        [],
        {},
        {"version": 1},
        {"version": "1", "files": []},
        {"version": 0, "files": []},
        {"version": 1, "files": ["a"]},
        {"version": 1, "files": [ENTRY, ENTRY]},
        *({"version": 1, "files": [{**ENTRY, "key": key}]} for key in ("../a", "/etc/x", "", "a\n", 5)),
        *({"version": 1, "files": [{**ENTRY, "size": size}]} for size in (-1, "1", 1.0, True)),
        *({"version": 1, "files": [{**ENTRY, "sha256": sha}]} for sha in ("", "x" * 64, "0" * 63)),
    ],
    ids=str,
)
def test_garbage_is_no_manifest(value: object) -> None:
    with pytest.raises(CorruptObjectError, match="here"):
        decode(json.dumps(value).encode(), "here")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"version":1,"files":[{"key"'])
def test_torn_json_is_no_manifest(data: bytes) -> None:
    with pytest.raises(CorruptObjectError, match="not JSON"):
        decode(data, "here")


def test_a_newer_manifest_asks_for_an_update() -> None:
    with pytest.raises(StoragePermanentError, match="newer"):
        decode(b'{"version":2,"files":[]}', "here")


def test_for_each_keeps_the_order() -> None:
    assert for_each(range(50), lambda n: n * n) == [n * n for n in range(50)]


def test_for_each_raises_the_error_and_leaves_the_rest() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        raise UsageError(f"no {number}")

    with pytest.raises(UsageError):
        for_each(range(10_000), work)
    assert len(begun) < 10_000


def test_importing_the_package_leaves_boto3_alone() -> None:
    code = "import sys, tunesmith.artifacts, tunesmith.artifacts.s3.store; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
