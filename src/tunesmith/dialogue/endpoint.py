"""One request to an OpenAI-compatible server, and its raw reply.

The key is in the header of the connection's client and nowhere else: not in a request's value, a reply, a
log, an exception or a repr; if a server repeats it, it is struck out. Redirects are never followed.
Does not depend on what a reply means (`answers`), on limits and on money.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import httpx2

from tunesmith.api.dialogue import OpenAIEndpoint
from tunesmith.artifacts.opening import check_endpoint
from tunesmith.dialogue.answers import estimate_tokens
from tunesmith.dialogue.replies import ChatRequest, ServerReply
from tunesmith.dialogue.retry_after import kept_headers
from tunesmith.dialogue.server_words import TOO_LONG
from tunesmith.errors import EndpointError

log = logging.getLogger(__name__)
MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
LONGEST_BODY = 4 << 20
"""Bytes of a reply that are read."""
CONNECT_SECONDS = 15.0
KEEP_SECONDS = 15.0
"""How long an idle connection is kept; servers and what is before them close theirs after a minute or so."""
STRUCK = "[key]"
_JSON = "application/json"
# UnicodeError: a name that no name server can be asked for.
_NO_CONNECTION = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    UnicodeError,
)
_SHORTEST_SECRET = 8  # shorter ones ("EMPTY", "none") stand for no key, and are words that a reply may hold
_MESSAGE_TOKENS, _TEMPLATE_TOKENS = 16, 128  # what a chat template adds at most: a message, and once


class Endpoint:
    """The server behind `endpoints.<name>.openai`.

    `timeout` is in seconds, for a whole reply. `transport` is for tests. Raises EndpointError for a key
    that cannot be sent.
    """

    def __init__(
        self,
        name: str,
        spec: OpenAIEndpoint,
        key: str | None,
        *,
        timeout: float,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.name, self._spec, self._timeout = name, spec, timeout
        key = _usable_key(name, key)
        self._secret = key if len(key) >= _SHORTEST_SECRET else ""
        self._tokens_field: str = spec.max_tokens_field
        check_endpoint(spec.base_url)
        self._base = _address(name, spec.base_url)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._transport, self._tls = transport, httpx2.create_ssl_context()
        self._clients: list[httpx2.AsyncClient] = []
        self._free: list[httpx2.AsyncClient] = []

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, {self._spec.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for client in self._clients:
            await client.aclose()

    def request(
        self, messages: Sequence[Mapping[str, Any]], temperature: float, max_tokens: int, tools: str = ""
    ) -> ChatRequest:
        """Return what would be sent for these messages, as OpenAI has them; `tools` is a JSON list."""
        body: dict[str, Any] = {
            **self._spec.extra_body,
            "model": self._spec.model,
            "messages": [dict(message) for message in messages],
            **({"tools": json.loads(tools)} if tools else {}),
            **({"temperature": temperature} if self._spec.send_temperature else {}),
            MAX_TOKENS if self._tokens_field == "auto" else self._tokens_field: max_tokens,
            "stream": False,
        }
        return request_of(body)

    async def send(self, request: ChatRequest) -> ServerReply:
        """Send it and read the reply. Never raises for what a server or a network does.

        If a server refuses max_tokens and names the other field, the request is retried at once with that
        field, which is used from then on.
        """
        body = self.body(request)
        reply = await self._send(body)
        return await self._send(self.body(request)) if self.learns(body, reply) else reply

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """Return the request's body with the field that the server wants, even if it was made before."""
        if self._spec.max_tokens_field == self._tokens_field:
            return request.body
        return {MAX_COMPLETION_TOKENS if k == MAX_TOKENS else k: v for k, v in request.body.items()}

    def learns(self, body: Mapping[str, Any], reply: ServerReply) -> bool:
        """Check that a reply to this body asks for the other field, which `body` uses from then on."""
        if self._spec.max_tokens_field != "auto" or MAX_TOKENS not in body or not wants_other_field(reply):
            return False
        if self._tokens_field == "auto":
            self._tokens_field = MAX_COMPLETION_TOKENS
            log.info("Endpoint %s requires %s.", self.name, MAX_COMPLETION_TOKENS)
        return True

    async def _send(self, body: Mapping[str, Any]) -> ServerReply:
        return await self.exchange(
            "POST", "chat/completions", content=_encode(body), headers={"Content-Type": _JSON}
        )

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None = None,
        take: Callable[[str], None] | None = None,
        **content: Any,
    ) -> ServerReply:
        """Send one request to a path below baseUrl; `content` is passed to the client's `build_request`.

        `timeout` is for the whole of it. `take` gets a good reply's lines as they come instead of the reply;
        one longer than a reply may be is left out. Never raises for what a server or a network does, but
        PermanentError for a path, which may hold a server's own word, that leads to what no rule allows.
        """
        began, timeout = time.monotonic(), timeout or self._timeout
        client = self._free.pop() if self._free else self._connect()
        try:
            async with asyncio.timeout(timeout):
                response = await client.send(
                    client.build_request(method, self._url(path), **content), stream=True
                )
                try:
                    if take is not None and response.is_success:
                        raw, whole = await _hand_over(response, lambda line: take(self._strike(line))), True
                    else:
                        raw, whole = await _read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            return self._none(f"No response within {timeout:g} seconds.", began, sent=True)
        except _NO_CONNECTION as error:
            return self._none(f"No connection: {_words(error)}", began, sent=False)
        except httpx2.HTTPError as error:
            return self._none(f"The connection broke: {_words(error)}", began, sent=True)
        finally:
            self._free.append(client)
        text = self._strike(raw.decode("utf-8", "replace"))
        headers = {name: self._strike(value) for name, value in kept_headers(response.headers).items()}
        trouble = "" if whole else f"The reply is longer than {LONGEST_BODY} bytes."
        return ServerReply(response.status_code, text, headers, time.monotonic() - began, trouble)

    def _url(self, path: str) -> httpx2.URL:
        url = self._base.copy_with(path=f"{self._base.path.rstrip('/')}/{path}")
        check_endpoint(str(url))  # a part of the path may be the server's own word
        return url

    def _connect(self) -> httpx2.AsyncClient:
        """Create a client for one request at a time: a shared one slows down with requests in progress."""
        client = httpx2.AsyncClient(
            headers=self._headers,
            timeout=httpx2.Timeout(None, connect=min(CONNECT_SECONDS, self._timeout)),
            limits=httpx2.Limits(max_connections=1, keepalive_expiry=KEEP_SECONDS),
            follow_redirects=False,
            transport=self._transport,
            verify=self._tls,
        )
        self._clients.append(client)
        return client

    def _none(self, why: str, began: float, sent: bool) -> ServerReply:
        return ServerReply(0, "", {}, time.monotonic() - began, self._strike(why), sent)

    def _strike(self, text: str) -> str:
        if not self._secret:
            return text
        return text.replace(self._secret, STRUCK).replace(json.dumps(self._secret)[1:-1], STRUCK)


