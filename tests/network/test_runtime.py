"""A node on an event loop: what its sockets, its timer and its waiting callers see."""

from __future__ import annotations

import asyncio
import logging
import socket
from random import Random

import pytest

from sessile.backend import Acknowledged
from sessile.clock import boot_clock_ms
from sessile.ends import MARK, SHARDS
from sessile.engine import Engine
from sessile.network import connection as connection_module
from sessile.network.connection import Connection
from sessile.network.runtime import STRANGERS_MAX, Runtime
from sessile.replication import telling
from sessile.replication.config import NodeConfig
from sessile.replication.events import ChangePushed, Note, Send, SessionTouched
from sessile.replication.member import Timings
from sessile.replication.messages import Beat
from sessile.replication.wire import encode
from tests.fakes import SECRET, make_engine
from tests.network.clusters import backend_of, cluster_of, free_ports, ran, until


def runtime_of(engine: Engine) -> Runtime:
    runtime = backend_of(engine)._runtime
    assert runtime is not None
    return runtime


async def alone(port: int) -> Runtime:
    """A node without peers, listening."""
    runtime = Runtime(make_engine(), NodeConfig(name=f"127.0.0.1:{port}", host="here"), None)
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    await runtime.listen(listener)
    return runtime


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes within a few seconds; whatever it says before is read."""
    try:
        async with asyncio.timeout(5):
            while await reader.read(4096):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_strangers_are_bounded_and_do_not_stay() -> None:
    """A flood of connections on which nobody greets: so many are kept, for a moment, and members get in all the same."""

    async def run() -> None:
        async with cluster_of(2) as engines:
            port = int(backend_of(engines[0]).status()["name"].rpartition(":")[2])
            links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(STRANGERS_MAX + 20)]
            await until(lambda: len(runtime_of(engines[0])._connections) == STRANGERS_MAX + 1)
            closed = await asyncio.gather(*(is_closed(reader) for reader, _ in links))
            assert all(closed)
            await until(lambda: len(runtime_of(engines[0])._connections) == 1)
            for _, writer in links:
                writer.close()
            assert backend_of(engines[0]).status()["linked"] == 1

    ran(run())


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\0\0\1\xc1", b"\0\0\0", b"\0\0\2\x93\1"])
def test_who_does_not_greet_is_hung_up(said: bytes) -> None:
    """Another protocol, or garbage: the link is closed and the node goes on."""

    async def run() -> None:
        (port,) = free_ports(1)
        runtime = await alone(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        assert await is_closed(reader)
        writer.close()
        assert await runtime.ask(lambda ticket: ChangePushed(ticket, b"k" * 16, None)) is Acknowledged.YES
        await runtime.close()

    ran(run())


def test_a_question_that_nobody_waits_for_any_more_is_no_trouble() -> None:
    """A request that was cancelled leaves nothing behind."""

    async def run() -> None:
        async with cluster_of(2) as engines:
            runtime = runtime_of(engines[0])
            asking = asyncio.create_task(backend_of(engines[0]).pull(b"k" * 16, None, ()))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert not runtime._waiting
            await asyncio.sleep(0.05)
            assert backend_of(engines[0]).status()["linked"] == 1

    ran(run())


def test_all_that_a_turn_sends_to_a_peer_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred requests of one turn: not a hundred packets."""

    async def run() -> None:
        async with cluster_of(2) as engines:
            runtime = runtime_of(engines[0])
            (connection,) = runtime._connections.values()
            writes: list[int] = []
            write = connection.write

            def noted(data: bytes) -> None:
                writes.append(len(data))
                write(data)

            monkeypatch.setattr(connection, "write", noted)
            await asyncio.gather(*(backend_of(engines[0]).pull(bytes([n]) * 16, None, ()) for n in range(100)))
            assert len(writes) <= 2 and sum(writes) > 2_000

    ran(run())


