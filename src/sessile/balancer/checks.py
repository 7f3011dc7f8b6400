"""Active health checks: one request per server and interval, each over a connection of its own.

Checks of one server may overlap: the next begins on time even while one waits, so a server that falls silent is known
to be down after `interval * (fall - 1) + timeout`. A check that ran out of time while our own loop was late proves
nothing and is not counted: load on the balancer takes no server out.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from sessile.balancer.health import State, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.balancer.health import Change
    from sessile.balancer.servers import Server, Servers
    from sessile.balancer.settings import BalancerSettings

__all__ = ["Checker"]

STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
LINE_BYTES_MAX: Final = 1024
LATE: Final = 0.25
"""Our own loop is late when a timer comes by this share of a check's timeout after its time."""


class Checker:
    """Checks all servers of a worker for as long as it runs; `changed(server, change)` hears of every change."""

    def __init__(self, servers: Servers, settings: BalancerSettings, changed: Callable[[Server, Change], None]) -> None:
        self._servers = servers
        self._policy = settings.health
        self._path = settings.health_path
        self._changed = changed
        self._under_way: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
        self._due = 0.0
        self._late_at = float("-inf")
        """When our own loop was last seen to be late."""

    async def first_round(self) -> None:
        """Check everybody once and wait for it, then go on in the background."""
        await asyncio.gather(*(self._check(server) for server in self._servers.by_name.values()))
        self._next()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._under_way:
            task.cancel()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        now = self._clock()
        if self._due and now - self._due > self._policy.timeout_s * LATE:
            self._late_at = now
        self._due = now + self._policy.interval_s
        for server in self._servers.by_name.values():
            task = loop.create_task(self._check(server))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        self._timer = loop.call_later(self._policy.interval_s, self._next)

    async def _check(self, server: Server) -> None:
        started = self._clock()
        verdict, reason, is_refusal = State.DOWN, "health check: no valid answer", False
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                status = await self._ask(server)
            if status is not None:
                verdict, reason = verdict_of(status), f"health check answered {status}"
        except ConnectionRefusedError:
            reason, is_refusal = "connection refused", True
        except TimeoutError:
            now = self._clock()
            if now - started > self._policy.timeout_s * (1 + LATE) or self._late_at >= started:
                return  # we were asleep ourselves, or busy
            reason = f"no answer to the health check in {self._policy.timeout_s:g} s"
        except OSError as error:
            reason = f"health check: {error.strerror or error}"
        if verdict is State.DOWN:
            change = server.health.check_failed(reason, is_refusal=is_refusal)
        else:
            change = server.health.check_answered(verdict, started)
        if change is not None and self._servers.by_name.get(server.name) is server:
            self._changed(server, change)

    async def _ask(self, server: Server) -> int | None:
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=LINE_BYTES_MAX)
        try:
            host = f"[{server.host}]" if ":" in server.host else server.host
            writer.write(
                f"GET {self._path} HTTP/1.1\r\nHost: {host}:{server.port}\r\nUser-Agent: sessile-balance\r\n"
                "Accept: */*\r\nConnection: close\r\n\r\n".encode()
            )
            line = await reader.readline()
        except ValueError:  # longer than any status line
            return None
        finally:
            writer.transport.abort()
        match = STATUS.match(line)
        return int(match.group(1)) if match is not None else None
