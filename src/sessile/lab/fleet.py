"""The servers of a demo: started side by side, watched, and acted upon.

One `Member` per server keeps its name and its port for good, whatever process is behind them. What is known of it comes
from observation, every quarter of a second: the process, the kernel's word on whether it is stopped, and its own answer.
Actions on one server wait for nobody: while one is under way another is refused.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sessile.dashboard.control import Outcome
from sessile.errors import LabError, SessileError, SettingsError
from sessile.lab import ports, vitals
from sessile.lab.child import Child, run_module
from sessile.lab.probe import Answered, ask, stopped_among
from sessile.lab.server import ServerPlan
from sessile.lab.states import Observed, Phase, State, objection, state_of
from sessile.tasks import end_tasks
from sessile.urls import CLUSTERS

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

__all__ = ["SERVERS_MAX", "Fleet", "FleetPlan", "Member"]

SERVERS_MAX: Final = 32
WATCH_EVERY_S: Final = 0.25
START_S: Final = 30.0
STOP_S: Final = 3.0
RESTART_S: Final = 15.0
"""A server of a cluster that is told to stop drains first, and hands over what it holds."""
SETTLE_S: Final = 3.0
"""How long an action may take to show."""
REBIND_S: Final = 3.0
LOOK_AGAIN_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What all servers of a demo have in common."""

    port: int
    """The balancer's: the demo goes by it."""
    strategy: str
    routing: str
    secret: str
    token: str
    dashboard: str
    store: str = ""
    """The URL of the store that they share; empty where they do not."""

    @property
    def is_cluster(self) -> bool:
        """Whether the servers talk to each other."""
        return self.strategy in CLUSTERS


@dataclass(slots=True)
class Member:
    """One server: its name and port, and the process behind them now."""

    name: str
    port: int
    node_port: int = 0
    """Where the other servers reach it; 0 where servers do not talk."""
    child: Child | None = None
    is_stopped: bool = False
    phase: Phase | None = None
    missed: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def state(self) -> State:
        if self.child is None:
            return State.STARTING
        return state_of(Observed(self.child.is_alive, self.is_stopped, self.phase, self.missed))

    def status(self) -> dict[str, Any]:
        """What the control API tells of it. A dead server holds nothing; a silent one what it last said."""
        state = self.state
        stats: dict[str, int] = {} if state is State.DEAD else self.figures.get("stats", {})
        cluster = {} if state is State.DEAD else self.figures.get("cluster", {})
        is_running = self.child is not None and self.child.is_alive
        return {
            "name": self.name,
            "pid": self.child.pid if self.child is not None and is_running else None,
            "port": self.port,
            "node": f"{ports.HOST}:{self.node_port}" if self.node_port else "",
            "state": state,
            "detail": self.child.how_it_ended() if self.child is not None else "",
            "sessions": stats.get("sessions", 0),
            "copies": cluster.get("backup", 0) + cluster.get("other", 0),
            "bytes": stats.get("bytes", 0),
            "bytes_sent": cluster.get("bytes_sent", 0),
            "bytes_received": cluster.get("bytes_received", 0),
            "requests": 0 if state is State.DEAD else self.figures.get("requests", 0),
            "uptime_s": 0 if state is State.DEAD else self.figures.get("uptime_s", 0),
            "starts": self.starts,
            "stats": stats,
            "cluster": cluster,
        }


