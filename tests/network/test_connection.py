"""One connection: frames out of bytes, and bounds on both directions."""

from __future__ import annotations

import asyncio
from typing import Any

from sessile.network.connection import WAITING_BYTES_MAX, Connection
from sessile.replication.wire import HELLO_BYTES_MAX


class Transport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.waiting = 0
        self.is_aborted = self.is_over = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.is_aborted or self.is_over

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_aborted = True


class Ends:
    """Who keeps the connection, and what it was told."""

    def __init__(self, link: int = 7) -> None:
        self.link = link
        self.told: list[Any] = []

    def came_up(self, connection: Connection) -> int:
        del connection
        return self.link

    def frames_came(self, connection: Connection, frames: tuple[bytes, ...], size: int) -> None:
        del connection
        self.told.append((frames, size))

    def went_down(self, connection: Connection) -> None:
        self.told.append(connection.link)


def connected(link: int = 7) -> tuple[Connection, Transport, Ends]:
    ends, transport = Ends(link), Transport()
    connection = Connection(ends)
    connection.connection_made(transport)
    return connection, transport, ends


def test_frames_are_told_as_they_become_whole() -> None:
    """However the bytes are cut."""
    connection, _, ends = connected()
    connection.data_received(b"\0\0\2ab\0")
    connection.data_received(b"\0\1")
    connection.data_received(b"c")
    assert ends.told == [((b"ab",), 6), ((b"c",), 1)]
    connection.connection_lost(None)
    assert ends.told[-1] == 7 and not connection.is_open


def test_who_announces_too_much_is_hung_up() -> None:
    """A stranger's first frame is bounded, and nothing more of what comes is looked at."""
    connection, transport, ends = connected()
    connection.data_received((HELLO_BYTES_MAX + 1).to_bytes(3, "big"))
    connection.data_received(b"\0\0\1a")
    assert transport.is_aborted and ends.told == []


def test_a_link_that_is_not_wanted_is_gone_at_once() -> None:
    """And nobody is told of its end."""
    connection, transport, ends = connected(link=0)
    connection.connection_lost(None)
    assert transport.is_aborted and ends.told == []


def test_who_takes_nothing_is_hung_up() -> None:
    """What waits for a peer is bounded."""
    connection, transport, _ = connected()
    connection.write(b"a")
    transport.waiting = WAITING_BYTES_MAX + 1
    connection.write(b"b")
    connection.write(b"c")
    assert transport.written == [b"a"] and transport.is_aborted


def test_hanging_up_lets_what_was_written_leave_but_not_for_ever() -> None:
    """Closed, and aborted a moment later."""

    async def run() -> bool:
        connection, transport, _ = connected()
        connection.hang_up(asyncio.get_running_loop())
        assert transport.is_over and not transport.is_aborted
        await asyncio.sleep(1.1)
        return transport.is_aborted

    assert asyncio.run(run())
