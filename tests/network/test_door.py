"""Who comes in at a node's port: proof first, a bounded number at a time, and nobody is kept out by those who say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from sessile.network import door as doors
from sessile.network import tls
from sessile.network.door import UNPROVEN_MAX, Door
from tests.forked import Child
from tests.network.clusters import until

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPS = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


class Guest(asyncio.Protocol):
    """One that has come in."""

    def __init__(self, inside: list[asyncio.BaseTransport]) -> None:
        self._inside = inside

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inside.append(transport)


def opened(context: ssl.SSLContext | None) -> tuple[Door, int, list[asyncio.BaseTransport]]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    inside: list[asyncio.BaseTransport] = []
    door = Door(listener, lambda: Guest(inside), context)
    door.open()
    return door, listener.getsockname()[1], inside


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_member_gets_in_through_a_crowd_that_says_nothing(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """So many are kept, those that came last; the others are hung up, and a member is not among them."""

    async def run() -> None:
        contexts = tls.contexts([b"a secret that is long enough"], "sessile", "a:1")
        door, port, inside = opened(contexts.server)
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(UNPROVEN_MAX + 40)]
        await until(lambda: len(door._unproven) == UNPROVEN_MAX)
        for reader, _ in crowd[:30]:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 1) == b""
        assert len(door._unproven) == UNPROVEN_MAX
        _, member = await asyncio.open_connection("127.0.0.1", port, ssl=contexts.client, server_hostname="")
        await until(lambda: len(inside) == 1)
        await door.close()
        for _, writer in (*crowd, (None, member)):
            writer.transport.abort()
        inside[0].close()
        await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())


def test_who_says_nothing_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, not having been told a byte."""
    monkeypatch.setattr(doors, "PROVE_S", 0.1)

    async def run() -> None:
        door, port, inside = opened(tls.contexts([b"a secret that is long enough"], "sessile", "a:1").server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 2) == b""
        await until(lambda: not door._unproven)
        writer.close()
        await door.close()
        assert not inside

    asyncio.run(run())


def test_where_nobody_has_to_prove_anything_all_come_in() -> None:
    """And once it is closed, nobody does."""

    async def run() -> None:
        door, port, inside = opened(None)
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        await until(lambda: len(inside) == 100)
        await door.close()
        with pytest.raises(OSError):  # noqa: PT011  # refused, in whatever words
            await asyncio.open_connection("127.0.0.1", port)
        for _, writer in links:
            writer.close()
        for transport in inside:
            transport.close()
        await asyncio.sleep(0.05)

    asyncio.run(run())


def test_a_process_without_sockets_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who could not be taken now is taken when others have gone; meanwhile it does not spin."""
    monkeypatch.setattr(doors, "PAUSE_S", 0.01)

    async def run() -> None:
        times = 0
        accept = socket.socket.accept

        def fail(listener: socket.socket) -> tuple[socket.socket, object]:
            nonlocal times
            times += 1
            if times <= 2:
                raise OSError(errno.EMFILE, "too many open files")
            return accept(listener)

        monkeypatch.setattr(socket.socket, "accept", fail)
        door, port, inside = opened(None)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: len(inside) == 1)
        assert times == 3
        await door.close()
        writer.close()
        inside[0].close()
        await asyncio.sleep(0.05)

    asyncio.run(run())


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_forked_child_holds_neither_the_port_nor_who_stands_in_the_door(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """When the parent closes them they are closed, however long the child lives; until then the parent goes on."""

    async def run() -> None:
        contexts = tls.contexts([b"a secret that is long enough"], "sessile", "a:1")
        door, port, inside = opened(contexts.server)
        silent, silent_writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: len(door._unproven) == 1)
        child = Child(lambda: (len(door._unproven), door._loop))
        try:
            assert await asyncio.to_thread(child.said) == "(0, None)"
            _, member = await asyncio.open_connection("127.0.0.1", port, ssl=contexts.client, server_hostname="")
            await until(lambda: len(inside) == 1)
            await door.close()
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(silent.read(), 20) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
        finally:
            child.end()
        for writer in (member, silent_writer):
            writer.transport.abort()
        for transport in inside:
            transport.abort()  # type: ignore[attr-defined]  # each is one that writes
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())


def test_who_fails_to_prove_itself_is_told_with_its_host() -> None:
    """By TLS; one that closes without a word fails, too."""

    async def run() -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        failed: list[tuple[str, OSError]] = []
        context = tls.contexts([b"a secret that is long enough"], "sessile", "a:1").server
        door = Door(listener, lambda: Guest([]), context, lambda host, error: failed.append((host, error)))
        door.open()
        for number, said in enumerate((b"GET / HTTP/1.1\r\n\r\n", b""), start=1):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            writer.write(said)
            writer.write_eof()
            await until(lambda number=number: len(failed) == number)  # type: ignore[misc]  # bound now
            writer.transport.abort()
        await door.close()
        assert [host for host, _ in failed] == ["127.0.0.1"] * 2
        assert isinstance(failed[0][1], ssl.SSLError)

    asyncio.run(run())
