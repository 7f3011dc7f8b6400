"""One connection: frames out of bytes, and bounds on both directions."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from sessile.network.connection import WAITING_BYTES_MAX, Connection
from sessile.replication.wire import HELLO_BYTES_MAX
from tests.forked import Child


class Transport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.waiting = 0
        self.is_aborted = self.is_over = self.is_paused = False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.is_aborted or self.is_over

    def close(self) -> None:
        assert not self.is_over, "asyncio's TLS bears one close only"
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
    assert ends.told == [((b"ab",), 5), ((b"c",), 4)]
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
        connection.hang_up(asyncio.get_running_loop())
        assert transport.is_over and not transport.is_aborted
        await asyncio.sleep(1.1)
        return transport.is_aborted

    assert asyncio.run(run())


def test_much_at_once_is_worked_through_in_turns() -> None:
    """Others on the loop get a turn in between, nothing is read meanwhile, and the order stays."""

    async def run() -> None:
        connection, transport, ends = connected()
        frames = [bytes([number]) * 20_000 for number in range(1, 6)]
        connection.data_received(b"".join(len(one).to_bytes(3, "big") + one for one in frames))
        assert (ends.told, transport.is_paused) == ([((frames[0],), 20_003)], True)
        connection.data_received(b"\x00\x00\x01a\x00\x00\x01b")
        for _ in range(10):
            await asyncio.sleep(0)
        assert [frame for told, _ in ends.told for frame in told] == [*frames, b"a", b"b"]
        assert not transport.is_paused
        assert len(ends.told) == 6

    asyncio.run(run())


def test_what_came_before_the_end_is_told_before_it() -> None:
    """A peer that says something and goes is heard; one that is hung up from here is not."""

    async def run(*, hangs_up: bool) -> list[Any]:
        connection, _, ends = connected()
        connection.data_received(b"".join(b"\x00\x9c\x40" + bytes(40_000) for _ in range(3)))
        if hangs_up:
            connection.abort()
        else:
            connection.connection_lost(None)
        await asyncio.sleep(0)
        return [len(told[0]) if isinstance(told, tuple) else told for told in ends.told]

    assert asyncio.run(run(hangs_up=False)) == [1, 2, 7]
    assert asyncio.run(run(hangs_up=True)) == [1]


def test_a_forked_child_has_no_part_in_a_connection() -> None:
    """It cannot write to it, and the other side sees the parent close it though the child lives."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        connection = Connection(Ends())
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
        reader, writer = await asyncio.open_connection(sock=theirs)

        def work() -> bool:
            connection.write(b"from the child")
            connection.hang_up(asyncio.new_event_loop())
            connection.abort()
            return connection.is_open

        child = Child(work)
        try:
            assert await asyncio.to_thread(child.said) == "False"
            connection.write(b"from the parent")
            assert await reader.read(100) == b"from the parent"
            connection.abort()
            assert await asyncio.wait_for(reader.read(100), 20) == b""
        finally:
            child.end()
            writer.close()

    asyncio.run(run())
