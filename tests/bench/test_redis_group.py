"""Redis processes for shows: who reaches whom, and who does not any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench.browser import HOST
from bench.redis_group import INSIDE, Door

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SOON_S = 5.0
LONG_S = 0.2


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that gives back what it is told, in capitals."""
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()


class Guest:
    """Somebody with a connection through the door."""

    def __init__(self, link: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.reader, self.writer = link

    @classmethod
    async def of(cls, door: Door, address: str) -> Guest:
        return cls(await asyncio.open_connection(HOST, door.port, local_addr=(address, 0)))

    async def is_answered(self, within_s: float = SOON_S) -> bool:
        self.writer.write(b"a\n")
        try:
            return await asyncio.wait_for(self.reader.readline(), within_s) == b"A\n"
        except TimeoutError:
            return False


def with_door(test: Callable[[Door], Awaitable[None]]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(shout, HOST, 0)
        door = Door(server.sockets[0].getsockname()[1])
        await door.open()
        try:
            await test(door)
        finally:
            await door.close()
            server.close()

    asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize("address", [HOST, INSIDE])
def test_a_door_lets_everybody_in(address: str) -> None:
    """What is said behind it comes out."""

    async def run(door: Door) -> None:
        guest = await Guest.of(door, address)
        assert await guest.is_answered()
        assert await guest.is_answered()
        guest.writer.close()

    with_door(run)


def test_who_is_inside_hears_nothing_while_it_is_cut() -> None:
    """Connections of before are silent and stay, new ones too; clients notice nothing; afterwards all is delivered."""

    async def run(door: Door) -> None:
        inside, client = await Guest.of(door, INSIDE), await Guest.of(door, HOST)
        assert await inside.is_answered()
        assert await client.is_answered()
        door.cut()
        newcomer, new_client = await Guest.of(door, INSIDE), await Guest.of(door, HOST)
        assert not await inside.is_answered(LONG_S)
        assert not await newcomer.is_answered(LONG_S)
        assert await client.is_answered()
        assert await new_client.is_answered()
        door.heal()
        assert await asyncio.wait_for(inside.reader.readline(), SOON_S) == b"A\n"
        assert await asyncio.wait_for(newcomer.reader.readline(), SOON_S) == b"A\n"
        for guest in (inside, client, newcomer, new_client):
            guest.writer.close()

    with_door(run)


def test_a_server_that_is_gone_ends_connections() -> None:
    """Nobody waits at a door behind which nothing is."""

    async def run() -> None:
        server = await asyncio.start_server(shout, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        door = Door(port)
        await door.open()
        guest = await Guest.of(door, HOST)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(guest.reader.readexactly(1), SOON_S)
        guest.writer.close()
        await door.close()

    asyncio.run(asyncio.wait_for(run(), 30))
