"""A demo that runs, started by its public command, and what its control API does to its servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from bench.browser import HOST, Browser
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Running", "demo", "free_pair", "has_replicas"]

START_S: Final = 90.0
STOP_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.05
LOOKED_AT_S: Final = 1.0
"""The control API looks at every server more often than that."""


class Running:
    """A demo under way.

    Args:
        port: of its balancer; its dashboard and control API are on the one after it.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    async def status(self) -> dict[str, Any]:
        """What the control API says."""
        return await self._control("GET", "/api/status")

    async def store_trips(self) -> int:
        """How often the servers went to the store, when the control API has looked at all of them again."""
        await asyncio.sleep(LOOKED_AT_S)
        servers = (await self.status())["servers"]
        return sum(server["cluster"]["counts"].get("trips", 0) for server in servers)

    async def server_ports(self) -> dict[str, int]:
        """Name → the port at which a server answers without the balancer."""
        return {server["name"]: server["port"] for server in (await self.status())["servers"]}

    async def act(self, name: str, action: str) -> dict[str, Any]:
        """`kill`, `pause`, `resume`, `restart` or `drain` a server; returns when that shows."""
        return await self._control("POST", f"/api/servers/{name}/{action}")

    async def until_whole(self, within_s: float) -> bool:
        """Wait until every server is ready, the balancer uses it and it is linked to all others; False if not in time."""
        return await self._until(_is_whole, within_s)

    async def until_copied(self, sessions: int, copies: int, within_s: float) -> bool:
        """Wait until so many sessions have a primary, and so many backups as they should; False if not in time."""

        def is_copied(servers: list[dict[str, Any]]) -> bool:
            held = [sum(server["cluster"].get(role, 0) for server in servers) for role in ("primary", "backup")]
            return held == [sessions, sessions * (copies - 1)]

        return await self._until(is_copied, within_s)

    async def _until(self, condition: Callable[[list[dict[str, Any]]], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not condition((await self.status())["servers"]):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    async def kill(self, name: str) -> None:
        """SIGKILL for one server."""
        await self.act(name, "kill")

    async def add(self) -> dict[str, Any]:
        """Start one more server; returns once it is ready and the balancer knows it."""
        return await self._control("POST", "/api/servers")

    async def _control(self, method: str, path: str) -> dict[str, Any]:
        control = Browser(self.port + 1)
        status, told = await control.ask(method, path, "X-Sessile: 1")
        control.close()
        if status not in {200, 201}:
            raise CannotShow(f"{method} {path} was answered with {status}: {told}")
        assert isinstance(told, dict), "the control API speaks JSON"
        return told


def _is_whole(servers: list[dict[str, Any]]) -> bool:
    return all(
        server["state"] == "ready"
        and server["balancer_sees"] == "up"
        and list(server["cluster"]["members"].values()) == ["alive"] * (len(servers) - 1)
        for server in servers
    )


@contextlib.asynccontextmanager
async def demo(*, routing: str, servers: int, strategy: str = "sticky") -> AsyncIterator[Running]:
    """Start a demo; it has ended when this is left."""
    port = free_pair()
    options = ("--strategy", strategy, "--servers", str(servers), "--port", str(port), "--routing", routing, "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sessile", "demo", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018  # asked for as pipes
    said: list[bytes] = []
    reading = asyncio.create_task(_keep(process.stderr, said))
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not line:
            await process.wait()
            raise CannotShow(f"sessile demo {' '.join(options)} did not start: {b' '.join(said[-2:]).decode().strip()}")
        json.loads(line)
        yield Running(port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        await reading


async def has_replicas(strategy: str, running: Running) -> None:
    """See that a demo of the strategy `store` has the store that is meant, and no file; `CannotShow` otherwise."""
    if strategy == "store" and not (await running.status())["store"]:
        raise CannotShow("sessile demo --strategy store runs on a file here: it found no Redis, or no driver for one")


async def _keep(stream: asyncio.StreamReader, lines: list[bytes]) -> None:
    """Read to the end, and keep the last lines."""
    async for line in stream:
        lines.append(line)
        del lines[:-20]


def free_pair() -> int:
    """A port that is free, and so is the one after it, which the dashboard takes."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((HOST, 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind((HOST, port + 1))
                return port
