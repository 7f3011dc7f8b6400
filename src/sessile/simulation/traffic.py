"""Browsers at work, and the balancer between them and the servers.

The balancer knows who refuses connections and who drains; of a server that hangs it learns when a request takes too long.
What may be repeated is sent to another server when its own dies or hangs; what may have been executed is not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sessile.simulation.browsers import Jar, Tab
from sessile.simulation.options import rng_of
from sessile.simulation.serving import Request, Work

if TYPE_CHECKING:
    from typing import Protocol

    from sessile.simulation.options import Options
    from sessile.simulation.process import Process
    from sessile.simulation.schedule import Schedule
    from sessile.simulation.serving import Op, Witness

    class World(Witness, Protocol):
        """What browsers need of the world."""

        options: Options
        schedule: Schedule

        def living(self) -> list[Process]:
            """Every process that has not died."""

        def outcome(self, name: str) -> None:
            """Count what became of a request."""


__all__ = ["Traffic"]

PATIENCE_MS: Final = 1_500
"""So long a browser waits for an answer."""
FRONT_MS_MAX: Final = 3
"""What the way between browser and server takes."""
LATE_CHANCE: Final = 0.08
LATE_MS_MAX: Final = 60
"""How often, and by how much, an answer is late, so that a later one overtakes it."""
TRIES_MAX: Final = 3


class Traffic:
    """Everybody who makes requests."""

    def __init__(self, world: World, seed: int) -> None:
        options = world.options
        self._world = world
        self._rng = rng_of(seed, "traffic")
        self._turn = 0
        self.requests = 0
        self._left = 0
        self._tabs: list[Tab] = []
        tabs = 2 if "tabs" in options.behaviours else 1
        self.jars = [Jar(number) for number in range(options.browsers)]
        for jar in self.jars:
            for _ in range(self._rng.randrange(1, tabs + 1)):
                self._tabs.append(Tab(len(self._tabs), jar, options, seed))
        self._by_request: dict[Request, tuple[Tab | None, int]] = {}
        """Requests whose browsers wait: the tab, and how often it was tried."""

    @property
    def is_idle(self) -> bool:
        return not self._by_request

    def open(self, requests: int, until_ms: int) -> None:
        """Let the browsers make so many requests, until then."""
        schedule, rng = self._world.schedule, self._rng
        self._left = requests
        for tab in self._tabs:
            schedule.after(tab.think_ms(), partial(self._go_on, tab))
        if "thieves" in self._world.options.behaviours:
            for _ in range(2):
                stolen_ms = rng.randrange(schedule.now_ms, until_ms)
                schedule.at(stolen_ms, partial(self._steal, rng.randrange(until_ms - stolen_ms + 1)))
        schedule.at(until_ms, self.close)

    def close(self) -> None:
        """No browser begins another request."""
        self._left = 0

    def probe(self, header: bytes, process: Process, *ops: Op) -> Request:
        """One request with these cookies at this server; without operations it only looks."""
        jar = Jar(-1)
        request = self._make(jar, header, Work(ops))
        request.process = process
        self._by_request[request] = (None, TRIES_MAX)
        process.enqueue_request(partial(process.serve, request))
        return request

    def glance(self, header: bytes, process: Process, *ops: Op) -> None:
        """A probe in the midst of everything: the server may be gone, or never answer."""
        if not process.is_dead:
            request = self.probe(header, process, *ops)
            self._world.schedule.after(PATIENCE_MS, partial(self._give_up, request))

    # -- tabs --------------------------------------------------------------------------------------------------------

    def _go_on(self, tab: Tab) -> None:
        if tab.under_way:
            return
        for _ in range(min(tab.burst(), self._left)):
            self._left -= 1
            tab.under_way += 1
            self._send(self._make(tab.jar, tab.jar.header, tab.work()), tab, 1)

    def _is_done(self, request: Request, outcome: str) -> None:
        """Its browser no longer waits for it."""
        tab, _ = self._by_request.pop(request)
        self._world.outcome(outcome)
        if tab is not None:
            tab.under_way -= 1
            if not tab.under_way:
                self._world.schedule.after(tab.think_ms(), partial(self._go_on, tab))

    def _steal(self, wait_ms: int) -> None:
        """Copy somebody's cookies, and use them later."""
        jar = Jar(-2)
        jar.cookies = dict(self._rng.choice(self.jars).cookies)
        header = "; ".join(f"{name}={value}" for name, value in jar.cookies.items()).encode()
        self._world.schedule.after(wait_ms, partial(self._use, jar, header))

    def _use(self, jar: Jar, header: bytes) -> None:
        if header:
            self._send(self._make(jar, header, Work()), None, 1)

    # -- the balancer ------------------------------------------------------------------------------------------------

    def _make(self, jar: Jar, header: bytes, work: Work) -> Request:
        self.requests += 1
        request = Request(self.requests, jar, header, work, self._world)
        request.sent_ms = self._world.schedule.now_ms
        return request

    def _choose(self, tab: Tab | None) -> Process | None:
        living = self._world.living()
        ready = [process for process in living if not process.is_draining] or living
        if not ready:
            return None
        routing = self._world.options.routing
        if routing == "round-robin":
            self._turn += 1
            return ready[self._turn % len(ready)]
        if routing == "sticky" and tab is not None:
            mine = [process for process in ready if process.place == tab.jar.server]
            process = mine[0] if mine else self._rng.choice(ready)
            tab.jar.server = process.place
            return process
        return self._rng.choice(ready)

    def _send(self, request: Request, tab: Tab | None, tries: int) -> None:
        process = self._choose(tab)
        self._by_request[request] = (tab, tries)
        if process is None:
            self._is_done(request, "nobody there")
            return
        schedule = self._world.schedule
        schedule.after(self._rng.randrange(FRONT_MS_MAX), partial(self._arrive, request, process))
        schedule.after(PATIENCE_MS, partial(self._give_up, request))

    def _arrive(self, request: Request, process: Process) -> None:
        if process.is_dead:
            self._again(request, "refused")  # nothing of it was executed
            return
        request.process = process
        process.enqueue_request(partial(process.serve, request))

    def _again(self, request: Request, outcome: str) -> None:
        """Send it to another server, unless it was tried often."""
        if request not in self._by_request:
            return
        tab, tries = self._by_request[request]
        if tries >= TRIES_MAX:
            self._is_done(request, outcome)
            return
        del self._by_request[request]
        self._world.outcome("sent again")
        self._send(self._make(request.jar, request.header, request.work), tab, tries + 1)

    def _give_up(self, request: Request) -> None:
        self._lose(request, "given up")

    def cut(self, request: Request) -> None:
        """The process that served it has died."""
        self._lose(request, "cut")

    def _lose(self, request: Request, outcome: str) -> None:
        if request not in self._by_request or request.status:
            return
        if request.work.is_repeatable:
            self._again(request, outcome)
        else:
            self._is_done(request, outcome)

    # -- answers -----------------------------------------------------------------------------------------------------

    def respond(self, request: Request, status: int, cookies: list[bytes]) -> None:
        """The head of an answer is on its way."""
        request.status = status
        if request not in self._by_request:
            return
        delay_ms = self._rng.randrange(FRONT_MS_MAX)
        if self._rng.random() < LATE_CHANCE:
            delay_ms += self._rng.randrange(LATE_MS_MAX)
        self._world.schedule.after(delay_ms, partial(self._came, request, cookies))

    def _came(self, request: Request, cookies: list[bytes]) -> None:
        request.jar.keep(cookies)
        self._is_done(request, f"status {request.status}")