def test_whole_records_are_left_out_where_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of answers costs whoever asked another question, and not the link; what is sequenced always goes."""

    async def run() -> None:
        async with cluster_of(2) as engines:
            runtime = runtime_of(engines[0])
            (link,) = [peer.link for peer in runtime.node.peers.values()]
            beat = encode(Beat(1))
            written: list[int] = []
            monkeypatch.setattr("sessile.network.runtime.SPARE_BYTES_MAX", 3 * len(beat))
            monkeypatch.setattr(Connection, "write", lambda _, data: written.append(len(data)))
            runtime._perform([*(Send(link, beat, is_spare=True) for _ in range(5)), Send(link, beat)])
            runtime._flush()
            assert sum(written) == 4 * len(beat)
            assert runtime.node.counts["left_out"] == 2
            monkeypatch.setattr(Connection, "waiting_bytes", 3 * len(beat))
            runtime._perform([Send(link, beat, is_spare=True), Send(link, beat)])
            runtime._flush()
            assert sum(written) == 5 * len(beat)
            monkeypatch.undo()

    ran(run())


def test_what_a_person_may_want_to_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What must be mended once, as one line whatever a peer calls itself; the rest for those who ask for it."""

    async def run() -> None:
        (port,) = free_ports(1)
        runtime = await alone(port)
        refused = Note("refused", {"name": "x\nINFO all is well", "reason": "y", "remedy": "z"})
        with caplog.at_level(logging.DEBUG, "sessile.cluster"):
            for _ in range(3):
                runtime._perform([refused, Note("protocol error", {"link": 1}), Note("member", {"name": "x"})])
        await runtime.close()

    ran(run())
    said = [(each.levelname, each.getMessage().partition(": ")[2]) for each in caplog.records]
    assert [text for level, text in said if level == "WARNING"] == [
        "x\N{REPLACEMENT CHARACTER}INFO all is well is refused: y; z",
        "protocol error link=1",
    ]
    assert said.count(("DEBUG", "member name=x")) == 3


def test_closing_leaves_nothing_on_the_loop() -> None:
    """No task, no timer that still does something, no open socket."""

    async def run() -> None:
        async with cluster_of(3):
            pass
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_who_asks_once_it_is_closed_is_answered() -> None:
    """Before, in the middle, and after: nobody waits for ever, and no request is cancelled."""

    async def run() -> None:
        (port,) = free_ports(1)
        runtime = await alone(port)
        runtime.node.handle = lambda event, now_ms: []  # type: ignore[method-assign]  # it never answers
        waiting = asyncio.create_task(runtime.ask(lambda ticket: ChangePushed(ticket, b"k" * 16, None)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(runtime.close())
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await runtime.ask(lambda ticket: ChangePushed(ticket, b"k" * 16, None)) is None
            assert await waiting is None
            await closing
            assert await runtime.ask(lambda ticket: ChangePushed(ticket, b"k" * 16, None)) is None

    ran(run())


def test_an_earlier_alarm_moves_the_timer() -> None:
    """What happens may want the node to be woken sooner than was asked for before."""

    async def run() -> None:
        (port,) = free_ports(1)
        timings = Timings(beat_ms=60_000, suspect_after_ms=200_000, dead_after_ms=300_000)
        runtime = Runtime(
            Engine(secret=SECRET, sweeps=False),
            NodeConfig(name=f"127.0.0.1:{port}", host="here", timings=timings, repair_every_ms=60_000),
            None,
        )
        runtime.found(())
        await until(lambda: runtime._timer_ms > boot_clock_ms() + 20_000)
        before = runtime._timer
        runtime.node._touches._due_ms = boot_clock_ms() + 500  # as if others had just been told of uses
        runtime.feed(SessionTouched(b"k" * 16, boot_clock_ms()))
        assert runtime._timer is not before and runtime._timer_ms < boot_clock_ms() + 1_000
        await until(lambda: not runtime.node._touches._fresh)
        await runtime.close()

    ran(run())


def test_a_list_that_is_longer_than_what_may_wait_on_a_link_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, and no faster than it is taken: the link stays."""
    monkeypatch.setattr(connection_module, "WAITING_BYTES_MAX", 2**18)
    monkeypatch.setattr(telling, "CROWDED_BYTES", 2**16)
    monkeypatch.setattr(telling, "PAUSE_MS", 1)
    count = 600_000

    async def run() -> None:
        ports = free_ports(2)
        members = [f"127.0.0.1:{port}" for port in ports]
        one, two = (
            Engine(url="all-to-all://", me=me, secret=SECRET, tls="off", members=members, sweeps=False)
            for me in members
        )
        rng = Random(1)
        for shard in range(SHARDS):
            entries = (MARK.pack(shard, rng.getrandbits(64), 36_000) for _ in range(count // SHARDS + 1))
            one.table.ends.take(b"".join(entries), one.clock_ms())
        try:
            await backend_of(one).start()
            await backend_of(two).start()
            await until(lambda: len(two.table.ends) >= count)
            assert runtime_of(two).node.counts["reunions"] == 0 and len(runtime_of(two).node.peers) == 1
            assert runtime_of(one)._link_numbers <= 2 and runtime_of(two)._link_numbers <= 2
        finally:
            await backend_of(one).stop()
            await backend_of(two).stop()

    ran(run())
