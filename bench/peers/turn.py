"""One turn of a contender: what a request costs with sessions and without, read and write, wall time and CPU.

Base and peer take slices of a few milliseconds in turns, so that a machine that slows down slows both. CPU is this
process's own, all threads; what a store spends elsewhere is not in it.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Protocol

from bench.peers.workload import DATA, FILL, READ, WRITE, Browser

SLICE_S = 0.01
BATCH = 256
"""The browsers of one slice. Where there are more, the next slice takes the next ones."""


class Driver(Protocol):
    """What both `asgi.Driver` and `wsgi.Driver` do."""

    def ask(self, path: str, browser: Browser) -> str: ...

    def repeat(self, path: str, browsers: list[Browser], times: int) -> None: ...


class ContenderError(Exception):
    """A contender does not keep sessions as every contender must; measuring it would say nothing."""


@dataclass(slots=True)
class Spent:
    """Time spent on a number of requests."""

    requests: int = 0
    cpu_ns: int = 0
    wall_ns: int = 0

    def on(self, driver: Driver, path: str, browsers: list[Browser], times: int) -> None:
        """Send the requests of one slice and add what they took."""
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        driver.repeat(path, browsers, times)
        self.cpu_ns += time.process_time_ns() - cpu
        self.wall_ns += time.perf_counter_ns() - wall
        self.requests += times * len(browsers)

    def each_us(self) -> dict[str, float]:
        return {"cpu_us": self.cpu_ns / self.requests / 1e3, "wall_us": self.wall_ns / self.requests / 1e3}


def fill(driver: Driver, browsers: list[Browser]) -> None:
    """Give every browser its session, and hold the contender to what sessions are."""
    for browser in browsers:
        driver.ask(FILL, browser)
        if driver.ask(READ, browser) != str(DATA["user_id"]):
            raise ContenderError("what was written is not there in the next request")
    first, second = browsers[:2]
    counts = [driver.ask(WRITE, browser) for browser in (first, first, second, first)]
    if counts != ["1", "2", "1", "3"]:
        raise ContenderError(f"three writes of one browser and one of another gave {counts}")
    if driver.ask(READ, first.forged()) != "None":
        raise ContenderError("a forged cookie opens the session")


class Crowd:
    """The browsers of one contender, in batches that take turns: nobody is back before all others have been."""

    def __init__(self, browsers: list[Browser]) -> None:
        self.batches = [browsers[at : at + BATCH] for at in range(0, len(browsers), BATCH)]
        self.turns = itertools.cycle(self.batches)

    def slices(self, driver: Driver, path: str, lasting_s: float) -> tuple[int, int]:
        """How often a batch sends its requests in one slice, and how many slices fill this time."""
        spent = Spent()
        spent.on(driver, path, next(self.turns), 1)
        each_s = max(spent.wall_ns / 1e9, 1e-6)
        times = max(1, round(SLICE_S / each_s)) if len(self.batches) == 1 else 1
        return times, max(4, round(lasting_s / (times * each_s)))


def take(base: Driver, peer: Driver, crowd: Crowd, lasting_s: float) -> dict[str, dict[str, float]]:
    """One turn: for read and for write, what base and peer spend on a request, and the difference."""
    told: dict[str, dict[str, float]] = {}
    for path in (READ, WRITE):
        times, count = crowd.slices(peer, path, lasting_s)
        without, having = Spent(), Spent()
        for _ in range(count):
            browsers = next(crowd.turns)
            without.on(base, path, browsers, times)
            having.on(peer, path, browsers, times)
        for clock, with_us in having.each_us().items():
            base_us = without.each_us()[clock]
            told.setdefault(path.strip("/"), {}).update({f"base_{clock}": base_us, f"added_{clock}": with_us - base_us})
    return told