def request_of(body: dict[str, Any]) -> ChatRequest:
    """Return the request that has this body, as `Endpoint.request` makes it."""
    messages = body["messages"]
    added = _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(messages)
    content = "".join(_text_of(message) for message in messages) + _text_of(body.get("tools") or "")
    # A token is made of at least one byte, and the body holds every byte of the prompt.
    most = len(_encode(body)) + added
    longest = int(body[MAX_TOKENS] if MAX_TOKENS in body else body[MAX_COMPLETION_TOKENS])
    return ChatRequest(body, longest, estimate_tokens(content) + 4 * len(messages), most)


def _text_of(value: Any) -> str:
    """Return what a message or a list of tools shows the model, for an estimate of its tokens."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("content"), str) and "tool_calls" not in value:
        return value["content"]  # type: ignore[no-any-return]
    return json.dumps(value, ensure_ascii=False)


def wants_other_field(reply: ServerReply) -> bool:
    """Return whether a server refuses max_tokens and asks for max_completion_tokens instead.

    Known good: the other field's name in a refusal that is about the request, and not about its length: vLLM
    names both fields where prompt and reply are too long together.
    """
    text = reply.text
    return reply.status in (400, 422) and MAX_COMPLETION_TOKENS in text and not TOO_LONG.search(text)


async def _read_body(response: httpx2.Response) -> tuple[bytes, bool]:
    """Return the body, and whether all of it."""
    raw = bytearray()
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > LONGEST_BODY:
            return bytes(raw[:LONGEST_BODY]), False
    return bytes(raw), True


async def _hand_over(response: httpx2.Response, take: Callable[[str], None]) -> bytes:
    """Hand each line over, and return nothing; what follows the last line end is a line too."""
    rest = bytearray()
    async for chunk in response.aiter_bytes():
        *lines, tail = chunk.split(b"\n")
        for line in lines:
            if len(rest) + len(line) <= LONGEST_BODY:
                take((rest + line).decode("utf-8", "replace"))
            rest.clear()
        rest += tail[: LONGEST_BODY + 1 - len(rest)]
    if len(rest) <= LONGEST_BODY:
        take(rest.decode("utf-8", "replace"))
    return b""


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _address(name: str, base: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base)
        if url.port is not None and not 0 < url.port < 65536:
            raise ValueError(f"there is no port {url.port}")
        return url
    except (httpx2.InvalidURL, ValueError) as error:
        raise EndpointError(f"endpoints.{name}.openai.baseUrl: {base} is not an address: {error}.") from None


def _usable_key(name: str, key: str | None) -> str:
    """Return the key without the line end that a Secret made from a file has."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EndpointError(
            f"endpoints.{name}.openai.apiKeySecretRef: the key has a space, a line break or a character that "
            "headers do not allow. Put only the key into the Secret."
        )
    return key
