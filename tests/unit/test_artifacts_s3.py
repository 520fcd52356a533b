"""What an S3 server's answers, and errors of any class on the way to it, mean: without a network."""

import errno
import http.client
import socket
import ssl
import xml.etree.ElementTree
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse
from tests.cases import each

from tunesmith.artifacts.local_files import explained as file_explained
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.s3.client import NORMAL_LIMITS, RetryLimits, connection
from tunesmith.artifacts.s3.errors import S3Target, check_no_redirect, explained
from tunesmith.artifacts.s3.reader import open_object
from tunesmith.artifacts.store import StorageOptions
from tunesmith.errors import (
    StoppedError,
    StoragePermanentError,
    StorageTemporaryError,
    TemporaryError,
    TunesmithError,
)
from tunesmith.names import Reason

TARGET = S3Target("bucket", "s3://bucket/key", "http://s3.example")


class _Body:
    def __init__(self, data):
        self._data = data

    def stream(self, *_, **__):
        yield self._data

    def read(self, *_):
        return self._data


def _redirected(monkeypatch, location, status=301, headers=(), body=b""):
    """A store behind a server that answers every request so."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    options = StorageOptions(f"http://s3-{abs(hash((location, status, body)))}.example")
    client = connection(options, NORMAL_LIMITS).client

    def answer(request, **_):
        there = {"Location": location} if location else {}
        return AWSResponse(request.url, status, {**there, **dict(headers)}, _Body(body))

    client.meta.events.register_first("before-send.s3", answer)
    return open_store("s3://bucket/folder", options)


OPERATIONS = {
    "put": lambda store, path: store.put("k", b"data"),
    "put where there is none": lambda store, path: store.put("k", b"data", if_absent=True),
    "read": lambda store, path: store.read("k"),
    "list": lambda store, path: list(store.list()),
    "exists": lambda store, path: store.exists("k"),
    "delete": lambda store, path: store.delete(["k"]),
    "put_file": lambda store, path: store.put_file("k", path),
    "get_file": lambda store, path: store.get_file("k", path.with_name("other")),
}


@each("status", [301, 302, 307, 308])
@each("operation", list(OPERATIONS.values()), ids=list(OPERATIONS))
def test_a_redirect_to_https_names_the_address_to_write(monkeypatch, tmp_path, operation, status):
    path = tmp_path / "file"
    path.write_bytes(b"data")
    store = _redirected(monkeypatch, "https://s3.example/bucket/folder/k?x=1", status)
    with pytest.raises(StoragePermanentError) as caught:
        operation(store, path)
    assert "AWS_ENDPOINT_URL to https://s3.example." in caught.value.message
    assert "\n" not in caught.value.message


def test_amazons_own_redirects_are_left_to_botocore():
    there = {"Location": "https://bucket.s3.eu-west-1.example/"}
    region = {**there, "X-Amz-Bucket-Region": "eu-west-1"}
    for status, headers, code in (
        (301, region, "301"),
        (307, there, "TemporaryRedirect"),
        (301, there, "PermanentRedirect"),
        (200, {}, ""),
        (404, there, "NoSuchKey"),
    ):
        answer = {"status_code": status, "headers": headers}
        check_no_redirect(answer, {"Error": {"Code": code}} if code else {}, "http://s3.example")


def test_a_redirect_without_end_is_one_sentence_too(monkeypatch):
    code = b"<Error><Code>PermanentRedirect</Code><Message>m</Message></Error>"
    store = _redirected(monkeypatch, "https://bucket.s3.example/", 301, {}, code)
    with pytest.raises(StoragePermanentError, match=r"storage\.region.*AWS_ENDPOINT_URL"):
        store.put("k", b"data")


OF_NO_BOTOCORE_CLASS = [
    KeyError("ETag"),
    AttributeError("no attribute"),
    TypeError("of None"),
    http.client.BadStatusLine("HTTP/0.9"),
    http.client.IncompleteRead(b""),
    xml.etree.ElementTree.ParseError("no element found"),
    ssl.SSLError("record layer failure"),
    ConnectionResetError(errno.ECONNRESET, "reset by peer"),
    TimeoutError("timed out"),
    socket.gaierror(-3, "Temporary failure in name resolution"),
]


@each("error", OF_NO_BOTOCORE_CLASS)
def test_an_error_of_any_class_is_one_sentence_that_names_the_object(error):
    with pytest.raises(StorageTemporaryError) as caught, explained("read", TARGET):
        raise error
    assert caught.value.message.startswith("Cannot read s3://bucket/key: ")
    assert "\n" not in caught.value.message


@each("error", [StoppedError("stop"), StoragePermanentError("denied"), StorageTemporaryError("away")])
def test_errors_of_ours_pass_as_they_are(error):
    with pytest.raises(TunesmithError) as caught, explained("read", TARGET):
        raise error
    assert caught.value is error


def test_a_full_disk_under_a_download_is_not_the_storages_fault():
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(TemporaryError) as caught,
        file_explained("write", Path("/scratch/x")),
        explained("read", TARGET),
    ):
        raise full
    assert caught.value.reason == Reason.DISK_FULL


@each("error", OF_NO_BOTOCORE_CLASS)
def test_a_stream_that_breaks_in_any_way_is_resumed(error):
    class Body:
        def __init__(self, error):
            self.error = error

        def read(self, wanted):
            if self.error:
                raise self.error
            return b"data"

        def close(self):
            pass

    class Client:
        def __init__(self, error):
            self.bodies = [Body(error), Body(None)]

        def get_object(self, **request):
            known = {"ETag": "e", "ContentLength": 4, "ContentRange": "bytes 0-3/4"}
            return {"Body": self.bodies.pop(0), **known}

    stream = open_object(Client(error), "key", TARGET, RetryLimits().resumes)
    assert stream.read() == b"data"
