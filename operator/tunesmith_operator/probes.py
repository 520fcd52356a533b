"""The kubelet's probes: /healthz (is the process alive?) and /readyz (does it observe the cluster?)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

Look = Callable[[], list[str]]
"""Returns a description of what is missing."""


def _probe(look: Look) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        missing = look()
        return web.Response(status=503 if missing else 200, text=", ".join(missing) or "ok")

    return answer


async def serve(port: int, healthy: Look, ready: Look) -> web.AppRunner:
    """Serve both until the process exits."""
    app = web.Application()
    app.router.add_get("/healthz", _probe(healthy))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    return runner
