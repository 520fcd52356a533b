"""Lines of JSON between a pod's program and its engine processes, over a private socket.

Not standard output: an engine's libraries print there.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

_LONGEST = 1 << 20


class Channel:
    """One end. `receive` returns None once the other end is closed; what is sent then is silently lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, connection: socket.socket) -> Channel:
        """Take ownership of `connection`."""
        return cls(*await asyncio.open_connection(sock=connection, limit=_LONGEST))

    def send(self, **message: Any) -> None:
        """Send one message without blocking."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message."""
        try:
            line = await self._reader.readline()
            return json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None

    async def close(self) -> None:
        """Send what is left and close."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            pass
