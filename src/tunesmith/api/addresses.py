"""Field types for addresses: files and folders (S3 or local), models, outputs and web addresses.

Each has a check with a readable message, and a pattern and CEL rules by which the API server rejects the
same values.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from tunesmith.api.ruled import Ruled
from tunesmith.api.scalars import REVISION

MAX_URI = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What may not be percent-encoded in a path or a web address: control characters, slashes, and characters that
# need no encoding (letters, digits, '-', '.', '_', '~'). So addresses can be compared as written.
_ENCODED_PATTERN = "%([01][0-9a-fA-F]|2[d-fD-F]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[cCfF]|7[eEfF])"
_ENCODED = re.compile(_ENCODED_PATTERN)
_NO_ENCODED = "an encoded '.', '/', '\\', '-', '_', '~', letter, digit or control character"
_BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_S3 = re.compile(rf"{_BUCKET}(/.*)?")
_HUB_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]*"
_HUB = rf"hf://{_HUB_NAME}/{_HUB_NAME}"
HUB_DATASETS = "hf://datasets/"
_HUB_DATASET = rf"{HUB_DATASETS}({_HUB_NAME}/)?{_HUB_NAME}(@{REVISION})?"
_HOST = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?"
_URL = rf"^https?://{_HOST}([/?#][^\\\x00-\x20\x7f]*)?$"


def _check_path(uri: str) -> str:
    if _CONTROL.search(uri):
        raise ValueError("must not contain control characters")
    if len(uri) > MAX_URI:
        raise ValueError(f"must be at most {MAX_URI} characters")
    path = uri.split("://", 1)[-1]
    if uri.startswith("file:") and _ENCODED.search(uri):
        raise ValueError(f"must not contain {_NO_ENCODED}")
    if ".." in path.split("/"):
        raise ValueError("must not contain '..'")
    if "//" in path:
        raise ValueError("must not contain '//' after the scheme")
    return uri


def _check_storage_uri(uri: str) -> str:
    _check_path(uri)
    if uri.startswith("s3://"):
        if not _S3.fullmatch(uri):
            raise ValueError("is not an S3 address; write s3://bucket/key with a lower-case bucket name")
    elif uri.startswith("file://"):
        if not uri.startswith("file:///"):
            raise ValueError("needs an absolute path; write file:///path")
    elif not uri.startswith("/"):
        raise ValueError("is not an address; write s3://bucket/key or file:///path")
    if uri in ("/", "file:///"):
        raise ValueError("needs a path; write file:///path")
    return uri


def _check_model_uri(uri: str) -> str:
    if uri.startswith("hf://"):
        _check_path(uri)
        if uri.startswith(HUB_DATASETS):
            raise ValueError(_NO_MODEL)
        if not re.fullmatch(_HUB, uri):
            raise ValueError("is not a model on the hub; write hf://organisation/name")
        return uri
    try:
        return _check_storage_uri(uri)
    except ValueError as error:
        raise ValueError(str(error).replace("write s3", "write hf://organisation/name, s3")) from None


def _check_records_uri(uri: str) -> str:
    if uri.startswith("hf://"):
        _check_path(uri)
        if not re.fullmatch(_HUB_DATASET, uri, re.ASCII):
            raise ValueError(
                "is not a data set on the hub; write hf://datasets/organisation/name or "
                "hf://datasets/organisation/name@revision, and name files in dataFiles"
            )
        return uri
    try:
        return _check_storage_uri(uri)
    except ValueError as error:
        words = str(error).replace("write s3", "write hf://datasets/organisation/name, s3")
        raise ValueError(words) from None


def _check_output_uri(uri: str) -> str:
    _check_storage_uri(uri)
    if uri.startswith("s3://") and not uri.removeprefix("s3://").partition("/")[2]:
        raise ValueError("needs a folder below the bucket; write s3://bucket/folder")
    return uri


def _check_url(url: str) -> str:
    if len(url) > MAX_URI:
        raise ValueError(f"must be at most {MAX_URI} characters")
    if _CONTROL.search(url) or " " in url:
        raise ValueError("must not contain spaces or control characters")
    if re.match(r"https?://[^/?#]*@", url):
        raise ValueError("must not contain a user name or password; reference a Secret instead")
    if _ENCODED.search(url) or re.search(r"(^|/)[.][.](/|$)", url):
        raise ValueError(f"must not contain '..', nor {_NO_ENCODED}")
    if not re.match(_URL, url):
        raise ValueError("is not a web address; write https://host/path")
    return url


def _uri_schema(pattern: str, *more: dict[str, str]) -> WithJsonSchema:
    rules = [
        *more,
        {"rule": "!self.matches('(^|/)[.][.](/|$)')", "message": "must not contain '..'"},
        {
            "rule": "!self.matches('^([a-z0-9]+:/)?/.*//')",
            "message": "must not contain '//' after the scheme",
        },
        {"rule": "!self.matches('[[:cntrl:]]')", "message": "must not contain control characters"},
        {
            "rule": f"!self.startsWith('file:') || !self.matches('{_ENCODED_PATTERN}')",
            "message": f"must not contain {_NO_ENCODED}",
        },
    ]
    return WithJsonSchema(
        {
            "type": "string",
            "maxLength": MAX_URI,
            "pattern": f"^({pattern})$",
            "x-kubernetes-validations": rules,
        }
    )


_NO_MODEL = "is a data set on the hub, not a model; write hf://organisation/name"
_FILE = r"(file://)?/[^/].*"
_RULED = Ruled("uris")
StorageUri = Annotated[
    str, AfterValidator(_check_storage_uri), _uri_schema(rf"{_BUCKET}(/.*)?|{_FILE}"), _RULED
]
OutputUri = Annotated[
    str, AfterValidator(_check_output_uri), _uri_schema(rf"{_BUCKET}/[^/].*|{_FILE}"), _RULED
]
ModelUri = Annotated[
    str,
    AfterValidator(_check_model_uri),
    _uri_schema(
        rf"{_BUCKET}(/.*)?|{_FILE}|{_HUB}",
        {"rule": f"!self.startsWith('{HUB_DATASETS}')", "message": _NO_MODEL},
    ),
    _RULED,
]
RecordsUri = Annotated[
    str,
    AfterValidator(_check_records_uri),
    _uri_schema(rf"{_BUCKET}(/.*)?|{_FILE}|{_HUB_DATASET}"),
    _RULED,
]
Url = Annotated[
    str,
    AfterValidator(_check_url),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": MAX_URI,
            "pattern": _URL,
            "x-kubernetes-validations": [
                {
                    "rule": f"!self.matches('(^|/)[.][.](/|$)|{_ENCODED_PATTERN}')",
                    "message": f"must not contain '..', nor {_NO_ENCODED}",
                }
            ],
        }
    ),
    Ruled("endpoints"),
]


def inside(uri: str | None, folder: str) -> bool:
    """Return whether `uri` is `folder` or is inside it."""
    return uri is not None and (uri + "/").startswith(folder.rstrip("/") + "/")


def inside_cel(field: str, folder: str = "self.output.uri") -> str:
    """Return CEL for `inside`, for a field that is set (no conditional text: its size has no estimate)."""
    below = f"({field} + '/').startsWith"
    return f"({folder}.endsWith('/') ? {below}({folder}) : {below}({folder} + '/'))"
