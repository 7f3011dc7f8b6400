"""Counts the trips to a server: a proxy that sees who speaks after whom."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Trips"]


class Trips:
    """Stands in front of a port on this host. A trip begins when a client speaks after the server, or first of all."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self._made = 0
        self.sent = 0
        """Bytes, to the server."""
        self.received = 0

    def take(self) -> int:
        """How many there were since the last time."""
        made, self._made = self._made, 0
        return made

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers += [writer, to_server]
        last = [""]
        for one, other, who in ((reader, to_server, "client"), (from_server, writer, "server")):
            task = asyncio.create_task(self._pass_on(one, other, who, last))
            self._tasks.add(task)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str, last: list[str]
    ) -> None:
        while data := await reader.read(65_536):
            if who == "client":
                self.sent += len(data)
                self._made += last[0] != who
            else:
                self.received += len(data)
            last[0] = who
            writer.write(data)
        writer.close()
