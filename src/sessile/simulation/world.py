"""The virtual world: processes, the network between them, browsers in front of them, faults, and checkers that watch.

It passes on what happens: from processes to checkers and browsers, from faults to processes. Nothing in it reads a clock,
starts a thread or draws chance that does not follow from the seed.
"""

from __future__ import annotations

import traceback
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sessile.backend import Acknowledged
from sessile.replication.config import NodeConfig
from sessile.replication.events import AddressesFound
from sessile.replication.membership import Timings
from sessile.replication.node import Node
from sessile.replication.wire import decode
from sessile.settings import Settings
from sessile.simulation.asking import Push
from sessile.simulation.checkers.bounds import Bounds
from sessile.simulation.checkers.denials import Denials
from sessile.simulation.checkers.ends import Ends
from sessile.simulation.checkers.losses import Losses
from sessile.simulation.checkers.presence import Presence
from sessile.simulation.checkers.quiet import Quiet
from sessile.simulation.checkers.reads import Reads
from sessile.simulation.checkers.scene import SETTLED_MS, Findings
from sessile.simulation.checkers.writes import Writes
from sessile.simulation.coverage import Coverage
from sessile.simulation.faults import Faults
from sessile.simulation.history import History
from sessile.simulation.network import Network
from sessile.simulation.options import rng_of
from sessile.simulation.process import Clock, Process
from sessile.simulation.schedule import Schedule, Trace
from sessile.simulation.serving import Op, Verb
from sessile.simulation.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from sessile.backend import Pulled
    from sessile.record import Version
    from sessile.replication.events import Note
    from sessile.simulation.asking import Pull
    from sessile.simulation.checkers.scene import Checker
    from sessile.simulation.options import Options
    from sessile.simulation.serving import Request
    from sessile.table import Table
    from sessile.visit import Step

    MakeNode = Callable[[NodeConfig, Table, Random, int], Node]

__all__ = ["World", "settings_of"]

SECRET: Final = "the secret of every simulated cluster"  # noqa: S105  # it guards nothing
ACK_TIMEOUT_MS: Final = 800
PULL_TIMEOUT_MS: Final = 250
REPAIR_MS: Final = 3_000
SWEEP_MS: Final = 700
REVIVE_CHANCE: Final = 0.6
"""How many of those that died are there again when the world is healed."""
GLANCES_MAX: Final = 8
GLANCE_MS_MAX: Final = 100
"""So many sessions are looked at when a server comes, and within so long."""
ROOMY: Final = 1_000_000
"""More sessions than there are in any run."""
NAP_LOGOUTS: Final = 4
"""So many sessions are ended elsewhere when a process has just been stopped for long."""
WAKING_MS_MAX: Final = 40
WAKING_LOOKS: Final = 10
"""So often, and within so long, every session is looked at where a process has just gone on after it was stopped for long."""
WATCH_MS_MAX: Final = 400
"""A session is looked at within this time after its end was answered."""
CHECKERS: Final = (Writes, Reads, Losses, Ends, Presence, Denials, Bounds)


