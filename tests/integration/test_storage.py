"""Folders and a real S3 server keep the same promises, also when the network fails and processes die."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_proxy import Answer, Cut, DropHeader, Fault, FaultyProxy, Flip, Seen

from tunesmith.artifacts import (
    Entry,
    FileInfo,
    StorageOptions,
    Store,
    fetch_verified,
    find_files,
    get_tree,
    local_files,
    open_store,
    publish,
    publish_manifest,
    put_tree,
    read_manifest,
    unpublish,
)
from tunesmith.artifacts.location import S3Location
from tunesmith.artifacts.s3 import errors
from tunesmith.artifacts.s3.client import RetryLimits
from tunesmith.artifacts.s3.store import S3Store
from tunesmith.artifacts.s3.trust import RefusalTrust
from tunesmith.errors import (
    CorruptObjectError,
    OutputConflictError,
    StoragePermanentError,
    StorageTemporaryError,
    TemporaryError,
    UsageError,
)
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.names import Reason

BUCKET = "storage-tests"
QUICK = RetryLimits(attempts=3, connect_timeout=1, read_timeout=5, resumes=3)
BIG = random.Random(0).randbytes(40 << 20)  # three parts


@pytest.fixture
def cloud(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> EmbeddedS3:
    """The server, with its variables set and without pauses between retries."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    s3.create_bucket(BUCKET)
    return s3


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of its own for each test, where nothing is."""
    if request.param == "folder":
        return str(tmp_path / "storage" / "root")
    request.getfixturevalue("cloud")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/root"


@pytest.fixture
def store(uri: str) -> Store:
    return open_store(uri)


def keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix)]


def make_tree(folder: Path) -> dict[str, bytes]:
    files = {"a.txt": b"one", "sub/b.bin": b"two" * 1000, "sub/deep/empty": b"", ".hidden": b"h", "ü ö": b"u"}
    for key, data in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def tree_of(folder: Path) -> dict[str, bytes]:
    return {key: path.read_bytes() for key, path in local_files.walk_files(folder)}


# --- The same behaviour in both ---------------------------------------------------------------------------


def test_what_was_put_is_read(store: Store) -> None:
    assert store.put("a/b", b"data")
    assert store.put("a/b", b"data 2")
    assert store.read("a/b") == b"data 2"
    with store.open("a/b") as stream:
        assert (stream.read(3), stream.read()) == (b"dat", b"a 2")
    assert store.exists("a/b")
    assert store.size("a/b") == 6


def test_a_version_changes_with_the_bytes(store: Store) -> None:
    store.put("a", b"one")
    first = store.version("a")
    store.put("a", b"two")  # as long as before
    assert store.version("a") != first
    store.put("a", b"one")
    assert store.version("a") == first
    assert all(entry.version in ("", store.version(entry.key)) for entry in store.list())


def test_nothing_is_there_at_first(store: Store) -> None:
    assert keys(store) == []
    assert not store.exists("a")
    assert store.size("a/b") is None
    store.delete(["a", "b/c"])
    for read in (store.read, store.open, lambda key: store.get_file(key, Path("unused"))):
        with pytest.raises(StoragePermanentError, match="There is no"):
            read("a/b")
    assert not Path("unused").exists()


def test_keys_are_listed_in_code_point_order(store: Store) -> None:
    names = ["a/b", "a-b", "a.b", "A", "é", "z/y/x", "_h", ".h", "a b", "a%20b", "a+b", "日本", "z/y.z"]
    for name in names:
        store.put(name, name.encode())
    assert list(store.list()) == [Entry(name, len(name.encode())) for name in sorted(names)]
    assert [store.read(name).decode() for name in names] == names


def test_a_prefix_is_one_of_keys(store: Store) -> None:
    for name in ("checkpoint-1/x", "checkpoint-10/x", "checkpoint-2/y/z", "other"):
        store.put(name, b"")
    assert keys(store, "checkpoint-1") == ["checkpoint-1/x", "checkpoint-10/x"]
    assert keys(store, "checkpoint-1/") == ["checkpoint-1/x"]
    assert keys(store, "checkpoint-2/y") == ["checkpoint-2/y/z"]
    assert keys(store, "nothing/") == []


def test_more_keys_than_a_page_holds(store: Store) -> None:
    names = [f"n/{number:05d}" for number in range(1005)]
    threads = [
        threading.Thread(target=lambda part: [store.put(n, b"x") for n in part], args=(names[i::8],))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys(store) == names
    store.delete(names[1:])
    assert keys(store) == names[:1]


def test_a_folder_is_no_object(store: Store) -> None:
    store.put("a/b/c", b"x")
    assert not store.exists("a/b")
    with pytest.raises(StoragePermanentError):
        store.read("a/b")
    store.delete(["a/b"])
    assert keys(store) == ["a/b/c"]


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/../../x", "", "a\nb"])
def test_keys_that_leave_the_root_are_refused(store: Store, key: str) -> None:
    for use in (store.read, store.exists, lambda k: store.put(k, b""), lambda k: store.delete([k])):
        with pytest.raises(UsageError):
            use(key)


def test_two_stores_of_one_place_do_not_see_above_it(uri: str) -> None:
    open_store(uri).put("a", b"in")
    open_store(f"{uri}-more").put("b", b"beside")
    assert keys(open_store(uri)) == ["a"]
    assert keys(open_store(f"{uri}/")) == ["a"]
    assert keys(open_store(open_store(uri).uri)) == ["a"]


def test_files_go_in_and_out(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(BIG)
    sent: list[int] = []
    store.put_file("big", source, sent.append)
    store.get_file("big", target, sent.append)
    assert target.read_bytes() == BIG
    assert sum(sent) == 2 * len(BIG)
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    with store.open("big") as stream:
        assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == BIG


def test_a_local_file_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoragePermanentError, match=r"no file .*missing to read"):
        store.put_file("x", tmp_path / "missing")
    assert keys(store) == []


def test_if_absent_has_exactly_one_winner(store: Store) -> None:
    for round_number in range(3):
        start = threading.Barrier(8)
        results: list[tuple[bool, bytes]] = []

        def race(number: int, key: str, start: threading.Barrier, results: list[tuple[bool, bytes]]) -> None:
            data = b"writer %d" % number
            start.wait()
            results.append((store.put(key, data, if_absent=True), data))

        arguments = [(number, f"commit-{round_number}", start, results) for number in range(8)]
        threads = [threading.Thread(target=race, args=each) for each in arguments]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 8
        winners = [data for won, data in results if won]
        assert winners == [store.read(f"commit-{round_number}")]
    assert keys(store) == [f"commit-{number}" for number in range(3)]


# --- Finding files ----------------------------------------------------------------------------------------


def test_find_one_file_or_a_folder(uri: str) -> None:
    for key in ("data/b.jsonl", "data/a.jsonl", "data/_SUCCESS", "data/sub/.DS_Store", "data/sub/c.csv"):
        open_store(uri).put(key, key.encode())
    store, found = find_files(f"{uri}/data")
    assert [entry.key for entry in found] == ["a.jsonl", "b.jsonl", "sub/c.csv"]
    assert store.read("sub/c.csv") == b"data/sub/c.csv"
    store, found = find_files(f"{uri}/data/a.jsonl")
    assert found == [Entry("a.jsonl", 12)]
    assert store.read("a.jsonl") == b"data/a.jsonl"
    assert [entry.key for entry in find_files(f"{uri}/data/_SUCCESS")[1]] == ["_SUCCESS"]


def test_find_nothing(uri: str) -> None:
    with pytest.raises(StoragePermanentError, match=r"no file and no folder.*Check"):
        find_files(f"{uri}/nothing")
    open_store(uri).put("x/_a", b"")
    with pytest.raises(StoragePermanentError, match="beginning with"):
        find_files(f"{uri}/x")


# --- Trees and publishing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "out/final"])
def test_trees_go_there_and_back(store: Store, tmp_path: Path, prefix: str) -> None:
    files = make_tree(tmp_path / "in")
    sent = put_tree(store, tmp_path / "in", prefix)
    expected = [FileInfo(k, len(d), hashlib.sha256(d).hexdigest()) for k, d in sorted(files.items())]
    assert sent == expected
    get_tree(store, prefix, tmp_path / "back")
    assert tree_of(tmp_path / "back") == files
    with pytest.raises(StoragePermanentError, match="nothing at"):
        get_tree(store, "elsewhere", tmp_path / "no")


@pytest.mark.parametrize("prefix", ["", "out/final"])
def test_publish_and_fetch(store: Store, tmp_path: Path, prefix: str) -> None:
    files = make_tree(tmp_path / "in")
    assert read_manifest(store, prefix) is None
    digest = publish(store, prefix, tmp_path / "in", extra={"step": 3})
    assert publish(store, prefix, tmp_path / "in", extra={"step": 3}) == digest
    manifest = fetch_verified(store, prefix, tmp_path / "out")
    assert manifest == read_manifest(store, prefix)
    assert (manifest.digest, manifest.extra) == (digest, {"step": 3})
    assert tree_of(tmp_path / "out") == files
    assert fetch_verified(store, prefix, tmp_path / "out") == manifest


def test_other_content_is_a_conflict_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    publish(store, "out", tmp_path / "in")
    (tmp_path / "in" / "a.txt").write_bytes(b"changed")
    with pytest.raises(OutputConflictError, match="out has the finished result of something else"):
        publish(store, "out", tmp_path / "in")
    with pytest.raises(OutputConflictError):
        publish_manifest(store, "out", [], {})
    fetch_verified(store, "out", tmp_path / "out")
    assert tree_of(tmp_path / "out") == files


def test_a_manifest_json_of_ones_own_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match=r"manifest\.json is in the way"):
        publish(store, "", tmp_path / "in")


def test_fetch_needs_a_manifest(store: Store, tmp_path: Path) -> None:
    store.put("out/file", b"unfinished")
    with pytest.raises(StoragePermanentError, match="no finished result"):
        fetch_verified(store, "out", tmp_path / "out")


def flip(store: Store) -> None:
    data = bytearray(store.read("out/sub/b.bin"))
    data[1500] ^= 1
    store.put("out/sub/b.bin", bytes(data))


DAMAGES = {
    "flipped byte": flip,
    "shorter": lambda store: store.put("out/sub/b.bin", b"two" * 999),
    "longer": lambda store: store.put("out/sub/b.bin", b"two" * 1001),
    "missing": lambda store: store.delete(["out/sub/b.bin"]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_and_nothing_lands(
    store: Store, tmp_path: Path, damage: Callable[[Store], object]
) -> None:
    make_tree(tmp_path / "in")
    publish(store, "out", tmp_path / "in")
    damage(store)
    with pytest.raises(CorruptObjectError, match=r"out/sub/b\.bin"):
        fetch_verified(store, "out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("in", "storage")] == []


def test_a_garbage_manifest_is_corrupt(store: Store) -> None:
    store.put("out/manifest.json", b'{"version":1,"fil')
    with pytest.raises(CorruptObjectError, match=r"out/manifest\.json is not a manifest"):
        read_manifest(store, "out")


def test_fetch_into_a_folder_of_other_things(store: Store, tmp_path: Path) -> None:
    make_tree(tmp_path / "in")
    publish(store, "out", tmp_path / "in")
    (tmp_path / "out").mkdir()
    fetch_verified(store, "out", tmp_path / "out")  # an empty one is fine
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(OutputConflictError):
        fetch_verified(store, "out", tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "precious"


def test_unpublish_removes_the_manifest_first(store: Store, tmp_path: Path) -> None:
    make_tree(tmp_path / "in")
    publish(store, "checkpoint-1", tmp_path / "in")
    publish(store, "checkpoint-10", tmp_path / "in")
    deleted: list[str] = []
    real = store.delete

    def delete(keys: Iterable[str]) -> None:
        for key in keys:
            deleted.append(key)
            real([key])

    store.delete = delete  # type: ignore[method-assign]
    unpublish(store, "checkpoint-1")
    assert deleted[0] == "checkpoint-1/manifest.json"
    assert keys(store, "checkpoint-1/") == []
    assert read_manifest(store, "checkpoint-10") is not None


PUBLISH_AND_DIE = """
import os, signal, sys
from pathlib import Path
from tunesmith.artifacts import open_store, publish
import tunesmith.artifacts
sys.modules["tunesmith.artifacts.publish"].publish_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
publish(open_store(sys.argv[1]), "out", Path(sys.argv[2]))
"""


def test_killed_before_the_manifest_nothing_looks_finished(uri: str, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    died = subprocess.run([sys.executable, "-c", PUBLISH_AND_DIE, uri, tmp_path / "in"], check=False)
    assert died.returncode == -signal.SIGKILL
    store = open_store(uri)
    assert keys(store) == [f"out/{key}" for key in sorted(files)]
    assert read_manifest(store, "out") is None
    publish(store, "out", tmp_path / "in")
    fetch_verified(store, "out", tmp_path / "out")
    assert tree_of(tmp_path / "out") == files


# --- Folders only -----------------------------------------------------------------------------------------


def test_links_do_not_lead_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("secret")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    store = open_store(str(tmp_path / "root"))
    uses: list[Callable[[], object]] = [
        lambda: store.read("link/x"),
        lambda: store.put("link/y", b""),
        lambda: store.delete(["link/x"]),
    ]
    for use in uses:
        with pytest.raises(StoragePermanentError, match="symbolic link"):
            use()
    assert keys(store) == []
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["x"]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    store = open_store(str(tmp_path / "root"))
    with pytest.raises(TemporaryError, match=r"disk is full.*root") as caught:
        store.put("x", b"data")
    assert caught.value.reason is Reason.DISK_FULL
    assert list((tmp_path / "root").iterdir()) == []


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a/done", b"")
    temp = local_files.temp_sibling(tmp_path / "a" / "x")
    temp.write_text("half")
    temp.with_name(temp.name + ".dir").mkdir()
    (temp.with_name(temp.name + ".dir") / "file").write_text("half")
    assert keys(store) == ["a/done"]


def test_without_hard_links_a_file_is_still_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "link", no_links)
    store = open_store(str(tmp_path))
    assert store.put("x", b"1", if_absent=True)
    assert not store.put("x", b"2", if_absent=True)
    assert store.read("x") == b"1"


# --- S3 that fails ----------------------------------------------------------------------------------------

OBJECT = random.Random(1).randbytes(300_000)


def quick_store(endpoint: str | None = None, prefix: str = "", bucket: str = BUCKET) -> S3Store:
    return S3Store(S3Location(bucket, prefix), StorageOptions(endpoint_url=endpoint), QUICK)


@pytest.fixture
def proxied(cloud: EmbeddedS3) -> Iterator[tuple[S3Store, FaultyProxy]]:
    """A store that holds `object`, behind a proxy whose plan a test may replace."""
    prefix = uuid.uuid4().hex
    quick_store(prefix=prefix).put("object", OBJECT)
    with FaultyProxy(cloud.endpoint_url, lambda _: None) as proxy:
        yield quick_store(proxy.url, prefix), proxy


def first(count: int, fault: Fault, method: str = "GET") -> Callable[[Seen], Fault | None]:
    """Let the first `count` requests of a method fail."""
    left = [count]

    def plan(seen: Seen) -> Fault | None:
        if seen.method != method or left[0] == 0:
            return None
        left[0] -= 1
        return fault

    return plan


PASSING = {
    "500": Answer(500, "InternalError"),
    "503 SlowDown": Answer(503, "SlowDown"),
    "reset": Cut(100_000, reset=True),
    "truncated": Cut(100_000, reset=False),
    "cut at once": Cut(0, reset=False),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_passing_faults_are_not_noticed(
    proxied: tuple[S3Store, FaultyProxy], fault: Fault, tmp_path: Path
) -> None:
    store, proxy = proxied
    proxy.plan = first(2, fault)
    assert store.read("object") == OBJECT
    proxy.plan = first(2, fault)
    store.get_file("object", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OBJECT


def test_a_broken_stream_is_resumed_where_it_broke(proxied: tuple[S3Store, FaultyProxy]) -> None:
    store, proxy = proxied
    proxy.plan = first(1, Cut(100_000, reset=False))
    store.read("object")
    resumed = proxy.seen[-1].headers
    start = int(resumed["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 100_000
    assert resumed["if-match"].startswith('"')


LASTING = {
    "500": (Answer(500, "InternalError"), StorageTemporaryError, "failed repeatedly .*500"),
    "503 SlowDown": (Answer(503, "SlowDown"), StorageTemporaryError, "SlowDown"),
    "truncated": (Cut(0, reset=False), CorruptObjectError, "ends after 0 of 300000"),
    "403": (Answer(403, "AccessDenied"), StoragePermanentError, "access denied.*AWS_ACCESS_KEY_ID"),
    "expired": (Answer(400, "ExpiredToken"), StoragePermanentError, "expired.*Renew"),
    "clock": (Answer(403, "RequestTimeTooSkewed"), StoragePermanentError, "Set the clock"),
    "region": (Answer(301, "PermanentRedirect"), StoragePermanentError, "another region"),
    "other": (Answer(400, "NotKnown"), StoragePermanentError, "refused .*400, NotKnown"),
}


@pytest.mark.parametrize(("fault", "kind", "message"), LASTING.values(), ids=LASTING)
def test_lasting_faults_say_what_is_wrong(
    proxied: tuple[S3Store, FaultyProxy], fault: Fault, kind: type[Exception], message: str
) -> None:
    store, proxy = proxied
    proxy.plan = lambda seen: fault if seen.method == "GET" else None
    with pytest.raises(kind, match=message) as caught:
        store.read("object")
    assert "object" in str(caught.value)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(caught.value)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "truncated"])
def test_a_download_that_never_completes_leaves_no_file(
    proxied: tuple[S3Store, FaultyProxy], tmp_path: Path, reset: bool
) -> None:
    store, proxy = proxied
    proxy.plan = lambda seen: Cut(1000, reset=reset) if seen.method == "GET" else None
    with pytest.raises(TemporaryError):
        store.get_file("object", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_object_replaced_while_it_is_read(proxied: tuple[S3Store, FaultyProxy]) -> None:
    store, proxy = proxied
    proxy.plan = first(1, Cut(100_000, reset=False))
    with store.open("object") as stream:
        stream.read(10)
        store.put("object", OBJECT[::-1])
        with pytest.raises(CorruptObjectError, match="changed while"):
            stream.read()


def test_a_server_that_ignores_ranges(proxied: tuple[S3Store, FaultyProxy]) -> None:
    store, proxy = proxied
    cut = first(1, Cut(100_000, reset=False))
    proxy.plan = lambda seen: cut(seen) or (DropHeader("range") if "range" in seen.headers else None)
    with pytest.raises(CorruptObjectError, match="without a range"):
        store.read("object")


def test_a_bit_flipped_on_the_way_is_found(proxied: tuple[S3Store, FaultyProxy], tmp_path: Path) -> None:
    store, proxy = proxied
    make_tree(tmp_path / "in")
    publish(store, "out", tmp_path / "in")
    proxy.plan = lambda seen: Flip(7) if seen.method == "GET" and "b.bin" in seen.path else None
    with pytest.raises(CorruptObjectError, match=r"b\.bin differs from the SHA-256"):
        fetch_verified(store, "out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [1000, len(BIG)], ids=["small", "multipart"])
def test_uploads_survive_failing_answers(
    proxied: tuple[S3Store, FaultyProxy], tmp_path: Path, size: int
) -> None:
    store, proxy = proxied
    proxy.plan = first(2, Answer(500, "InternalError", forward=True), "PUT")
    (tmp_path / "file").write_bytes(BIG[:size])
    store.put_file("copy", tmp_path / "file")
    assert store.read("copy") == BIG[:size]


@pytest.mark.parametrize("first_wins", [True, False], ids=["own write", "another's"])
def test_a_refusal_after_a_lost_answer(proxied: tuple[S3Store, FaultyProxy], first_wins: bool) -> None:
    store, proxy = proxied
    assert store.put("warm up", b"", if_absent=True)  # the server is tried out once
    if not first_wins:
        store.put("commit", b"another's")
    proxy.plan = first(1, Answer(500, "InternalError", forward=True), "PUT")
    assert store.put("commit", b"mine", if_absent=True) is first_wins
    assert store.read("commit") == (b"mine" if first_wins else b"another's")


def test_a_server_without_conditional_writes(
    proxied: tuple[S3Store, FaultyProxy], caplog: pytest.LogCaptureFixture
) -> None:
    store, proxy = proxied
    proxy.plan = lambda seen: DropHeader("if-none-match")
    assert store.put("commit", b"1", if_absent=True)
    assert not store.put("commit", b"2", if_absent=True)
    assert store.read("commit") == b"1"
    assert [record.message for record in caplog.records if "ignores If-None-Match" in record.message]
    assert keys(store) == ["commit", "object"]


def test_a_missing_bucket_is_named(cloud: EmbeddedS3, tmp_path: Path) -> None:
    store = quick_store(bucket="no-such-bucket")
    (tmp_path / "file").write_bytes(b"x")
    uses: list[Callable[[], object]] = [
        lambda: list(store.list()),
        lambda: store.read("x"),
        lambda: store.exists("x"),
        lambda: store.put("x", b""),
        lambda: store.put("x", b"", if_absent=True),
        lambda: store.put_file("x", tmp_path / "file"),
        lambda: store.get_file("x", tmp_path / "new"),
        lambda: store.delete(["x"]),
        lambda: find_files("s3://no-such-bucket/x"),
    ]
    for use in uses:
        with pytest.raises(StoragePermanentError, match=r"no bucket no-such-bucket .*aws s3 mb"):
            use()


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials(cloud: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "WRONG-VALUE-0123456789")
    monkeypatch.setattr(errors, "_TRUST", RefusalTrust())  # of a process for which nothing has worked yet
    for use in (quick_store().read, quick_store().exists, lambda key: quick_store().put(key, b"")):
        with pytest.raises(
            StoragePermanentError, match=r"credentials.* come from AWS_ACCESS_KEY_ID"
        ) as caught:
            use("x")
        assert "WRONG-VALUE" not in str(caught.value)
        assert cloud.environment()["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_no_credentials(cloud: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoragePermanentError, match=r"no complete credentials. Set AWS_ACCESS_KEY_ID"):
        quick_store().read("x")


def test_an_unreachable_server_is_named(cloud: EmbeddedS3) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(StorageTemporaryError, match=f"no response from {url}.*AWS_ENDPOINT_URL"):
            quick_store(url).read("x")


def test_a_full_disk_while_downloading(
    proxied: tuple[S3Store, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("s3transfer.download.IOWriteTask._main", full)
    with pytest.raises(TemporaryError, match="disk is full") as caught:
        proxied[0].get_file("object", tmp_path / "file")
    assert caught.value.reason is Reason.DISK_FULL
    assert list(tmp_path.iterdir()) == []


# --- The embedded server ----------------------------------------------------------------------------------

START_AND_WAIT = """
import os, sys, time
from pathlib import Path
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.artifacts import open_store
server = EmbeddedS3(Path(sys.argv[1])).start()
os.environ.update(server.environment())
server.create_bucket("kept")
for number in range(20):
    open_store("s3://kept").put(f"n/{number}", b"x" * 10_000 * number)
