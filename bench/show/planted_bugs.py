"""`planted-bugs`: the test of the tests. Bugs are planted in the replication core, and the checkers must find each."""

from __future__ import annotations

import multiprocessing
import os

from bench.show import Figure, Progress, Shown
from tests.simulation.planted import PLANTED, hunt

SUMMARY = "Each of the bugs planted in the replication core is found by the simulator's checkers."

RUNS_MAX = 5_000
FIRST = 1
AT_LEAST = 15
NOTES = [
    "each bug is planted alone; seeds are run one after the other until a checker finds something",
    "what is planted: tests/simulation/planted.py; `make test` hunts those that take few runs at every change",
]


def run(progress: Progress) -> Shown:
    """Hunt them all, each in a process of its own."""
    with multiprocessing.get_context("fork").Pool(os.cpu_count() or 1) as pool:
        hunts = {name: pool.apply_async(hunt, (name,), {"first": FIRST, "at_most": RUNS_MAX}) for name in PLANTED}
        found = {}
        for name, hunted in hunts.items():
            found[name] = hunted.get()
            progress(f"{name}: {found[name][0] or 'not found in ' + str(RUNS_MAX)} runs")
    return judged(found)


def judged(found: dict[str, tuple[int, int, str]]) -> Shown:
    """In how many runs each was found, and that none was missed."""
    figures = [
        Figure(f"found: {name}", runs, "runs", f"<= {RUNS_MAX}", 0 < runs <= RUNS_MAX)
        for name, (runs, _, _) in found.items()
    ]
    figures.append(Figure("bugs planted", len(found), "", f">= {AT_LEAST}", len(found) >= AT_LEAST))
    notes = [f"{name}: seed {seed}, {' '.join(told.split())[:150]}" for name, (_, seed, told) in found.items()]
    return Shown("planted-bugs", figures, [*NOTES, *notes])
