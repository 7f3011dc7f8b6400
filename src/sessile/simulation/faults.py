"""What goes wrong, when, for how long, and to whom.

Every kind that is switched on has chance of its own: when its faults come is drawn at the start, whom they hit when they
come. All faults end when the world is healed. Beside the faults at work this keeps what the checkers' excuses rest on: since
when nothing was wrong with a process.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

from sessile.simulation.options import FAULTS, rng_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random
    from typing import Protocol

    from sessile.simulation.network import Direction, Network
    from sessile.simulation.options import Options
    from sessile.simulation.process import Process
    from sessile.simulation.schedule import Schedule

    class World(Protocol):
        """What faults need of the world."""

        options: Options
        schedule: Schedule
        network: Network

        def living(self) -> list[Process]:
            """Every process that has not died."""

        def crash(self, process: Process, *, is_silent: bool) -> None:
            """Kill a process; with `is_silent`, its machine."""

        def revive(self, place: int) -> None:
            """Start a process where one had died."""

        def join(self) -> None:
            """Start a process with a new name."""

        def naps(self, process: Process) -> None:
            """A process is stopped for long."""

        def woke(self, process: Process) -> None:
            """A process goes on after it was stopped for long."""

        def log(self, line: str) -> None:
            """Enter something into the trace."""


__all__ = ["Faults"]

AFTERMATH_MS: Final = 300
"""So long a fault that happens at one moment counts as at work."""
RESTART_MS_MAX: Final = 500
STOP_MS: Final = (300, 1_100)
"""How long a process is stopped in runs with `stops`: about as long as its peers take to notice."""
NAP_MS: Final = (2_500, 4_000)
"""How long it is stopped in runs with `naps`: longer than answers about ended sessions reach back there."""
AWAKE_MS: Final = 1_500
"""So long after it nobody else is stopped for long: somebody must be there to tell what has ended."""
LAG_MS_MAX: Final = 300
"""After a stop a process's loop continues at most this much later than its threads."""
NETWORK: Final = frozenset({"delays", "losses", "partitions", "one-way"})
"""The faults that lie between processes."""
_BITS: Final = {kind: 1 << place for place, kind in enumerate(FAULTS)}


