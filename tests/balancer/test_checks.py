"""Active health checks, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from sessile.balancer.health import HealthPolicy
from sessile.balancer.settings import BalancerSettings, ServerAddress
from sessile.balancer.worker import Worker
from tests.balancer.wire import Origin, balanced, on_loop, until

if TYPE_CHECKING:
    from sessile.balancer.checks import Checker

FAST = HealthPolicy(interval_s=0.05, timeout_s=0.2)


@pytest.mark.parametrize(
    ("health", "state"),
    [
        (b"200 OK", "up"),
        (b"404 Not Found", "up"),
        (b"503 Busy", "draining"),
        (b"500 Oops", "down"),
        (b"what", "down"),
        (None, "down"),
    ],
)
@on_loop
async def test_what_checks_find(health: bytes | None, state: str) -> None:
    """An answer is up, 503 drains, nonsense, 5xx and silence are down; and 200 brings each back."""
    origin = Origin(health=health)
    async with balanced(origin, health=FAST) as front:
        await until(lambda: front.states()["s1"] == state, state)
        origin.health = b"200 OK"
        await until(lambda: front.states()["s1"] == "up", "up again")


@on_loop
async def test_the_first_round_is_over_before_anybody_is_served() -> None:
    """A server that refuses is known to be down when the balancer begins to accept."""
    deaf = await Origin("s1").start()
    await deaf.stop()
    settings = BalancerSettings(
        secrets=("x",), servers=(ServerAddress("s1", "127.0.0.1", deaf.port),), health=HealthPolicy(interval_s=60)
    )
    worker = Worker(settings, lambda event, fields: None)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        await worker.start(sock)
        assert worker.servers.by_name["s1"].is_down
        await worker.stop()


@on_loop
async def test_checks_overlap() -> None:
    """While a check waits in silence the next ones go out on time."""
    asked = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(-1)
        writer.close()

    silent = await asyncio.start_server(count, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with balanced(Origin("s1", port=port), health=HealthPolicy(interval_s=0.02, timeout_s=2.0)) as front:
        await until(lambda: len(front.worker.checker._under_way) > 5, "several checks wait at once")
        assert front.states()["s1"] == "up"
    silent.close()
    assert asked > 5


@on_loop
async def test_load_on_the_balancer_takes_no_server_out() -> None:
    """A check that is not answered in time is not counted if our own loop was late in the meantime."""
    async with balanced(Origin(), health=HealthPolicy(interval_s=60, timeout_s=0.4)) as front:
        checker: Checker = front.worker.checker
        server = front.worker.servers.by_name["s1"]

        async def unanswered(*_: object) -> int:
            raise TimeoutError

        checker._ask = unanswered  # type: ignore[method-assign, assignment]
        for late_at, failures in ((10.1, 0), (9.9, 1)):
            clock = iter((10.0, 10.4))
            checker._clock = lambda clock=clock: next(clock)  # type: ignore[misc]
            checker._late_at = late_at
            await checker._check(server)
            assert server.health._failures == failures
        checker.stop()
        checker._clock = asyncio.get_running_loop().time
        for late_s, is_late in ((-60.0, False), (0.2, True)):
            checker._due, checker._late_at = checker._clock() - late_s, 0.0
            checker._next()
            checker.stop()
            assert bool(checker._late_at) is is_late


@on_loop
async def test_a_late_loop_proves_nothing() -> None:
    """A check that ran out of time because this process slept is not counted."""
    async with balanced(Origin(), health=HealthPolicy(interval_s=60, timeout_s=0.05)) as front:
        checker: Checker = front.worker.checker
        server = front.worker.servers.by_name["s1"]
        (loop, clock) = (asyncio.get_running_loop(), iter((0.0, 1000.0)))
        assert loop.time() > 0

        async def asleep(*_: object) -> int:
            raise TimeoutError

        checker._ask = asleep  # type: ignore[method-assign, assignment]
        checker._clock = lambda: next(clock)
        await checker._check(server)
        assert server.health._failures == 0
        checker._clock = loop.time
        await checker._check(server)
        assert server.health._failures == 1
