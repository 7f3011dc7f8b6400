"""The store of a demo: a Redis with two replicas, and three sentinels that let another one take over when it fails.

Each is a process of its own on a free port, from the machine's `redis-server`, in a folder that goes with the demo. Nothing
is written to disk. Everything that can be done to a server of the demo can be done to each of these: kill, pause, resume,
restart.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sessile.dashboard.control import Outcome
from sessile.errors import LabError
from sessile.lab import ports
from sessile.lab.child import Child, run_module
from sessile.lab.probe import stopped_among
from sessile.lab.states import Observed, Phase, State, objection, state_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["MASTER", "RedisKeeper", "redis_program"]

PROGRAMS: Final = ("redis-server", "valkey-server")
MASTER: Final = "sessile"
"""What the sentinels call the primary, wherever it is."""
REPLICAS: Final = 2
SENTINELS: Final = 3
QUORUM: Final = 2
PORTS_FROM: Final = 100
START_S: Final = 20.0
DOWN_AFTER_MS: Final = 1_000
FAILOVER_TIMEOUT_MS: Final = 5_000
LOOK_S: Final = 0.25
ANSWER_S: Final = 0.5


def redis_program() -> str | None:
    """The server's program on this machine, if there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@dataclass(slots=True)
class Kept:
    """One process: its name and port for good, and what is behind them now."""

    name: str
    port: int
    is_sentinel: bool
    child: Child | None = None
    is_stopped: bool = False
    role: str = ""
    missed: int = 0
    has_answered: bool = False

    @property
    def state(self) -> State:
        if self.child is None:
            return State.STARTING
        phase = Phase.READY if self.has_answered else None
        return state_of(Observed(self.child.is_alive, self.is_stopped, phase, self.missed))

    def status(self) -> dict[str, Any]:
        """What the control API tells of it."""
        is_running = self.child is not None and self.child.is_alive
        return {
            "name": self.name,
            "pid": self.child.pid if self.child is not None and is_running else None,
            "port": self.port,
            "role": self.role if self.state is State.READY else "",
            "state": self.state,
        }


