"""The whole demo: servers, balancer, control API, dashboard; started together and ended together.

`run` owns the processes. However it returns or raises (a signal, a failure half way, a balancer that dies), all of them
have ended by then; should this process itself be killed, they end by their lifelines.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sessile.dashboard.control import Outcome, control_app
from sessile.dashboard.server import InnerServer
from sessile.errors import LabError, SessileError, SettingsError
from sessile.lab import ports
from sessile.lab.fleet import SERVERS_MAX, Fleet, FleetPlan
from sessile.lab.front import Front
from sessile.lab.redis_keeper import RedisKeeper, redis_program
from sessile.overview import remarks, sights, totals
from sessile.strategies import STRATEGIES
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["ROUTINGS", "Demo", "DemoPlan", "run"]

ROUTINGS: Final = ("sticky", "round-robin")
PORT_MAX: Final = 65_534
WITHOUT_REDIS: Final = "install redis-server and sessile[redis], and the demo runs one that fails over"
STOPPED_BY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What was asked for on the command line."""

    strategy: str = "sticky"
    servers: int = 4
    port: int = 8080
    routing: str = "sticky"

    def __post_init__(self) -> None:
        available = [it.name for it in STRATEGIES if it.is_available]
        if self.strategy not in available:
            there = ", ".join(available)
            raise SettingsError(f"--strategy {self.strategy} is not in this version yet; what there is: {there}")
        if not 1 <= self.servers <= SERVERS_MAX:
            raise SettingsError(f"--servers {self.servers} must be 1 to {SERVERS_MAX}")
        if not 1 <= self.port <= PORT_MAX:
            raise SettingsError(f"--port {self.port} must be 1 to {PORT_MAX}; the dashboard takes the port after it")

    @property
    def url(self) -> str:
        """Of the service, through the balancer."""
        return f"http://{ports.HOST}:{self.port}/"

    @property
    def dashboard(self) -> str:
        return f"http://{ports.HOST}:{self.port + 1}/"


class Demo:
    """The parts of a running demo, as the control API sees them."""

    def __init__(self, plan: DemoPlan, folder: Path, say: Callable[[str], None]) -> None:
        secret = secrets.token_urlsafe(32)
        self.plan = plan
        self.keeper = keeper_for(plan, folder, self._pass_on)
        self._file = folder / "sessions.db"
        self._say = say
        self._is_serving = False
        self.fleet = Fleet(
            FleetPlan(
                port=plan.port,
                strategy=plan.strategy,
                routing=plan.routing,
                secret=secret,
                token=secrets.token_urlsafe(32),
                dashboard=plan.dashboard,
                store=f"sqlite:///{self._file}" if plan.strategy == "store" and self.keeper is None else "",
            ),
            self._pass_on,
        )
        self.front = Front(plan.port, plan.routing, secret, folder, self._pass_on)
        self._control: InnerServer | None = None
        self._adding = asyncio.Lock()

    async def start(self) -> None:
        """Start everything; returns once the service answers on its port.

        Raises:
            LabError: a port is taken, or a process did not start. Call `stop` all the same.
        """
        ports.require_free(self.plan.port)
        self._control = InnerServer(control_app(self), ports.listen(self.plan.port + 1))
        if self.keeper is not None:
            await self.keeper.start()
            self.fleet.use_store(self.keeper.url)
        await self.fleet.start(self.plan.servers)
        await self.front.start(self.fleet.ports(), os.getpid())
        self._control.start()
        self._is_serving = True

    async def stop(self) -> None:
        """End everything: first what takes requests, then what serves them."""
        self._is_serving = False
        if self._control is not None:
            await self._control.stop()
        await self.front.stop()
        await self.fleet.stop()
        if self.keeper is not None:
            await self.keeper.stop()

    async def watch(self) -> None:
        """Observe every process, for ever."""
        watching = [self.fleet.watch(), *([] if self.keeper is None else [self.keeper.watch()])]
        await asyncio.gather(*watching)

    def _pass_on(self, line: str) -> None:
        """What a process says while all is well; the last words of one that fails are in the error that is raised."""
        if self._is_serving:
            self._say(line)

    # -- what the control API asks -------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        sees = self.front.sees
        servers = [
            {**member.status(), "balancer_sees": sees.get(member.name, "up")} for member in self.fleet.members.values()
        ]
        sight = sights(servers)
        return {
            "strategy": self.plan.strategy,
            "routing": self.plan.routing,
            "url": self.plan.url,
            "pid": os.getpid(),
            "balancer": self.front.status(),
            "servers": [{**server, "sees": sight.get(server["name"], {})} for server in servers],
            "totals": totals(servers),
            "remarks": [*self._warnings(), *remarks(servers)],
            "store": [] if self.keeper is None else self.keeper.status(),
        }

    def _warnings(self) -> list[str]:
        if self.plan.strategy == "store" and self.keeper is None:
            return [f"the store is one file, a single point of failure: {WITHOUT_REDIS}"]
        return []

    async def act(self, name: str, action: str) -> Outcome:
        if self.keeper is not None and name in self.keeper.kept:
            return await self.keeper.act(name, action)
        return await self.fleet.act(name, action)

    async def add(self) -> Outcome:
        if self._adding.locked():
            return Outcome(409, {"error": "a server is being added already; wait a moment"})
        async with self._adding:
            try:
                member = await self.fleet.add()
            except SettingsError as error:
                return Outcome(409, {"error": str(error)})
            except SessileError as error:
                return Outcome(500, {"error": str(error)})
            if not await self.front.take(self.fleet.ports()):
                return Outcome(500, {"error": f"{member.name} is ready, but the balancer did not take it up"})
            return Outcome(201, member.status())


def keeper_for(plan: DemoPlan, folder: Path, say: Callable[[str], None]) -> RedisKeeper | None:
    """What runs a replicated store for the demo, where this machine has one; without it a file has to do."""
    if plan.strategy != "store" or redis_program() is None or find_spec("redis") is None:
        return None
    return RedisKeeper(folder, plan.port, say)


async def run(plan: DemoPlan, started: Callable[[dict[str, Any]], None], say: Callable[[str], None]) -> None:
    """Run a demo until a signal ends it.

    Args:
        plan: what to run.
        started: called with the status once everything serves.
        say: called with what the processes say meanwhile.

    Raises:
        LabError: it could not be started, or its balancer ended. All processes have ended.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPPED_BY:
        loop.add_signal_handler(number, stopping.set)
    with tempfile.TemporaryDirectory(prefix="sessile-demo-") as folder:
        demo = Demo(plan, Path(folder), say)
        try:
            if await _unless(stopping, demo.start()):
                started(demo.status())
                await _serve(demo, stopping)
        finally:
            await demo.stop()


async def _serve(demo: Demo, stopping: asyncio.Event) -> None:
    """Watch the servers until it is over."""
    watching = asyncio.create_task(demo.watch())
    ended = asyncio.create_task(demo.front.ended())
    try:
        await _unless(stopping, asyncio.wait({watching, ended}, return_when=asyncio.FIRST_COMPLETED))
        if not stopping.is_set():
            raise LabError(ended.result() if ended.done() else f"the servers are not watched: {watching.exception()}")
    finally:
        await end_tasks([watching, ended])


async def _unless(stopping: asyncio.Event, doing: Coroutine[Any, Any, T]) -> bool:
    """Do it, unless told to stop meanwhile; whether it was done to the end."""
    task = asyncio.create_task(doing)
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks([task, told])
    if task.cancelled():
        return False
    task.result()
    return True