print(server._guard.pid, flush=True)
time.sleep(600)
"""


def children_of(process: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("victim", ["program", "guard", "server"])
def test_what_was_acknowledged_survives_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, tmp_path / "s3"], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    guard = int(program.stdout.readline())
    (server,) = children_of(guard)
    os.kill({"program": program.pid, "guard": guard, "server": server}[victim], signal.SIGKILL)
    if victim != "program":
        wait_for_end(server)  # the guard's death alone must end it
        program.kill()
    program.wait()
    program.stdout.close()
    with EmbeddedS3(tmp_path / "s3") as again:  # waits for what is left of the old one
        assert not Path(f"/proc/{server}").exists()
        for name, value in again.environment().items():
            monkeypatch.setenv(name, value)
        store = open_store("s3://kept")
        sizes = {entry.key: entry.size for entry in store.list()}
        assert sizes == {f"n/{number}": 10_000 * number for number in range(20)}
        assert all(store.read(key) == b"x" * size for key, size in sizes.items())


def test_credentials_are_private_and_kept(s3: EmbeddedS3) -> None:
    folder = s3.log_path.parent
    assert stat.S_IMODE((folder / "s3.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert s3.environment()["AWS_SECRET_ACCESS_KEY"] in (folder / "s3.json").read_text()
    assert s3.environment()["AWS_SECRET_ACCESS_KEY"] not in s3.log_path.read_text()


def test_a_folder_serves_one_at_a_time(s3: EmbeddedS3) -> None:
    with pytest.raises(StorageTemporaryError, match=f"in use by the embedded S3 of process {os.getpid()}"):
        EmbeddedS3(s3.log_path.parent).start()


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.local.embedded_s3.weed", lambda: "/bin/false")
    with pytest.raises(StorageTemporaryError, match=r"exited at its start\. Its log is .*server\.log"):
        EmbeddedS3(tmp_path / "s3").start()


def test_a_taken_port_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.local import embedded_s3, weed

    choose = embedded_s3.free_ports
    takers: list[socket.socket] = []

    def too_late(wanted: dict[str, int]) -> dict[str, int]:
        ports = choose(wanted)
        if not takers:
            takers.append(weed._bound(ports["filer.port.grpc"]))
            takers[0].listen()
        return ports

    monkeypatch.setattr(embedded_s3, "free_ports", too_late)
    with EmbeddedS3(tmp_path / "s3") as server:
        server.create_bucket("bucket")
    takers[0].close()


def test_a_second_start_has_the_same_address_and_keys(tmp_path: Path) -> None:
    environments = []
    for _ in range(2):
        with EmbeddedS3(tmp_path / "s3") as server:
            environments.append(server.environment())
    assert environments[0] == environments[1]


def test_a_bucket_name_that_cannot_be(s3: EmbeddedS3) -> None:
    with pytest.raises(UsageError, match="cannot create the bucket 'X'"):
        s3.create_bucket("X")


PAGE = {"Origin": "http://page.example"}
ASKED = [
    ("GET", "/buckets/private/key.txt"),
    ("GET", "/buckets/private/"),
    ("GET", "/private/key.txt"),
    ("GET", "/private"),
    ("PUT", "/buckets/private/other.txt"),
    ("PUT", "/private/other.txt"),
    ("POST", "/buckets/private/"),
    ("DELETE", "/buckets/private/key.txt"),
    ("GET", "/dir/assign"),
    ("GET", "/dir/lookup?fileId=1,01&read=yes"),
    ("GET", "/vol/status?pretty=y"),
]


@pytest.mark.parametrize("headers", [PAGE, {}], ids=["a page", "a program"])
def test_no_port_of_the_embedded_server_gives_or_takes_anything_without_credentials(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with EmbeddedS3(tmp_path / "s3") as server:
        server.create_bucket("private")
        client = server._client(read_timeout=10, attempts=3)
        client.put_object(Bucket="private", Key="key.txt", Body=b"for me alone")
        ports = listening(tmp_path / "s3")
        assert len(ports) >= 10
        answered = {
            f"{method} {port}{path}": found
            for port in ports
            for method, path in ASKED
            if (found := answer_of(port, method, path, headers)) is not None and found[0] < 400
        }
        assert answered == {}
        keys = [each["Key"] for each in client.list_objects_v2(Bucket="private")["Contents"]]
        assert keys == ["key.txt"]


def test_no_part_of_the_embedded_server_speaks_grpc_with_a_stranger(s3: EmbeddedS3) -> None:
    ports = json.loads((s3.log_path.parent / "ports.json").read_text())
    inner = {name: port for name, port in ports.items() if name.endswith(".grpc")}
    assert len(inner) == 5
    heard = {name: (grpc_answer(port), grpc_answer(port, tls=True)) for name, port in inner.items()}
    assert heard == dict.fromkeys(inner, (b"", b""))
    assert stat.S_IMODE((s3.log_path.parent / "grpc.key").stat().st_mode) == 0o600


def grpc_answer(port: int, tls: bool = False) -> bytes:
    """What a server says to the beginning of HTTP/2, which gRPC is made of, without a certificate."""
    trusting = ssl._create_unverified_context()
    trusting.set_alpn_protocols(["h2"])
    settings = b"\0\0\0\4\0\0\0\0\0"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            connection = trusting.wrap_socket(plain) if tls else plain
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
            return connection.recv(100)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_without_openssl_the_embedded_server_says_what_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with EmbeddedS3(tmp_path / "s3") as server:
        server.create_bucket("bucket")
    assert "programs of other users on this machine can reach" in caplog.text


def listening(folder: Path) -> list[int]:
    return sorted(json.loads((folder / "ports.json").read_text()).values())


def answer_of(port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes] | None:
    """Status and body; None from a port that does not speak HTTP/1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, b"z" if method in ("PUT", "POST") else None, headers)
        reply = connection.getresponse()
        return reply.status, reply.read(200)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
