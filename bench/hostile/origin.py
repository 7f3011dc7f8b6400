"""An origin that writes down every byte it is sent, and answers so that each answer proves whose it is.

Requests are read by h11; each complete one gets the next serial number, which the answer carries in a field and in its
body, together with the marker of the request. What h11 refuses is noted and the connection closed. A target
`/answer/NAME` gets the bytes of that hostile answer instead (`answers.py`). The raw bytes of a connection are never
interpreted here beyond that: that is the judge's work.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import h11

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.hostile.answers import HostileAnswer

__all__ = ["BIG_BYTES", "BIG_TARGET", "HEALTH_TARGET", "Connection", "Origin", "Served", "marker_of"]

HEALTH_TARGET: Final = b"/healthz"
BIG_TARGET: Final = b"/big"
BIG_BYTES: Final = 8 * 2**20
"""What a target that begins so is answered with: more than any buffer on the way holds."""
_BIG: Final = b"." * BIG_BYTES
_MARKER: Final = re.compile(rb"marker-[0-9a-z-]+")


def marker_of(*texts: bytes) -> bytes:
    """The first marker in these texts; the harness puts one into the target or a field of what it sends."""
    return next((match[0] for text in texts if (match := _MARKER.search(text))), b"none")


@dataclass(frozen=True, slots=True)
class Served:
    """One request that reached the origin whole."""

    serial: int
    method: bytes
    target: bytes
    connection: Connection


@dataclass(slots=True, eq=False)
class Connection:
    """All that arrived on one connection and was not judged yet."""

    number: int
    raw: bytearray = field(default_factory=bytearray)
    served: list[Served] = field(default_factory=list)
    fault: str = ""
    is_inside: bool = False
    """Whether the bytes so far end inside a request."""
    is_closed: bool = False


class Origin:
    """The server behind the proxy under trial; `changed` wakes who waits for it to have seen something."""

    def __init__(self, answers: dict[bytes, HostileAnswer] | None = None) -> None:
        self.answers = answers or {}
        self.connections: list[Connection] = []
        self.changed = asyncio.Event()
        self.port = 0
        self.peers: set[_Peer] = set()
        self._last_number = 0
        self._last_serial = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen on a free loopback port; returns it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for peer in list(self.peers):
                peer.transport.abort()
            await asyncio.sleep(0)

    def next_serial(self) -> int:
        self._last_serial += 1
        return self._last_serial

    def open(self) -> Connection:
        self._last_number += 1
        connection = Connection(self._last_number)
        self.connections.append(connection)
        return connection

    def note(self) -> None:
        self.changed.set()

    @property
    def is_quiet(self) -> bool:
        """Whether no open connection stands inside a request."""
        return all(each.is_closed or not each.is_inside for each in self.connections)

    async def wait_quiet(self, timeout_s: float) -> bool:
        """Wait until every connection stands at a boundary or is closed; False when that does not come."""
        return await self.wait_until(lambda: self.is_quiet, timeout_s)

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something that the origin sees makes this true; False when time is up."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not condition():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except TimeoutError:
                return condition()
        return True

    def forget(self) -> None:
        """Drop what was judged: closed connections, and the bytes and requests of the open ones."""
        self.connections = [each for each in self.connections if not each.is_closed]
        for each in self.connections:
            each.raw.clear()
            each.served.clear()


class _Peer(asyncio.Protocol):
    """One connection from the proxy."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.seen = origin.open()
        self.reader = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
        self.request: h11.Request | None = None
        self.body: list[bytes] = []
        self.is_tunnel = False
        self.waits: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.origin.peers.add(self)

    def data_received(self, data: bytes) -> None:
        self.seen.raw += data
        if self.is_tunnel:
            self.transport.write(data)
            return
        try:
            self.reader.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as error:
            self._fail(str(error))
        self.seen.is_inside = not self.is_tunnel and not self.seen.fault and self._is_inside()
        self.origin.note()

    def _fail(self, why: str) -> None:
        self.seen.fault = why
        self.transport.close()

    def _is_inside(self) -> bool:
        return self.request is not None or bool(self.reader.trailing_data[0])

    def _read(self) -> None:
        while not self.is_tunnel:
            event = self.reader.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self.request, self.body = event, []
                self._invite(event)
                self._answer_early(event)
            elif isinstance(event, h11.Data):
                self.body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._serve()

    def _invite(self, request: h11.Request) -> None:
        if any(name == b"expect" and value.lower() == b"100-continue" for name, value in request.headers):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer_early(self, request: h11.Request) -> None:
        target = bytes(request.target)
        hostile = self.origin.answers.get(target.partition(b"?")[0])
        if hostile is not None and hostile.early:
            served = Served(self.origin.next_serial(), bytes(request.method), target, self.seen)
            self.seen.served.append(served)
            self._lie(hostile, served, marker_of(target))

    def _serve(self) -> None:
        request = self.request
        assert request is not None
        method, target = bytes(request.method), bytes(request.target)
        hostile = self.origin.answers.get(target.partition(b"?")[0])
        self.request = None
        self._cycle()
        if hostile is not None and hostile.early:
            return  # it was answered when its head came
        served = Served(self.origin.next_serial(), method, target, self.seen)
        self.seen.served.append(served)
        if hostile is not None:
            self._lie(hostile, served, marker_of(target))
            return
        answer = self._answer(served, request, b"".join(self.body))
        self.transport.write(answer)

    def _cycle(self) -> None:
        # A refusal as far as h11 knows: after 200 to CONNECT it would read no request any more.
        self.reader.send(h11.Response(status_code=400, headers=[(b"content-length", b"0")]))
        self.reader.send(h11.EndOfMessage())
        if self.reader.our_state is h11.DONE and self.reader.their_state is h11.DONE:
            self.reader.start_next_cycle()

    def _answer(self, served: Served, request: h11.Request, body: bytes) -> bytes:
        values = [bytes(value) for _, value in request.headers]
        text = b"serial=%d %b body=%d" % (served.serial, marker_of(served.target, *values, body), len(body))
        head = b"HTTP/1.1 200 OK\r\nX-Serial: %d\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        if served.target.startswith(BIG_TARGET):
            self.transport.write(head % (served.serial, BIG_BYTES))
            return _BIG
        return head % (served.serial, len(text)) + (b"" if served.method == b"HEAD" else text)

    def _lie(self, hostile: HostileAnswer, served: Served, marker: bytes) -> None:
        self.transport.write(hostile.raw.replace(b"@SERIAL@", b"%d" % served.serial).replace(b"@MARKER@", marker))
        loop = asyncio.get_running_loop()
        if hostile.later:
            self.waits.append(loop.call_later(hostile.later_s, self.transport.write, hostile.later))
        if hostile.closes:
            self.transport.close()
        self.is_tunnel = self.is_tunnel or hostile.switches

    def connection_lost(self, error: Exception | None) -> None:
        del error
        for wait in self.waits:
            wait.cancel()
        self.seen.is_closed = True
        self.origin.peers.discard(self)
        self.origin.note()
