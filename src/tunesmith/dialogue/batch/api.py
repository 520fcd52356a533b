"""The batch interface of OpenAI's API and those who copy it: files, batches and their results, patiently.

What is made (a file, a batch) is looked for before it is made again, since an answer that was lost may have
made it: a file by its name, a batch by the tag in its metadata or by its file. A server in trouble is waited
for; what it refuses for good raises EndpointError. Does not depend on dialogues, journal and money.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Protocol

from tunesmith.dialogue.answers import read
from tunesmith.dialogue.calls import PAUSES, quota_error
from tunesmith.dialogue.replies import Answer, ChatRequest, Denied, Lost, Refused, ServerReply, parsed
from tunesmith.errors import EndpointError, TemporaryError, TunesmithError
from tunesmith.names import Reason

TAG = "tunesmith"
"""The field of a batch's metadata that holds its tag."""
URL = "/v1/chat/completions"
FILE_SECONDS = 1800.0
"""How long a file may take on its way."""
SETTLE_SECONDS = 5.0
"""A request that was cut off may still be dealt with so much later."""
MOST_FAILURES = 60
"""Failures in a row of one request after which the server is unavailable: about half an hour."""
TOLD = 4
"""Failures in a row that are told; fewer are over in some seconds."""
REFUSALS = 3
"""Refusals in a row of one request that are believed, of a server that has never answered otherwise."""
LASTING = 25
"""The same where it has, or where it has given the id itself: about ten minutes."""
_NO_SUCH = (404, 405, 501)
_PAGE, _MOST_PAGES = 100, 1000
_NO_REQUEST = ChatRequest({}, 0, 0, 0)

BatchObject = Mapping[str, Any]
"""An object that the server describes; it has an `id`."""


class BatchServer(Protocol):
    """What sends a request (`endpoint.Endpoint` is one)."""

    name: str

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None = None,
        take: Callable[[str], None] | None = None,
        **content: Any,
    ) -> ServerReply:
        """Return the raw reply."""
        ...


class FileTooLargeError(Exception):
    """The server takes no file of this size."""


