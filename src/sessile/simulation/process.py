"""One server process of the virtual world: a real engine and a real node on one table, behind a gate.

Whatever the process does passes the gate: a paused process does nothing, and what happens to it meanwhile waits in its
kernel; a slow one does it later; a dead one never. Its clock has an offset and a rate of its own and may jump forward.
Requests that run in threads, as under WSGI, have a gate of their own: they are served while the node's loop stands still, is
slow, or is late after a stop. Whatever they ask of the node waits for its loop.
Requests are coroutines of the engine; this is the loop that drives them and turns the node's effects into what they ask for.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sessile.engine import Engine
from sessile.replication.events import (
    AddressesFound,
    Answer,
    Dial,
    DrawWriter,
    FramesReceived,
    HangUp,
    Note,
    Send,
    StopAsked,
    Woken,
)
from sessile.simulation.asking import SimBackend, Sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random
    from typing import Protocol

    from sessile.backend import Acknowledged, Pulled
    from sessile.replication.events import Effect, Input
    from sessile.replication.node import Node
    from sessile.settings import Settings
    from sessile.simulation.asking import Pull, Push
    from sessile.simulation.network import Network, Side
    from sessile.simulation.schedule import Schedule, Trace
    from sessile.simulation.serving import Request
    from sessile.table import Table

    class World(Protocol):
        """What a process needs of the world."""

        schedule: Schedule
        trace: Trace
        network: Network

        def make_node(self, process: Process, table: Table) -> Node:
            """A node for this process."""

        def raised(self, process: Process, where: str, error: Exception) -> None:
            """Something raised that must not."""

        def came(self, process: Process, frames: Iterable[bytes]) -> None:
            """Frames are about to be handled."""

        def asked(self, process: Process, request: Request, question: Pull | Push) -> None:
            """A request begins to wait."""

        def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
            """What a request waited for is there."""

        def noted(self, process: Process, note: Note) -> None:
            """A node says something for the log."""

        def stopped(self, process: Process, result: Acknowledged) -> None:
            """A node has left."""


__all__ = ["Clock", "Process"]

STOP_TICKET: Final = 0
TURNS_MAX: Final = 200
"""A node that wants to be woken more often than this in one millisecond spins."""


class _Engine(Engine):
    """The engine, which writes nothing to the log of whoever simulates."""

    def came_too_late(self, call: str) -> None:
        del call
        self.counts["too_late"] += 1


class Clock:
    """A process's clock: it never goes back, is wrong by a constant and a rate, and may jump."""

    __slots__ = ("_offset_ms", "_ppm", "_schedule")

    def __init__(self, schedule: Schedule, *, offset_ms: int = 0, ppm: int = 0) -> None:
        self._schedule = schedule
        self._offset_ms = offset_ms
        self._ppm = ppm

    def __call__(self) -> int:
        now_ms = self._schedule.now_ms
        return self._offset_ms + now_ms + now_ms * self._ppm // 1_000_000

    def jump(self, by_ms: int) -> None:
        self._offset_ms += by_ms

    def until(self, due_ms: int) -> int:
        """How long it takes until the clock shows this."""
        left_ms = due_ms - self()
        return max(0, left_ms - left_ms * self._ppm // 1_000_000)


class Process:
    """A server process, from its start to its end.

    Args:
        world: what is around it.
        place: the number of its name; a restarted process stands at the same place.
        name: the address it listens at.
        incarnation: higher at every start.
        settings: its engine's.
        clock: its clock.
        rng: its chance.
        has_threads: whether requests run in threads beside the node's loop.
    """

    def __init__(
        self,
        world: World,
        place: int,
        name: str,
        incarnation: int,
        *,
        settings: Settings,
        clock: Clock,
        rng: Random,
        has_threads: bool = False,
    ) -> None:
        self.world = world
        self.place = place
        self.name = name
        self.incarnation = incarnation
        self.clock = clock
        self.rng = rng
        self.is_dead = False
        self.is_paused = False
        """Whether its loop stands still."""
        self.is_stopped = False
        """Whether its threads stand still as well; read only if it has threads."""
        self.has_threads = has_threads
        self.is_draining = False
        self.slow_ms = 0
        self.requests: dict[Request, None] = {}
        """Those under way, in the order of their arrival."""
        self._schedule = world.schedule
        self._kernel: deque[Callable[[], None]] = deque()
        self._sockets: deque[Callable[[], None]] = deque()
        """What its threads do once they run again."""
        self._is_stepping = False
        self._links: dict[int, Side] = {}
        self._link_numbers = 0
        self._tickets = STOP_TICKET
        self._waiting: dict[int, tuple[Request, Pull | Push]] = {}
        self._answers: deque[Answer] = deque()
        self._is_busy = False
        self._armed_ms: int | None = None
        self._turns = (0, 0)
        backend = SimBackend(self)
        self.engine = _Engine(settings, backend=backend, clock_ms=clock, draw=rng.randbytes, sweeps=False)
        self.node = backend.node = world.make_node(self, self.engine.table)

    def __repr__(self) -> str:
        return f"<Process {self.name}/{self.incarnation}>"

    # -- the gate ----------------------------------------------------------------------------------------------------

    def enqueue(self, action: Callable[[], None]) -> None:
        """Do this as soon as the process gets to it."""
        if self.is_paused or self._kernel or self.slow_ms:
            self._kernel.append(action)
            if not (self.is_paused or self._is_stepping):
                self._is_stepping = True
                self._schedule.after(self.slow_ms, self._step)
        elif not self.is_dead:
            action()

    def enqueue_input(self, event: Input) -> None:
        self.enqueue(partial(self.feed, event))

    def hurry(self) -> None:
        """Be slow no longer."""
        self.slow_ms = 0
        if not self.is_paused:
            self._step()

    def enqueue_request(self, action: Callable[[], None]) -> None:
        """Do this as soon as a thread runs; without threads, as soon as the loop does."""
        if not self.has_threads:
            self.enqueue(action)
        elif self.is_stopped:
            self._sockets.append(action)
        elif not self.is_dead:
            action()

    def pause(self, *, loop_only: bool = False) -> None:
        """Stop the loop, and the threads unless `loop_only`."""
        self.is_paused = True
        self.is_stopped = not loop_only

    def thaw(self) -> None:
        """Let the threads run again while the loop is still late; they do everything that waits for them."""
        self.is_stopped = False
        while self._sockets and not self.is_dead:
            self._sockets.popleft()()

    def resume(self) -> None:
        """Go on: first with the timers that are due, or first with what waits in the kernel."""
        if not self.is_paused or self.is_dead:
            return
        self.is_paused = False
        if self.has_threads:
            self.thaw()
        if self.rng.random() < 0.5:
            self._woken()
        self._step()

    def die(self) -> list[Request]:
        """Stop for ever, in the middle of everything; returns the requests that were under way."""
        self.is_dead = True
        self._kernel.clear()
        self._sockets.clear()
        cut = list(self.requests)
        for request in cut:
            request.close()
        self.requests.clear()
        self._waiting.clear()
        return cut

    def _step(self) -> None:
        """Do what waits in the kernel: all of it, or, while the process is slow, one thing at a time."""
        self._is_stepping = False
        while self._kernel and not self.is_paused and not self.is_dead:
            self._kernel.popleft()()
            if self.slow_ms and self._kernel:
                self._is_stepping = True
                self._schedule.after(self.slow_ms, self._step)
                return

    # -- the node ----------------------------------------------------------------------------------------------------

    def start(self, addresses: tuple[str, ...]) -> None:
        """Begin to look for the others."""
        self.feed(AddressesFound(addresses))

    def stop(self) -> None:
        """Leave the cluster in good order."""
        self.is_draining = True
        self.enqueue_input(StopAsked(STOP_TICKET))

    def new_link(self, side: Side) -> int:
        self._link_numbers += 1
        self._links[self._link_numbers] = side
        return self._link_numbers

    def sides(self) -> list[Side]:
        """The ends of its connections."""
        return [side for side in self._links.values() if side.is_open]

    def receive(self, side: Side, data: list[bytes]) -> None:
        """Bytes have come. Those that came before the other end was closed can be read after it."""
        if self._links.get(side.link) is not side:  # this process has hung up
            return
        frames = side.frames.feed(data[0] if len(data) == 1 else b"".join(data))
        if frames:
            self.world.came(self, frames)
            self.feed(FramesReceived(side.link, frames))

    def feed(self, event: Input) -> None:
        """Tell the node what happened, and do what it asks for."""
        if self.is_dead:
            return
        self._note(event)
        try:
            effects = self.node.handle(event, self.clock())
            due_ms = self.node.next_wakeup(self.clock())
        except Exception as error:  # noqa: BLE001  # that it never raises is what is checked here
            self.world.raised(self, "node.handle", error)
            return
        if effects:
            self._perform(effects)
        if due_ms is not None:
            self._arm(due_ms)
        if not self._is_busy:
            self._go_on()

    def tell(self, event: Input) -> None:
        """Give the node an event of a request: at once if requests run on the loop, otherwise when the loop runs."""
        if self.has_threads:
            self.enqueue_input(event)
        else:
            self.feed(event)

    def sweep(self) -> None:
        """Let expired sessions leave the table."""
        self.engine.sweep()

    def _note(self, event: Input) -> None:
        what = b"".join(event.frames) if type(event) is FramesReceived else type(event).__name__.encode()
        self.world.trace.add(self._schedule.now_ms, self.place, what)

    def _perform(self, effects: list[Effect]) -> None:
        network = self.world.network
        sends: dict[int, list[bytes]] = {}
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                sends.setdefault(effect.link, []).append(effect.frame)  # type: ignore[union-attr]
            elif kind is Answer:
                self._answers.append(effect)  # type: ignore[arg-type]
            else:
                self._perform_rare(effect, sends)
        for link, data in sends.items():
            side = self._links.get(link)
            if side is not None and side.is_open:
                network.send(side, data)

    def _perform_rare(self, effect: Effect, sends: dict[int, list[bytes]]) -> None:
        match effect:
            case Dial():
                self.world.network.dial(self, effect.address)
            case HangUp():
                side = self._links.pop(effect.link, None)
                if side is not None and side.is_open:
                    data = sends.pop(effect.link, None)
                    if data:
                        self.world.network.send(side, data)
                    self.world.network.hang_up(side)
            case DrawWriter():
                self.engine.draw_writer()  # the next write draws another
            case Note():
                self.world.noted(self, effect)

    def _arm(self, due_ms: int) -> None:
        """Have the node woken then; an alarm that is set already and comes earlier will do."""
        at_ms = self._schedule.now_ms + self.clock.until(due_ms)
        if self._armed_ms is None or at_ms < self._armed_ms:
            self._armed_ms = at_ms
            self._schedule.at(at_ms, partial(self._alarm, at_ms))

    def _alarm(self, at_ms: int) -> None:
        if at_ms == self._armed_ms and not self.is_dead:
            self._armed_ms = None
            self.enqueue(self._woken)

    def _woken(self) -> None:
        due_ms = self.node.next_wakeup(self.clock())
        if due_ms is None:
            return
        if due_ms > self.clock():
            self._arm(due_ms)
            return
        now_ms, turns = self._turns
        self._turns = (self._schedule.now_ms, turns + 1 if now_ms == self._schedule.now_ms else 1)
        if turns > TURNS_MAX:
            self.world.raised(
                self, "node.next_wakeup", AssertionError("the node spins: it wants to be woken now, and now")
            )
            self.die()
            return
        self.feed(Woken())

    # -- requests ----------------------------------------------------------------------------------------------------

    def serve(self, request: Request) -> None:
        """A request has come."""
        request.came_ms = self._schedule.now_ms
        self.requests[request] = None
        self.advance(request, None)

    def advance(self, request: Request, value: Any) -> None:
        """Let a request run until it waits or is over."""
        was_busy, self._is_busy = self._is_busy, True
        awaited = None
        try:
            awaited = request.advance(value)
        except Exception as error:  # noqa: BLE001  # what is no SessionError must not leave an engine
            self.world.raised(self, f"the engine, in {request},", error)
        if awaited is None:
            self.requests.pop(request, None)
        elif isinstance(awaited, Sleep):
            wake = partial(self._resume, request)
            self._schedule.after(awaited.delay_ms, partial(self.enqueue_request, wake))
        else:
            self._tickets += 1
            self._waiting[self._tickets] = (request, awaited)
            self.world.asked(self, request, awaited)
            self.tell(awaited.as_input(self._tickets))
        self._is_busy = was_busy
        if not was_busy:
            self._go_on()

    def _resume(self, request: Request) -> None:
        if request in self.requests:
            self.advance(request, None)

    def _go_on(self) -> None:
        """Give answers to those who wait for them."""
        while self._answers and not self.is_dead:
            answer = self._answers.popleft()
            if answer.ticket == STOP_TICKET:
                self.world.stopped(self, answer.result)  # type: ignore[arg-type]
                continue
            waiting = self._waiting.pop(answer.ticket, None)
            if waiting is None:
                self.world.raised(self, "node.handle", AssertionError(f"ticket {answer.ticket} is answered twice"))
                continue
            request, question = waiting
            self.world.answered(request, question, answer.result)
            self.advance(request, answer.result)

    @property
    def waiting(self) -> int:
        """How many questions of its engine the node has not answered."""
        return len(self._waiting)
