"""Several Redis processes that make up one store, and what can be done to each: kill, pause, restart, cut off.

Before every server that holds data there is a door, a TCP relay of this process, which alone is known to the others. What
Redis processes say to each other comes from another loopback address than what clients say (`bind-source-addr`), so a door
can keep the ones out and let the others in: like a switch that dies between machines, it refuses nothing and answers nothing.
Nothing is written to disk but configurations.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.browser import HOST
from bench.catalogue import find_program
from bench.show import CannotShow
from sessile.lab.child import Child, run_module
from sessile.lab.redis_keeper import info_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Door", "Node", "RedisCluster", "Watched", "redis_cluster", "watched"]

INSIDE: Final = "127.0.0.2"
"""Where connections of Redis processes to each other come from."""
NAME: Final = "sessile"
SENTINELS: Final = 3
QUORUM: Final = 2
DATA: Final = 3
CLUSTER_NODES: Final = 6
DOWN_AFTER_MS: Final = 1_000
FAILOVER_TIMEOUT_MS: Final = 5_000
NODE_TIMEOUT_MS: Final = 1_500
START_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.05
CHUNK_BYTES: Final = 65_536
BUS: Final = 10_000
"""A node of a cluster talks to the others at its port and so many more."""
PORTS: Final = (21_000, 29_000)


class Door:
    """A relay before one server."""

    def __init__(self, port: int) -> None:
        self.port = 0
        """Where it is reached."""
        self._behind = port
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Let everybody in from now on."""
        self._server = await asyncio.start_server(self._admit, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Nothing from other Redis processes passes any more, nor to them; clients notice nothing."""
        self._is_open.clear()

    def heal(self) -> None:
        """What was held back goes on."""
        self._is_open.set()

    async def close(self) -> None:
        """Nobody is let in any more, and everybody is out."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served by tasks"
        self._tasks.add(task)
        is_inside = writer.get_extra_info("peername")[0] == INSIDE
        try:
            if is_inside:
                await self._is_open.wait()
            reader_behind, writer_behind = await asyncio.open_connection(HOST, self._behind)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            self._tasks.discard(task)
            return
        ways = [
            asyncio.create_task(self._pass_on(reader, writer_behind, is_inside=is_inside)),
            asyncio.create_task(self._pass_on(reader_behind, writer, is_inside=is_inside)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # it is closed
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            writer_behind.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_inside: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if is_inside:
                    await self._is_open.wait()
                writer.write(data)
                await writer.drain()


@dataclass(slots=True)
class Node:
    """One process: its name and port, and the door before it."""

    name: str
    port: int
    folder: Path
    door: Door | None = None
    child: Child | None = None
    is_sentinel: bool = False

    @property
    def reached_at(self) -> int:
        return self.door.port if self.door is not None else self.port

    async def run(self) -> None:
        """Start it; returns when it answers."""
        program = find_program("redis-server")
        arguments = [program, str(self.folder / "redis.conf"), *(["--sentinel"] if self.is_sentinel else [])]
        self.child = await run_module("sessile.lab.lifeline", [str(os.getpid()), "exec", *arguments], on_error=_ignore)
        await self.until(lambda told: "run_id" in told, "it did not answer")

    async def kill(self) -> None:
        if self.child is not None:
            await self.child.kill()

    def pause(self) -> None:
        self._running.send(signal.SIGSTOP)

    def resume(self) -> None:
        self._running.send(signal.SIGCONT)

    async def until(self, condition: Callable[[dict[str, str]], bool], otherwise: str) -> None:
        """Wait until this is so of what it tells of itself; `CannotShow` where that does not come."""
        deadline_s = time.monotonic() + START_S
        while not condition(await info_of(self.port)):
            if not self._running.is_alive or time.monotonic() > deadline_s:
                raise CannotShow(f"{self.name}, a Redis: {otherwise}: {self._running.how_it_ended()}")
            await asyncio.sleep(LOOK_AGAIN_S)

    @property
    def _running(self) -> Child:
        assert self.child is not None, "started before"
        return self.child


def _ignore(line: str) -> None:
    """Whoever waits for a process is told how it ended."""


def _configure(node: Node, *lines: str) -> None:
    node.folder.mkdir(mode=0o700)
    usual = [f"port {node.port}", f"bind {HOST}", f"dir {node.folder}", "protected-mode no"]
    (node.folder / "redis.conf").write_text("\n".join([*usual, *lines]) + "\n")


class Watched:
    """A primary with two replicas, and three Sentinels.

    Args:
        folder: for what they write.
    """

    def __init__(self, folder: Path) -> None:
        ports = _free_ports(DATA + SENTINELS)
        self.data = [Node(f"r{1 + n}", ports[n], folder / f"r{1 + n}") for n in range(DATA)]
        self.sentinels = [
            Node(f"q{1 + n}", ports[DATA + n], folder / f"q{1 + n}", is_sentinel=True) for n in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}/0"

    async def start(self) -> None:
        """Returns when the primary has its replicas, and the Sentinels know each other."""
        for node in self.data:
            node.door = Door(node.port)
            await node.door.open()
        primary = self.data[0]
        for node in self.data:
            _configure(
                node,
                f"bind-source-addr {INSIDE}",
                f"replica-announce-ip {HOST}",
                f"replica-announce-port {node.reached_at}",
                *('save ""', "appendonly no", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1"),
                *([] if node is primary else [f"replicaof {HOST} {primary.reached_at}"]),
            )
        for node in self.sentinels:
            _configure(
                node,
                f"bind-source-addr {INSIDE}",
                f"sentinel announce-ip {HOST}",
                f"sentinel monitor {NAME} {HOST} {primary.reached_at} {QUORUM}",
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}",
            )
        await asyncio.gather(*(node.run() for node in self.data))
        await primary.until(lambda told: told.get("connected_slaves") == str(DATA - 1), "its replicas did not come")
        await asyncio.gather(*(node.run() for node in self.sentinels))
        wanted = f"slaves={DATA - 1},sentinels={SENTINELS}"
        for node in self.sentinels:
            await node.until(lambda told: wanted in told.get("master0", ""), "it did not find the others")

    async def primary(self) -> Node:
        """Who is it, as most Sentinels say."""
        told = [(await info_of(node.port)).get("master0", "") for node in self.sentinels]
        said = [line.partition("address=")[2].partition(",")[0].rpartition(":")[2] for line in told]
        return max(self.data, key=lambda node: said.count(str(node.reached_at)))

    async def until_another(self, before: Node) -> bool:
        """Wait until another one is the primary; False if that does not come."""
        deadline_s = time.monotonic() + START_S
        while await self.primary() is before:
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    async def stop(self) -> None:
        await asyncio.gather(*(node.kill() for node in [*self.data, *self.sentinels]))
        for node in self.data:
            if node.door is not None:
                await node.door.close()


class RedisCluster:
    """Three masters, each with a replica.

    Args:
        folder: for what they write.
    """

    def __init__(self, folder: Path) -> None:
        ports = _free_ports(CLUSTER_NODES)
        self.nodes = [Node(f"c{1 + n}", port, folder / f"c{1 + n}") for n, port in enumerate(ports)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    async def start(self) -> None:
        """Returns when every node says that all is well."""
        for node in self.nodes:
            _configure(
                node,
                *("cluster-enabled yes", f"cluster-node-timeout {NODE_TIMEOUT_MS}", "cluster-config-file nodes.conf"),
                *('save ""', "appendonly no", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1"),
            )
        await asyncio.gather(*(node.run() for node in self.nodes))
        hosts = [f"{HOST}:{node.port}" for node in self.nodes]
        making = await asyncio.create_subprocess_exec(
            *(find_program("redis-cli"), "--cluster", "create", *hosts, "--cluster-replicas", "1", "--cluster-yes"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await making.communicate()
        if making.returncode:
            raise CannotShow(f"redis-cli made no cluster: {said.decode(errors='replace').strip()[-200:]}")
        deadline_s = time.monotonic() + START_S
        while len(await self.masters()) < CLUSTER_NODES // 2 or not await self._is_well():
            if time.monotonic() > deadline_s:
                raise CannotShow("the nodes of the cluster did not come together")
            await asyncio.sleep(LOOK_AGAIN_S)

    async def masters(self) -> list[Node]:
        """Those that say so themselves."""
        roles = [(await info_of(node.port)).get("role") for node in self.nodes]
        return [node for node, role in zip(self.nodes, roles, strict=True) if role == "master"]

    async def stop(self) -> None:
        await asyncio.gather(*(node.kill() for node in self.nodes))

    async def _is_well(self) -> bool:
        """Every node's replica is linked, and every node takes requests."""
        told = [await info_of(node.port) for node in self.nodes]
        linked = sum(one.get("master_link_status") == "up" for one in told)
        states = [await _ask(node.port, b"CLUSTER INFO") for node in self.nodes]
        return linked == CLUSTER_NODES // 2 and all(b"cluster_state:ok" in state for state in states)


async def _ask(port: int, command: bytes) -> bytes:
    """A few lines of answer to a command; nothing where there is none."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(command + b"\r\n")
            answer = await reader.read(CHUNK_BYTES)
            writer.transport.abort()
            return answer
    return b""


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses, nor those of their buses, and that connections are not given by chance."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind((HOST, port))
            other.bind((HOST, port + BUS))
            if port not in found:
                found.append(port)
    return found


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    """A primary, its replicas and Sentinels; all have ended when this is left."""
    with tempfile.TemporaryDirectory(prefix="sessile-redis-") as folder:
        group = Watched(Path(folder))
        try:
            await group.start()
            yield group
        finally:
            await group.stop()


@contextlib.asynccontextmanager
async def redis_cluster() -> AsyncIterator[RedisCluster]:
    """A cluster; all its nodes have ended when this is left."""
    with tempfile.TemporaryDirectory(prefix="sessile-redis-") as folder:
        group = RedisCluster(Path(folder))
        try:
            await group.start()
            yield group
        finally:
            await group.stop()