class Faults:
    """The faults of one run."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._seed = seed
        self._rngs = {kind: rng_of(seed, f"fault/{kind}") for kind in world.options.faults}
        self._at_work: Counter[str] = Counter()
        self.mask = 0
        """The bits of the kinds at work."""
        self._undo: dict[int, Callable[[], None]] = {}
        self._numbers = 0
        self._troubles: Counter[int] = Counter()
        self._trouble_ms: dict[int, int] = {}
        self._smooth_ms: dict[int, int] = {}
        self._rough: Counter[int] = Counter()
        self._napping_until_ms = -AWAKE_MS
        self._cuts: Counter[int] = Counter()
        self._cut_ms: dict[int, int] = {}

    # -- when --------------------------------------------------------------------------------------------------------

    def plan(self, until_ms: int) -> None:
        """Draw when the faults come, from now on until then."""
        schedule, options = self._world.schedule, self._world.options
        span_ms = until_ms - schedule.now_ms
        for kind, rng in self._rngs.items():
            often = span_ms / (options.fault_every * len(self._rngs))
            for _ in range(int(often + rng.random()) or 1):
                due_ms = schedule.now_ms + rng.randrange(span_ms)
                schedule.at(due_ms, partial(self._strike, kind, until_ms))

    def strike_once(self, kinds: Iterable[str], rng: Random) -> None:
        """Let one of these kinds come now, if any of them is switched on."""
        candidates = [kind for kind in kinds if kind in self._rngs]
        if candidates:
            self._strike(rng.choice(candidates), self._world.schedule.now_ms)

    def heal(self) -> None:
        """Let everything be well."""
        for number in list(self._undo):
            self._end(number)

    def _strike(self, kind: str, until_ms: int) -> None:
        if self._world.schedule.now_ms <= until_ms:
            method: Callable[[Random], None] = getattr(self, "_" + kind.replace("-", "_"))
            method(self._rngs[kind])

    # -- what checkers ask -------------------------------------------------------------------------------------------

    def calm_for_ms(self, place: int) -> int:
        """For how long nothing was wrong with the process there."""
        return 0 if self._troubles[place] else self._world.schedule.now_ms - self._trouble_ms.get(place, -1_000_000)

    def smooth_for_ms(self, place: int) -> int:
        """For how long its clock and its processor have behaved."""
        return 0 if self._rough[place] else self._world.schedule.now_ms - self._smooth_ms.get(place, -1_000_000)

    def linked_for_ms(self, place: int) -> int:
        """How long ago the last fault of the network at this place was over; 0 during one."""
        return 0 if self._cuts[place] else self._world.schedule.now_ms - self._cut_ms.get(place, -1_000_000)

    def trouble(self, places: Iterable[int], *, is_rough: bool = False) -> None:
        """Something is wrong with these from now on."""
        for place in places:
            self._troubles[place] += 1
            self._rough[place] += is_rough

    def relief(self, places: Iterable[int], *, is_rough: bool = False) -> None:
        """It is over."""
        now_ms = self._world.schedule.now_ms
        for place in places:
            self._troubles[place] -= 1
            self._trouble_ms[place] = now_ms
            if is_rough:
                self._rough[place] -= 1
                self._smooth_ms[place] = now_ms

    # -- begin and end -----------------------------------------------------------------------------------------------

    def happen(self, kind: str, places: Iterable[int], *, is_rough: bool = False) -> None:
        """Something happens at one moment."""
        self._begin(kind, tuple(places), AFTERMATH_MS, lambda: None, is_rough=is_rough)

    def _begin(
        self, kind: str, places: tuple[int, ...], lasts_ms: int, undo: Callable[[], None], *, is_rough: bool = False
    ) -> None:
        """A fault has begun; it ends after so long, or when the world is healed."""
        self._world.log(f"{kind} at {places} for {lasts_ms} ms")
        self._at_work[kind] += 1
        self.mask |= _BITS[kind]
        self.trouble(places, is_rough=is_rough)
        if kind in NETWORK:
            self._cuts.update(places)
        self._numbers += 1
        number = self._numbers

        def end() -> None:
            undo()
            self._at_work[kind] -= 1
            if not self._at_work[kind]:
                self.mask &= ~_BITS[kind]
            self.relief(places, is_rough=is_rough)
            if kind in NETWORK:
                self._cuts.subtract(places)
                self._cut_ms.update(dict.fromkeys(places, self._world.schedule.now_ms))

        self._undo[number] = end
        self._world.schedule.after(lasts_ms, partial(self._end, number))

    def _end(self, number: int) -> None:
        end = self._undo.pop(number, None)
        if end is not None:
            end()

    # -- each kind ---------------------------------------------------------------------------------------------------

    def _somebody(self, rng: Random, *, at_least: int = 1) -> Process | None:
        """A process, if there are so many."""
        living = self._world.living()
        return rng.choice(living) if len(living) >= at_least else None

    def _places(self) -> list[int]:
        return [process.place for process in self._world.living()]

    def _delays(self, rng: Random) -> None:
        extra_ms = rng.randrange(5, 400)
        places = self._places()
        if len(places) < 2:
            return
        victim = rng.choice(places)
        pairs = [(one, other) for one, other in product(places, repeat=2) if victim in {one, other} and one != other]
        if rng.random() < 0.5:
            pairs = [pair for pair in pairs if rng.random() < 0.5]
        extra = Counter(dict.fromkeys(pairs, extra_ms))
        network = self._world.network
        network.extra_ms.update(extra)
        self._begin("delays", _all_of(pairs), rng.randrange(50, 600), partial(network.extra_ms.subtract, extra))

    def _losses(self, rng: Random) -> None:
        connections = self._world.network.connections()
        for side in rng.sample(connections, min(len(connections), rng.choice((1, 1, 1, 2, 3)))):
            self._world.network.break_connection(side)
            self.happen("losses", (side.process.place, side.other.process.place))

    def _partitions(self, rng: Random) -> None:
        places = self._places()
        if len(places) > 1:
            side = set(rng.sample(places, rng.randrange(1, len(places))))
            pairs = [(one, other) for one, other in product(places, repeat=2) if (one in side) != (other in side)]
            if rng.random() < 0.3:  # only one pair of them
                one, other = rng.choice(pairs)
                pairs = [(one, other), (other, one)]
            self._block("partitions", rng, pairs)

    def _one_way(self, rng: Random) -> None:
        places = self._places()
        if len(places) > 1:
            side = set(rng.sample(places, rng.randrange(1, len(places))))
            pairs = [(one, other) for one, other in product(places, repeat=2) if one in side and other not in side]
            if rng.random() < 0.5:
                pairs = [rng.choice(pairs)]
            self._block("one-way", rng, pairs)

    def _block(self, kind: str, rng: Random, pairs: list[Direction]) -> None:
        network = self._world.network
        network.block(pairs)
        lasts_ms = rng.choice((rng.randrange(50, 500), rng.randrange(500, 2_500)))
        self._begin(kind, _all_of(pairs), lasts_ms, partial(network.unblock, pairs))

    def _pauses(self, rng: Random) -> None:
        process = self._somebody(rng)
        if process is not None and not process.is_paused:
            lasts_ms = rng.choice((rng.randrange(20, 400), rng.randrange(400, 3_000)))
            if self._world.options.stops:
                lasts_ms = rng.randrange(*STOP_MS)
            resume: Callable[[], None] = process.resume
            if self._world.options.naps:
                if self._world.schedule.now_ms < self._napping_until_ms + AWAKE_MS:
                    return
                lasts_ms = rng.randrange(*NAP_MS)
                self._napping_until_ms = self._world.schedule.now_ms + lasts_ms
                self._world.naps(process)
                resume = partial(self._wake, process)
            if process.has_threads:
                loop_only = rng.random() < 0.5
                process.pause(loop_only=loop_only)
                if not loop_only:
                    resume = partial(self._thaw, process, rng.choice((0, rng.randrange(LAG_MS_MAX))))
            else:
                process.pause()
            self._begin("pauses", (process.place,), lasts_ms, resume, is_rough=True)

    def _wake(self, process: Process) -> None:
        process.resume()
        self._world.woke(process)

    def _thaw(self, process: Process, lag_ms: int) -> None:
        """Continue a process that was stopped: its threads at once, its loop a moment later."""
        process.thaw()
        self._begin("pauses", (process.place,), lag_ms, process.resume, is_rough=True)

    def _slow(self, rng: Random) -> None:
        process = self._somebody(rng)
        if process is not None and not process.slow_ms:
            self.slow_down(process, rng.choice((1, 5, 20, 60)), rng.randrange(50, 800))

    def slow_down(self, process: Process, slow_ms: int, lasts_ms: int) -> None:
        """Let a process take so long for everything it does."""
        process.slow_ms = slow_ms
        self._begin("slow", (process.place,), lasts_ms, process.hurry, is_rough=True)

    def _jumps(self, rng: Random) -> None:
        process = self._somebody(rng)
        if process is not None:
            process.clock.jump(rng.choice((rng.randrange(10, 500), rng.randrange(500, 5_000))))
            self.happen("jumps", (process.place,), is_rough=True)

    def _crashes(self, rng: Random) -> None:
        process = self._somebody(rng, at_least=2)
        if process is not None:
            self.happen("crashes", (process.place,))
            self._world.crash(process, is_silent=rng.random() < 0.3)

    def _restarts(self, rng: Random) -> None:
        process = self._somebody(rng)
        if process is not None:
            self._world.crash(process, is_silent=rng.random() < 0.2)
            revive = partial(self._world.revive, process.place)
            self._begin("restarts", (process.place,), rng.randrange(RESTART_MS_MAX), revive)

    def _joins(self, rng: Random) -> None:
        del rng
        self._world.join()

    def _drains(self, rng: Random) -> None:
        living = [process for process in self._world.living() if not process.is_draining]
        if len(living) > 1:
            process = rng.choice(living)
            self.happen("drains", (process.place,))
            self.trouble((process.place,))
            process.stop()


def _all_of(pairs: Iterable[Direction]) -> tuple[int, ...]:
    """Every place in these pairs, once."""
    return tuple(sorted({place for pair in pairs for place in pair}))