class RedisKeeper:
    """Starts, watches and ends them.

    Args:
        folder: where their configurations are; only this user reads it.
        port: of the demo's balancer; theirs are near it, out of the way of its servers'.
        say: hears what the processes say.
    """

    def __init__(self, folder: Path, port: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._port = port + PORTS_FROM
        self._say = say
        self.kept: dict[str, Kept] = {}

    @property
    def url(self) -> str:
        """Where the servers find the store."""
        hosts = ",".join(f"{ports.HOST}:{each.port}" for each in self.kept.values() if each.is_sentinel)
        return f"redis+sentinel://{hosts}/{MASTER}/0"

    async def start(self) -> None:
        """Start all; returns when the primary has its replicas and the sentinels know of each other.

        Raises:
            LabError: one did not start; its last words are told.
        """
        for name in ("r1", *(f"r{2 + number}" for number in range(REPLICAS)), *(f"q{1 + n}" for n in range(SENTINELS))):
            taken = [each.port for each in self.kept.values()]
            with ports.bind_near(self._port, taken) as reserved:
                self.kept[name] = Kept(name, reserved.getsockname()[1], name.startswith("q"))
        primary = self.kept["r1"]
        for each in self.kept.values():
            self._configure(each, primary)
        await asyncio.gather(*(self._run(each) for each in self.kept.values() if not each.is_sentinel))
        await self._until(primary, "connected_slaves", str(REPLICAS), "its replicas did not come")
        await asyncio.gather(*(self._run(each) for each in self.kept.values() if each.is_sentinel))
        for each in self.kept.values():
            if each.is_sentinel:
                others = f"slaves={REPLICAS},sentinels={SENTINELS}"
                await self._until(each, "master0", others, "it did not find the others")

    async def stop(self) -> None:
        """End all."""
        await asyncio.gather(*(each.child.kill() for each in self.kept.values() if each.child is not None))

    async def watch(self) -> None:
        """Observe everybody, for ever."""
        while True:
            await asyncio.gather(*(self._observe(each) for each in self.kept.values()))
            await asyncio.sleep(LOOK_S)

    async def act(self, name: str, action: str) -> Outcome:
        """Do one of the control API's actions, as for servers; draining makes no sense here."""
        kept = self.kept[name]
        await self._observe(kept)
        if action == "drain":
            return Outcome(409, {"error": f"{name} is a process of the store: kill, pause, resume or restart it"})
        if reason := objection(name, action, kept.state):
            return Outcome(409, {"error": reason})
        child = kept.child
        assert child is not None, "started before"
        if action == "kill":
            await child.kill()
        elif action == "restart":
            await child.kill()
            try:
                await self._run(kept)
            except LabError as error:
                return Outcome(500, {"error": str(error)})
        else:
            child.send(signal.SIGSTOP if action == "pause" else signal.SIGCONT)
            await asyncio.sleep(ANSWER_S / 10)
        await self._observe(kept)
        return Outcome(200, kept.status())

    def status(self) -> list[dict[str, Any]]:
        return [each.status() for each in self.kept.values()]

    # -- one process -------------------------------------------------------------------------------------------------

    def _configure(self, kept: Kept, primary: Kept) -> None:
        """Its configuration; a sentinel writes into its own, so each has a file."""
        folder = self._folder / kept.name
        folder.mkdir(mode=0o700)
        lines = [f"port {kept.port}", f"bind {ports.HOST}", f"dir {folder}", "protected-mode yes"]
        if kept.is_sentinel:
            lines += [
                f"sentinel monitor {MASTER} {ports.HOST} {primary.port} {QUORUM}",
                f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {MASTER} {FAILOVER_TIMEOUT_MS}",
            ]
        else:
            lines += ['save ""', "appendonly no", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1"]
            lines += [] if kept is primary else [f"replicaof {ports.HOST} {primary.port}"]
        file = folder / "redis.conf"
        file.touch(mode=0o600)
        file.write_text("\n".join(lines) + "\n")

    async def _run(self, kept: Kept) -> None:
        program = redis_program()
        assert program is not None, "looked for before a keeper is made"
        arguments = [
            program,
            str(self._folder / kept.name / "redis.conf"),
            *(["--sentinel"] if kept.is_sentinel else []),
        ]
        kept.is_stopped, kept.missed, kept.has_answered = False, 0, False
        kept.child = await run_module(
            "sessile.lab.lifeline",
            [str(os.getpid()), "exec", *arguments],
            on_error=lambda line: self._say(f"{kept.name}: {line}"),
        )
        await self._until(kept, "run_id", "", "it did not answer")

    async def _until(self, kept: Kept, field: str, holds: str, otherwise: str) -> None:
        """Wait until this field of what it tells of itself is there, and holds this."""
        deadline = time.monotonic() + START_S
        child = kept.child
        assert child is not None, "started before"
        while (told := (await info_of(kept.port)).get(field)) is None or holds not in told:
            if not child.is_alive or time.monotonic() > deadline:
                raise LabError(
                    f"{kept.name}, a process of the store: {otherwise}: {child.last_words() or child.how_it_ended()}"
                )
            await asyncio.sleep(0.02)
        await self._observe(kept)

    async def _observe(self, kept: Kept) -> None:
        child = kept.child
        if child is None or not child.is_alive:
            return
        kept.is_stopped = bool(stopped_among([child.pid]))
        if kept.is_stopped:
            return
        info = await info_of(kept.port)
        if child is not kept.child:
            return
        kept.missed = 0 if info else kept.missed + 1
        if info:
            kept.has_answered = True
            kept.role = "sentinel" if kept.is_sentinel else {"master": "primary"}.get(info.get("role", ""), "replica")


async def info_of(port: int) -> dict[str, str]:
    """What a Redis or sentinel tells of itself (INFO); nothing where it does not answer in time."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(ports.HOST, port)
            try:
                writer.write(b"INFO\r\n")
                size = int((await reader.readline())[1:])
                text = (await reader.readexactly(size)).decode(errors="replace")
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return {}
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