class BatchApi:
    """The batch interface of one server. `tell` hears what it is waiting for, None if it answers."""

    def __init__(
        self, server: BatchServer, tell: Callable[[TunesmithError | None], None] = lambda error: None
    ) -> None:
        self._server, self._tell = server, tell
        self._worked = False

    async def upload(self, tag: str, content: bytes, *, new: bool) -> str:
        """Return the id of the file of this tag. `new`: nobody has sent it before."""
        name = f"{tag}.jsonl"

        async def send() -> ServerReply:
            part = {"file": (name, content, "application/jsonl")}
            return await self._server.exchange(
                "POST", "files", timeout=FILE_SECONDS, data={"purpose": "batch"}, files=part
            )

        found = await self._make(
            "files", send, lambda each: each.get("filename") == name, new, {"purpose": "batch"}
        )
        return str(found["id"])

    async def create(self, tag: str, file: str, metadata: Mapping[str, str], *, new: bool) -> BatchObject:
        """Return the batch of this tag, over an uploaded file. `new`: nobody has asked for it before."""
        body = {
            "input_file_id": file,
            "endpoint": URL,
            "completion_window": "24h",
            "metadata": {**metadata, TAG: tag},
        }
        return await self._make(
            "batches",
            lambda: self._server.exchange("POST", "batches", json=body),
            _is_batch(tag, file),
            new,
        )

    async def state(self, batch: str) -> BatchObject | None:
        """Return what the server says of a batch; None if it knows none."""
        return await self._get(f"batches/{batch}", LASTING)

    async def read_lines(self, file: str, take: Callable[[str], None]) -> None:
        """Hand over the lines of a file; the same ones come again where a connection broke. None: no file."""
        await self._get(f"files/{file}/content", LASTING, take=take, timeout=FILE_SECONDS)

    async def cancel(self, batch: str) -> None:
        """Ask that nothing more is done for a batch. Whether it was heard, its state says."""
        await self._server.exchange("POST", f"batches/{batch}/cancel")

    async def _make(
        self,
        path: str,
        send: Callable[[], Awaitable[ServerReply]],
        is_it: Callable[[BatchObject], bool],
        new: bool,
        query: Mapping[str, str] | None = None,
    ) -> BatchObject:
        """Return what `send` makes, unless it is there."""
        for failures in count(1):
            found = None if new else await self._find_twice(path, is_it, query or {})
            if found is None:
                reply = await send()
                found = _object(reply)
            if found is not None and "id" in found:
                self._answered()
                return found
            new = await self._pause(reply, f"POST {path}", failures)
        raise AssertionError

    async def _find_twice(
        self, path: str, is_it: Callable[[BatchObject], bool], query: Mapping[str, str]
    ) -> BatchObject | None:
        found = await self._find(path, is_it, query)
        if found is None:
            await asyncio.sleep(SETTLE_SECONDS)
            found = await self._find(path, is_it, query)
        return found

    async def _find(
        self, path: str, is_it: Callable[[BatchObject], bool], query: Mapping[str, str]
    ) -> BatchObject | None:
        """Return the first of a list, page by page; None too where the server keeps no list."""
        after: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            page = await self._get(path, REFUSALS, params={**query, **after, "limit": _PAGE})
            listed = page.get("data") if page else None
            listed = [each for each in listed if _is_named(each)] if isinstance(listed, list) else []
            found = next((each for each in listed if is_it(each)), None)
            if found is not None or not listed or not (page and page.get("has_more")):
                return found
            if after.get("after") == listed[-1]["id"]:
                return None
            after = {"after": listed[-1]["id"]}
        return None

    async def _get(self, path: str, believed: int, **options: Any) -> BatchObject | None:
        """Return the answer; None if there is no such thing, as is `believed` after so many refusals."""
        for failures in count(1):
            reply = await self._server.exchange("GET", path, **options)
            good = 200 <= reply.status < 300 and not reply.trouble
            found = {} if good and "take" in options else _object(reply)
            if found is not None:
                self._answered()
                return found
            if reply.status in _NO_SUCH and failures >= believed:
                return None
            await self._pause(reply, f"GET {path}", failures, believed)
        raise AssertionError

    def _answered(self) -> None:
        self._worked = True
        self._tell(None)

    async def _pause(self, reply: ServerReply, what: str, failures: int, believed: int = REFUSALS) -> bool:
        """Wait before asking again; whether the request was certainly not dealt with.

        Raises what ends the job.
        """
        after, why, undone = None, "The response is not that of a batch API.", False
        if reply.status == 413:
            raise FileTooLargeError
        if not 200 <= reply.status < 300:
            outcome = read(reply, _NO_REQUEST, self._server.name)
            undone = not isinstance(outcome, Lost)
            if isinstance(outcome, Refused | Lost):
                after = outcome.retry_after
            if isinstance(outcome, Refused) and outcome.quota:
                raise quota_error(self._server.name, outcome)
            if isinstance(outcome, Denied) and failures >= (LASTING if self._worked else believed):
                raise self._refused(reply, what, outcome)
            why = why if isinstance(outcome, Answer) else outcome.why
        why = f"{what}: {why}"
        trouble = TemporaryError(
            f"endpoints.{self._server.name}.openai.batch: {why}", reason=Reason.ENDPOINT_UNAVAILABLE
        )
        if failures >= MOST_FAILURES:
            raise trouble
        if failures >= TOLD:
            self._tell(trouble)
        await asyncio.sleep(after or PAUSES[min(failures, len(PAUSES)) - 1])
        return undone

    def _refused(self, reply: ServerReply, what: str, denied: Denied) -> EndpointError:
        if reply.status not in _NO_SUCH:
            return EndpointError(denied.complaint)
        return EndpointError(
            f"endpoints.{self._server.name}.openai.batch: the server responds {reply.status} to {what}: "
            "it has no batch API. Remove batch, or check openai.baseUrl."
        )


def _object(reply: ServerReply) -> BatchObject | None:
    """Return the JSON object of a good reply; None if it is none, or none of these."""
    if not 200 <= reply.status < 300 or reply.trouble:
        return None
    found = parsed(reply.text)
    return found if isinstance(found, dict) and (_is_named(found) or "data" in found) else None


def _is_named(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("id"), str) and bool(each["id"])


def _is_batch(tag: str, file: str) -> Callable[[BatchObject], bool]:
    """Whether a batch has the tag, or the file, which a server that keeps no metadata knows as well."""

    def is_it(each: BatchObject) -> bool:
        metadata = each.get("metadata")
        tagged = isinstance(metadata, dict) and metadata.get(TAG) == tag
        return tagged or bool(file and each.get("input_file_id") == file)

    return is_it
