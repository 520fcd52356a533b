"""A refusal of the storage is of the moment where the same has worked before."""

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from tests.cases import each

from tunesmith.artifacts.s3 import errors
from tunesmith.artifacts.s3.errors import S3Target, explained
from tunesmith.artifacts.s3.trust import LASTS, RefusalTrust
from tunesmith.errors import StoragePermanentError, StorageTemporaryError

DENIED = ClientError(
    {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject"
)
UNTRUSTED = SSLError(endpoint_url="https://s3", error="certificate verify failed: self-signed certificate")
PLAIN = SSLError(endpoint_url="https://s3", error="[SSL: WRONG_VERSION_NUMBER] wrong version number")
CUT = SSLError(endpoint_url="https://s3", error="EOF occurred in violation of protocol (_ssl.c:1000)")
PERMANENT, TEMPORARY = StoragePermanentError, StorageTemporaryError


@each(
    ("error", "history", "kind"),
    [
        (DENIED, "", PERMANENT),
        (DENIED, "worked", TEMPORARY),
        (DENIED, "worked elsewhere", PERMANENT),
        (DENIED, "worked denied", TEMPORARY),
        (DENIED, "worked denied long", PERMANENT),
        (DENIED, "worked denied long worked", TEMPORARY),
        (UNTRUSTED, "", PERMANENT),
        (UNTRUSTED, "worked", TEMPORARY),
        (UNTRUSTED, "worked denied long", PERMANENT),
        (PLAIN, "", PERMANENT),
        (CUT, "", TEMPORARY),
        (CUT, "worked denied long", TEMPORARY),
    ],
)
def test_what_has_worked_is_presumed_to_work_again(error, history, kind, monkeypatch):
    now = 0.0
    monkeypatch.setattr(errors, "_TRUST", RefusalTrust(lambda: now))
    target = S3Target("bucket", "s3://bucket/key", "https://s3")
    for step in history.replace("worked elsewhere", "elsewhere").split():
        if step == "worked":
            with explained("read", target):
                pass
        elif step == "elsewhere":
            with explained("write", target), explained("read", S3Target("b", "s3://b/key", "https://s3")):
                pass
        elif step == "denied":
            with pytest.raises(TEMPORARY), explained("read", target):
                raise DENIED
        else:
            now += LASTS
    with pytest.raises(kind), explained("read", target):
        raise error


@each(
    "error",
    [
        ReadTimeoutError(endpoint_url="https://s3"),
        ConnectTimeoutError(endpoint_url="https://s3"),
        ProxyConnectionError(proxy_url="https://proxy"),
    ],
)
def test_botocores_errors_that_are_also_oserrors_are_explained(error):
    with pytest.raises(TEMPORARY), explained("read", S3Target("bucket", "s3://bucket/key", "https://s3")):
        raise error