class Fleet:
    """All servers of one demo."""

    def __init__(self, plan: FleetPlan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self.members: dict[str, Member] = {}

    def ports(self) -> dict[str, int]:
        """Name → port, for the balancer."""
        return {member.name: member.port for member in self.members.values()}

    def use_store(self, url: str) -> None:
        """Where servers that are started from now on keep sessions."""
        self._plan = replace(self._plan, store=url)

    async def start(self, count: int) -> None:
        """Start so many servers side by side; returns once all are ready.

        Raises:
            LabError: one of them did not start; it says which and what its last words were.
        """
        bound = [self._next_member() for _ in range(count)]
        starting = [asyncio.create_task(self._start(member, listener)) for member, listener in bound]
        try:
            await asyncio.gather(*starting)
        finally:
            await end_tasks(starting)
            for _, listener in bound:
                listener.close()

    async def add(self) -> Member:
        """Start one more.

        Raises:
            SettingsError: there are as many as may be.
            LabError: it did not start; it is not a member then.
        """
        if len(self.members) >= SERVERS_MAX:
            raise SettingsError(f"there are {SERVERS_MAX} servers; the demo runs no more")
        member, listener = self._next_member()
        try:
            async with member.lock:
                await self._start(member, listener)
        except SessileError:
            del self.members[member.name]
            raise
        finally:
            listener.close()
        return member

    async def act(self, name: str, action: str) -> Outcome:
        """Do one of the control API's actions; the outcome holds the server as it was observed afterwards."""
        member = self.members.get(name)
        if member is None:
            return Outcome(404, {"error": f"there is no server {name!r}; there are {', '.join(self.members)}"})
        if member.lock.locked():
            return Outcome(409, {"error": f"{name} is busy with what it was told before; wait a moment"})
        async with member.lock:
            await self._observe(member)
            if reason := objection(name, action, member.state):
                return Outcome(409, {"error": reason})
            acts: dict[str, Callable[[Member], Awaitable[bool]]] = {
                "kill": self._kill,
                "pause": self._pause,
                "resume": self._resume,
                "restart": self._restart,
                "drain": self._drain,
            }
            try:
                has_shown = await acts[action](member)
            except SessileError as error:
                return Outcome(500, {"error": str(error)})
        if not has_shown:
            return Outcome(504, {"error": f"{name} was told to {action}, and is still {member.state}"})
        return Outcome(200, member.status())

    async def watch(self) -> None:
        """Observe everybody, for ever."""
        while True:
            await asyncio.gather(*(self._observe(member) for member in list(self.members.values())))
            await asyncio.sleep(WATCH_EVERY_S)

    async def stop(self) -> None:
        """End all processes; none is left when this returns."""
        children = [member.child for member in self.members.values() if member.child is not None]
        if self._plan.strategy == "sticky":
            await asyncio.gather(*(child.stop(STOP_S) for child in children))
        else:  # they all go: there is nobody to hand over to, and no request to wait for
            await asyncio.gather(*(child.kill() for child in children))

    # -- one server ------------------------------------------------------------------------------------------------

    def _next_member(self) -> tuple[Member, socket.socket]:
        taken = [port for member in self.members.values() for port in (member.port, member.node_port)]
        listener = ports.bind_near(self._plan.port, taken)
        number = 1 + max((int(name[1:]) for name in self.members), default=0)
        member = Member(f"s{number}", listener.getsockname()[1])
        if self._plan.is_cluster:
            with ports.bind_near(self._plan.port, [*taken, member.port]) as reserved:
                member.node_port = reserved.getsockname()[1]
        self.members[member.name] = member
        return member, listener

    def _url(self, member: Member) -> str:
        """Where this server's sessions are; every server names all that there are when it starts."""
        if not self._plan.is_cluster:
            return self._plan.store or "sticky://"
        members = ",".join(f"{ports.HOST}:{each.node_port}" for each in self.members.values())
        more = "&directory=keys" if self._plan.strategy == "primary-backup" else ""
        return f"{self._plan.strategy}://?members={members}&me={ports.HOST}:{member.node_port}{more}"

    async def _start(self, member: Member, listener: socket.socket) -> None:
        """Start the process behind a member; returns once it is ready."""
        plan = self._plan
        told = ServerPlan(
            name=member.name,
            descriptor=listener.fileno(),
            parent_pid=os.getpid(),
            url=self._url(member),
            secret=plan.secret,
            cookie_name=f"sid-{plan.port}",
            token=plan.token,
            strategy=plan.strategy,
            routing=plan.routing,
            dashboard=plan.dashboard,
        )
        member.is_stopped, member.phase, member.missed, member.figures = False, None, 0, {}
        member.child = await run_module(
            "sessile.lab.server",
            first_line=msgspec.json.encode(told),
            descriptors=[listener.fileno()],
            on_error=lambda line: self._say(f"{member.name}: {line}"),
        )
        member.starts += 1
        listener.close()
        child = member.child
        if not await self._shows(member, lambda: member.state is State.READY or not child.is_alive, START_S):
            await child.kill()
            raise LabError(f"server {member.name} was not ready within {START_S:g} s: {_words_of(child)}")
        if not child.is_alive:
            await child.ended()
            raise LabError(f"server {member.name} did not start: {_words_of(child)}")

    async def _observe(self, member: Member) -> None:
        """Look at the process, and ask it how it is."""
        child = member.child
        if child is None or not child.is_alive:
            return
        member.is_stopped = bool(stopped_among([child.pid]))
        if member.is_stopped:
            return
        answer = await self._ask(member, "GET", vitals.STATUS_PATH)
        if member.child is not child:  # restarted meanwhile: this was about the process before
            return
        if answer is None or answer.status != 200 or answer.data.get("pid") != child.pid:
            member.missed += 1
            return
        member.missed = 0
        member.phase = Phase(answer.data["phase"])
        member.figures = answer.data

    async def _ask(self, member: Member, method: str, path: str) -> Answered | None:
        return await ask(member.port, path, method=method, headers={vitals.TOKEN_HEADER: self._plan.token})

    async def _shows(self, member: Member, condition: Callable[[], bool], within_s: float = SETTLE_S) -> bool:
        """Observe until the condition holds; False when it did not in time."""
        deadline = time.monotonic() + within_s
        while True:
            await self._observe(member)
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _kill(self, member: Member) -> bool:
        await _child_of(member).kill()
        return True

    async def _pause(self, member: Member) -> bool:
        _child_of(member).send(signal.SIGSTOP)
        return await self._shows(member, lambda: member.state is State.PAUSED)

    async def _resume(self, member: Member) -> bool:
        """Let a paused process go on; let a draining server take new users again."""
        if member.state is State.PAUSED:
            _child_of(member).send(signal.SIGCONT)
            return await self._shows(member, lambda: not member.is_stopped and not member.missed)
        await self._ask(member, "POST", vitals.SERVE_PATH)
        return await self._shows(member, lambda: member.state is State.READY)

    async def _drain(self, member: Member) -> bool:
        await self._ask(member, "POST", vitals.DRAIN_PATH)
        return await self._shows(member, lambda: member.state is State.DRAINING)

    async def _restart(self, member: Member) -> bool:
        """A new process under the same name, on the same port; the one before ends in good order if it can."""
        await _child_of(member).stop(STOP_S if self._plan.strategy == "sticky" else RESTART_S)
        with await self._bind_again(member.port) as listener:
            await self._start(member, listener)
        return True

    async def _bind_again(self, port: int) -> socket.socket:
        """The port of a server that has ended; a connection of somebody may still hold it for a moment."""
        deadline = time.monotonic() + REBIND_S
        while True:
            try:
                return ports.bind(port)
            except SettingsError:
                if time.monotonic() > deadline:
                    raise LabError(f"port {port} was taken by somebody else meanwhile") from None
            await asyncio.sleep(LOOK_AGAIN_S)


def _child_of(member: Member) -> Child:
    assert member.child is not None, "a server that can be acted upon was started"
    return member.child


def _words_of(child: Child) -> str:
    return child.last_words() or child.how_it_ended() or "it said nothing"