class World:
    """One run's world.

    Args:
        seed: what all chance follows from.
        options: what the run does.
        make_node: makes a process's node; the real one, but for tests of this very world.
        show: is given the trace, line by line.
    """

    def __init__(
        self,
        seed: int,
        options: Options,
        *,
        make_node: MakeNode | None = None,
        show: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.options = options
        self.schedule = Schedule()
        self.trace = Trace(show)
        self.settings = settings_of(options)
        self._small = settings_of(options, options.rooms) if options.rooms else self.settings
        self.history = History()
        self.findings = Findings()
        self.coverage = Coverage()
        self.network = Network(self.schedule, rng_of(seed, "network"), options.latency, options.handshake)
        self.faults = Faults(self, seed)
        self.traffic = Traffic(self, seed)
        self.quiet = Quiet(self)
        self.checkers: list[Checker] = [*(kind(self) for kind in CHECKERS), self.quiet]
        self._make_node = make_node or _real_node
        self._rng = rng_of(seed, "world")
        self._clocks = rng_of(seed, "clocks")
        self._glances = rng_of(seed, "when to glance")
        self._wakings = rng_of(seed, "when to look at who wakes up")
        self._watches = rng_of(seed, "when to watch")
        self._processes: list[Process] = []
        """By place: whoever stands there, or stood there last."""
        self._names: list[str] = []

    # -- processes ---------------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return self.schedule.now_ms

    def living(self) -> list[Process]:
        """Every process that has not died, by place."""
        return [process for process in self._processes if not process.is_dead]

    def calm_for_ms(self, place: int) -> int:
        return self.faults.calm_for_ms(place)

    def smooth_for_ms(self, place: int) -> int:
        return self.faults.smooth_for_ms(place)

    def linked_for_ms(self, place: int) -> int:
        return self.faults.linked_for_ms(place)

    def is_under_way(self) -> bool:
        return self.network.is_under_way()

    def is_small(self, place: int) -> bool:
        return self.options.rooms > 0 and place % 2 == 1

    def is_all_well(self) -> bool:
        return all(self.calm_for_ms(process.place) >= SETTLED_MS for process in self._processes)

    def begin(self) -> None:
        """Start the processes that are there from the beginning."""
        self._names = [f"s{place}:7400" for place in range(self.options.nodes)]
        for place in range(self.options.nodes):
            self._processes.append(self._build(place, 1))
        for process in self._processes:
            process.start(tuple(self._names) if self._rng.random() < 0.8 else tuple(self._names[:1]))

    def make_node(self, process: Process, table: Table) -> Node:
        """A node for this process."""
        options = self.options
        config = NodeConfig(
            name=process.name,
            host=f"h{process.place % options.hosts}",
            incarnation=process.incarnation,
            strategy=options.strategy,
            copies=options.copies,
            directory=options.directory,
            timings=Timings(tombstone_keep_ms=options.tombstones),
            ack_timeout_ms=ACK_TIMEOUT_MS,
            pull_timeout_ms=PULL_TIMEOUT_MS,
            repair_every_ms=REPAIR_MS,
            tombstone_keep_ms=options.tombstones,
        )
        if options.naps:
            config = replace(config, reach_back_ms=0)
        if options.queue:
            config = replace(config, queue_bytes_max=options.queue, repair_window_bytes=options.queue // 2)
        node = self._make_node(config, table, process.rng, process.clock())
        if isinstance(node, WatchedNode):
            node.about_to_start_over = partial(self.starts_over, process)
        return node

    def crash(self, process: Process, *, is_silent: bool) -> None:
        """Kill a process; with `is_silent`, its machine."""
        self.log(f"{process} dies{' with its machine' if is_silent else ''}")
        for checker in self.checkers:
            checker.dies(process)
        self._is_gone(process, is_silent=is_silent)

    def revive(self, place: int) -> None:
        """Start a process where one had died."""
        old = self._processes[place]
        if old.is_dead:
            self.network.machine_is_back(old.name)
            last = old.node.membership.me.incarnation  # which it may have renewed
            process = self._processes[place] = self._build(place, last + 1)
            self.log(f"{process} starts")
            self.faults.trouble((place,))
            process.start(tuple(self._names))
            self.faults.relief((place,))
            self._glance(process)

    def join(self) -> None:
        """Start a process with a new name."""
        place = len(self._processes)
        self._names.append(f"s{place}:7400")
        process = self._build(place, 1)
        self._processes.append(process)
        self.log(f"{process} joins")
        self.faults.happen("joins", (place,))
        process.start(tuple(self._names))
        for other in self.living():
            if other is not process and self._rng.random() < 0.7:
                other.enqueue_input(AddressesFound(tuple(self._names)))
        self._glance(process)

    def _glance(self, newcomer: Process) -> None:
        """Look at the last sessions from every server, while the one that has just come may not have its copies yet."""
        if not self.options.glances:
            return
        rng = self._glances
        if rng.random() < 0.5:
            self.faults.slow_down(newcomer, rng.choice((2, 5, 10)), GLANCE_MS_MAX)
        known = [chronicle for chronicle in self.history.chronicles.values() if chronicle.cookies]
        for chronicle in known[-GLANCES_MAX:]:
            for process in self.living():
                look = partial(self.traffic.glance, chronicle.header, process)
                self.schedule.after(rng.randrange(1, GLANCE_MS_MAX), look)

    def naps(self, process: Process) -> None:
        """A process is stopped for long: some users log out at other servers."""
        rng = self._wakings
        others = [other for other in self.living() if other is not process]
        known = [chronicle for chronicle in self.history.chronicles.values() if chronicle.cookies]
        for chronicle in rng.sample(known, min(len(known), NAP_LOGOUTS)) if others else ():
            leave = partial(self.traffic.glance, chronicle.header, rng.choice(others), Op(Verb.LOGOUT))
            self.schedule.after(rng.randrange(1, WATCH_MS_MAX), leave)

    def woke(self, process: Process) -> None:
        """A process goes on after it was stopped for long: look at all sessions there while it learns what has ended."""
        known = [chronicle for chronicle in self.history.chronicles.values() if chronicle.cookies]
        for chronicle in known[-GLANCES_MAX:]:
            for _ in range(WAKING_LOOKS):
                look = partial(self.traffic.glance, chronicle.header, process)
                self.schedule.after(self._wakings.randrange(1, WAKING_MS_MAX), look)

    def _watch(self, request: Request) -> None:
        """Look at a session whose end has just been answered, from every server."""
        assert request.ended is not None, "it ended a session"
        header = self.history.chronicles[request.ended[0]].header
        for process in self.living() if header else ():
            look = partial(self.traffic.glance, header, process)
            self.schedule.after(self._watches.randrange(1, WATCH_MS_MAX), look)

    def starts_over(self, process: Process) -> None:
        """A node that was apart for too long is about to drop all that it holds."""
        self.log(f"{process} starts over")
        for checker in self.checkers:
            checker.starts_over(process)

    def heal(self) -> None:
        """Let everything be well again, and some of the dead come back."""
        self.log("all is healed")
        self.faults.heal()
        for place, process in enumerate(self._processes):
            if process.is_dead:
                self.network.machine_is_back(process.name)
                if self._rng.random() < REVIVE_CHANCE:
                    self.revive(place)

    def stopped(self, process: Process, result: Acknowledged) -> None:
        """A node has left; its process ends."""
        is_clean = result is Acknowledged.YES
        self.log(f"{process} has left, {'with nothing in it' if is_clean else 'with sessions still in it'}")
        for checker in self.checkers:
            checker.leaves(process, is_clean=is_clean)
        self._is_gone(process, is_silent=False)
        self.faults.relief((process.place,))

    def _is_gone(self, process: Process, *, is_silent: bool) -> None:
        self.coverage.counts.update({f"node.{name}": count for name, count in process.node.counts.items()})
        self.network.has_died(process, is_silent=is_silent)
        for request in process.die():
            self.traffic.cut(request)

    def _build(self, place: int, incarnation: int) -> Process:
        clock = Clock(self.schedule)
        if "skewed-clocks" in self.options.behaviours:
            rng = self._clocks
            clock = Clock(self.schedule, offset_ms=rng.randrange(10**9), ppm=rng.randrange(-1_000, 1_001))
        name = self._names[place]
        rng = rng_of(self.seed, f"process/{name}/{incarnation}")
        process = Process(
            self,
            place,
            name,
            incarnation,
            settings=self._small if self.is_small(place) else self.settings,
            clock=clock,
            rng=rng,
            has_threads=self.options.threads,
        )
        self.network.processes[name] = process
        self.schedule.after(SWEEP_MS, partial(self._sweep, process))
        return process

    def _sweep(self, process: Process) -> None:
        if not process.is_dead:
            process.enqueue(process.sweep)
            self.schedule.after(SWEEP_MS, partial(self._sweep, process))

    # -- what happens in processes -----------------------------------------------------------------------------------

    def came(self, process: Process, frames: Iterable[bytes]) -> None:
        """Frames are about to be handled."""
        self.coverage.came(frames, self.faults.mask)
        if self.trace.show is not None:
            for frame in frames:
                is_greeting = frame[1:2] == b"\x01"
                self.log(f"{process} gets {decode(frame, is_greeting=is_greeting)}")

    def raised(self, process: Process, where: str, error: Exception) -> None:
        """Something raised that must not."""
        lines = traceback.format_exception(error)
        self.findings.add("raised", self.now_ms, f"{where} of {process}: {''.join(lines[-4:])}")

    def asked(self, process: Process, request: Request, question: Pull | Push) -> None:
        """A request begins to wait."""
        if self.trace.show is not None:
            self.log(f"{process} asks for {request}: {question}")
        for checker in self.checkers:
            checker.asked(request, question)

    def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
        """What a request waited for is there."""
        if self.trace.show is not None:
            self.log(f"{request} is told {result}")
        if isinstance(result, Acknowledged):
            request.is_degraded = request.is_degraded or result is Acknowledged.NO
            kind = "wait" if isinstance(question, Push) and question.change is None else "push"
            self.coverage.counts[f"{kind} {result.value}"] += 1
        else:
            self.coverage.counts[f"pull {result.status.value}"] += 1
        for checker in self.checkers:
            checker.answered(request, question, result)

    def noted(self, process: Process, note: Note) -> None:
        """A node says something for the log."""
        self.coverage.counts[f"note {note.event} {note.about.get('after', '')}".strip()] += 1
        if self.trace.show is not None:
            self.log(f"{process}: {note.event} {note.about}")

    # -- what happens in requests ------------------------------------------------------------------------------------

    def opened(self, request: Request) -> None:
        if self.trace.show is not None:
            self.log(
                f"{request} sees {request.saw} {'of nobody' if request.record is None else request.record.version}"
            )
        for checker in self.checkers:
            checker.opened(request)

    def committed(self, request: Request, steps: list[Step], before: Version) -> None:
        for checker in self.checkers:
            checker.committed(request, steps, before)

    def responded(self, request: Request, status: int, cookies: list[bytes]) -> None:
        process = request.process
        assert process is not None, "who responds is served"
        self.trace.add(self.now_ms, process.place, b"%d %d" % (request.number, status))
        if self.trace.show is not None:
            self.log(f"{request} is answered with {status} and {len(cookies)} cookies")
        for checker in self.checkers:
            checker.responded(request, status, cookies)
        self.traffic.respond(request, status, cookies)
        if self.options.watches and request.ended is not None:
            self._watch(request)

    def finished(self, request: Request) -> None:
        """Nothing more comes of it."""

    def outcome(self, name: str) -> None:
        """Count what became of a request."""
        self.coverage.counts[f"request {name}"] += 1

    def log(self, line: str) -> None:
        """Enter something into the trace."""
        if self.trace.show is not None:
            self.trace.show(f"{self.now_ms:>6} {line}")


class WatchedNode(Node):
    """The real node, but that somebody hears of it before it drops all that it holds."""

    about_to_start_over: Callable[[], None]

    def start_over(self, side: tuple[str, ...]) -> None:
        self.about_to_start_over()
        super().start_over(side)


def _real_node(config: NodeConfig, table: Table, rng: Random, now_ms: int) -> Node:
    return WatchedNode(config, table, rng=rng, now_ms=now_ms)


@lru_cache(maxsize=256)
def settings_of(options: Options, sessions_max: int = ROOMY) -> Settings:
    """What the engines of a run are told; the strategy is their nodes' business."""
    return Settings.load(
        secret=SECRET,
        environ={},
        sessions_max=sessions_max,
        ack=options.ack,
        degraded=options.degraded,
        stale=options.stale,
        idle_timeout=options.idle / 1_000,
        absolute_timeout=max(43_200, options.idle / 1_000),
        rotation_grace=options.grace / 1_000,
        tombstone_keep=options.tombstones / 1_000,
        ack_timeout=ACK_TIMEOUT_MS / 1_000,
        pull_timeout=PULL_TIMEOUT_MS / 1_000,
    )
