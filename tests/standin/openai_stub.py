"""A stand-in for a server that speaks OpenAI's chat API, for tests and benches of what asks it.

    python -m tests.standin.openai_stub --port 0 --rpm 1000 --latency 0.4 --error 0.01

prints its address, to be used as `baseUrl`. The options are the fields of `openai_rules.Settings`, which says
what they mean. Replies are a function of model, messages, max_tokens and --seed: two runs give equal texts.

    POST /v1/chat/completions
    /v1/files, /v1/batches as far as a client of the batch interface needs them
    GET  /stats    counts: accepted, refused, by kind, highest parallel, by second, tokens, paid_twice
    GET  /calls    {hash of a request: how often it was let in}

In a test, in a thread: `with Stub(Settings(rpm=1000)) as stub: … stub.url … stub.stats()`, or as a process:
`with process("--rpm", "1000") as url`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from tests.standin.openai_batches import CUT, LOST, Batches
from tests.standin.openai_rules import Response, Rules, Settings

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {
    "rpm": int,
    "tpm": int,
    "parallel": int,
    "quota": int,
    "retry_seconds": float,
    "storm_after": float,
}


class Server:
    """The routes around `Rules`."""

    def __init__(self, settings: Settings) -> None:
        self.rules = Rules(settings)
        self.batches = Batches(self.rules)
        self.closing = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=256 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files", self._list_files)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list_batches)
        app.router.add_get("/v1/batches/{id}", self._state)
        app.router.add_post("/v1/batches/{id}/cancel", self._cancel)
        app.router.add_get("/stats", self._stats)
        app.router.add_get("/calls", self._calls)
        return app

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.rules.stats() | {"batch": self.batches.stats()})

    async def _calls(self, request: web.Request) -> web.Response:
        return web.json_response(dict(self.rules.calls))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        assert form["purpose"] == "batch"
        told = self.batches.upload(file.filename, file.file.read())
        await asyncio.sleep(self.rules.settings.batch_answer_seconds)
        return self._told(request, *told)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        told = self.batches.create(await request.json(), time.time())
        await asyncio.sleep(self.rules.settings.batch_answer_seconds)
        return self._told(request, *told)

    async def _list_files(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.batches.list_files(*_page(request)))

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.batches.list_batches(*_page(request)))

    async def _state(self, request: web.Request) -> web.StreamResponse:
        return self._told(request, *self.batches.state(request.match_info["id"], time.time()))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        return self._told(request, *self.batches.cancel(request.match_info["id"]))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        status, content, mishap = self.batches.content(request.match_info["id"])
        if mishap == CUT:
            await self._cut(request, content)
        return web.Response(status=status, body=content)

    def _told(self, request: web.Request, status: int, body: Any, mishap: str) -> web.Response:
        if mishap == LOST:
            self._close(request)
        return web.json_response(body, status=status)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            body = None
        except ConnectionResetError:
            return web.Response(status=499)
        self.rules.under_way += 1
        try:
            key = request.headers.get("Authorization", "")
            response = self.rules.decide(body, key, asyncio.get_running_loop().time())
            if response.delay:
                await asyncio.sleep(response.delay)
            return await self._send(request, response)
        finally:
            self.rules.under_way -= 1

    async def _send(self, request: web.Request, response: Response) -> web.StreamResponse:
        body = response.body
        raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        match response.mishap:
            case "hang":
                await self.closing.wait()
            case "drop":
                self._close(request)
            case "cut":
                await self._cut(request, raw)
            case "malformed":
                raw = raw[: len(raw) // 2]
            case "html":
                raw = b"<html><body><h1>Bad gateway</h1></body></html>"
        headers = {"Content-Type": "application/json", **response.headers}
        return web.Response(status=response.status, body=raw, headers=headers)

    async def _cut(self, request: web.Request, raw: bytes) -> None:
        stream = web.StreamResponse(
            headers={"Content-Type": "application/json", "Content-Length": str(len(raw))}
        )
        await stream.prepare(request)
        await stream.write(raw[: len(raw) // 2])
        self._close(request)

    def _close(self, request: web.Request) -> None:
        if request.transport is not None:
            request.transport.close()


def _page(request: web.Request) -> tuple[str | None, int]:
    return request.query.get("after"), int(request.query.get("limit", "20"))


async def serve(server: Server, port: int) -> tuple[web.AppRunner, str]:
    """Start it; its address."""
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"


class Stub:
    """The server in a thread of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._ready = settings, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._server.closing.set)
        self._thread.join(10)

    def stats(self) -> dict[str, Any]:
        return self._server.rules.stats()

    def settled(self) -> dict[str, Any]:
        """`stats` when no client is left: what a killed one had sent may be let in after its death."""
        before, deadline = None, time.monotonic() + 30
        while self._runner.server.connections or before != self.stats():
            assert time.monotonic() < deadline, "a client is still connected"
            before = self.stats()
            time.sleep(0.1)
        return before

    def batches(self) -> dict[str, Any]:
        return self._server.batches.stats()

    def script(self, script: Callable[[Any, int], Response | None]) -> None:
        """What it says instead (`Rules.script`), from now on."""
        self._server.rules.script = script

    def calls(self) -> dict[str, int]:
        return dict(self._server.rules.calls)

    async def _main(self) -> None:
        self._loop, self._server = asyncio.get_running_loop(), Server(self._settings)
        self._runner, self.url = await serve(self._server, 0)
        self._ready.set()
        await self._server.closing.wait()
        await self._runner.cleanup()


@contextmanager
def process(*options: str) -> Iterator[str]:
    """The server as a process of its own; its address."""
    command = [sys.executable, "-m", "tests.standin.openai_stub", "--port", "0", *options]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        assert url, f"{command} ended with {running.wait()}"
        yield url
    finally:
        running.terminate()
        running.wait(10)


async def run(settings: Settings, port: int) -> None:
    server = Server(settings)
    _, url = await serve(server, port)
    print(url, flush=True)
    await server.closing.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Stand-in for an OpenAI-compatible server.")
    parser.add_argument("--port", type=int, default=0)
    for field in fields(Settings):
        kind = NUMBERS.get(field.name, str) if field.default is None else type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = vars(parser.parse_args())
    port = options.pop("port")
    with suppress(KeyboardInterrupt):
        asyncio.run(run(Settings(**options), port))


if __name__ == "__main__":
    main()
