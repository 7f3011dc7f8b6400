"""`speed-kept`: the CPU that requests and changes take, beside an earlier version, in turns on the same core."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace

from bench import session_cost
from bench.before import source_of
from bench.environments import ROOT
from bench.session_cost import CONTENDERS, OURS
from bench.show import CannotShow, Figure, Progress, Shown

SUMMARY = "Requests and replicated changes take at most 5 % more CPU than before ends outlived every copy (8943fdb)."
MEASURES = True

BEFORE = "8943fdb"
"""The version to compare with."""
SLOWER_MAX = 1.05
PAIRS = 6
CORE_FIGURES = {
    "applied": "a change applied at a holder",
    "pushed": "a change sent by its writer",
    "acknowledged": "its acknowledgement taken",
    "read": "a read at a holder",
}
NOTES = [
    f"{BEFORE} and this version in turns on one core, each in processes of its own; medians of the ratios within a round",
    "the present measuring code runs both; requests are those of session-cost, changes and reads those of core-speed",
]


def run(progress: Progress) -> Shown:
    """Measure both versions and compare them."""
    figures = [*core(progress), *requests(progress)]
    return Shown("speed-kept", figures, NOTES)


def core(progress: Progress) -> list[Figure]:
    """The replication core, without sockets."""
    ways = {"now": str(ROOT / "src"), "before": str(source_of(BEFORE))}
    rounds = []
    for number in range(PAIRS):
        progress(f"the core, round {number + 1} of {PAIRS}")
        order = list(ways) if number % 2 else list(reversed(ways))
        taken = {way: core_costs(ways[way]) for way in order}
        rounds.append({name: taken["now"][name] / taken["before"][name] for name in CORE_FIGURES})
    return [judged(label, statistics.median(each[name] for each in rounds)) for name, label in CORE_FIGURES.items()]


def core_costs(source: str) -> dict[str, float]:
    """The figures of `bench.core_speed` with the package in this folder."""
    pinned = session_cost.cores()[0]
    done = subprocess.run(
        [sys.executable, "-c", f"import os, runpy; os.sched_setaffinity(0, [{pinned}]); runpy.run_module('bench.core_speed', run_name='__main__')"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join([source, "."])}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise CannotShow(f"bench.core_speed fails with {source}: {done.stderr.strip().splitlines()[-1:]}")
    costs: dict[str, float] = json.loads(done.stdout)
    return costs


def requests(progress: Progress) -> list[Figure]:
    """Requests under Starlette, with a session in this process."""
    now = next(contender for contender in CONTENDERS if contender.name == OURS)
    before = replace(now, label=f"Sessile {BEFORE}", version=BEFORE)
    rounds = session_cost.paired(now, before, progress)
    return [
        judged(
            f"CPU a {kind} gains from its session",
            statistics.median(
                mine[kind]["added_cpu_us"] / theirs[kind]["added_cpu_us"] for mine, theirs in zip(*rounds, strict=True)
            ),
        )
        for kind in ("read", "write")
    ]


def judged(label: str, ratio: float) -> Figure:
    """A ratio of now to before, held to its bound."""
    bound = f"<= {SLOWER_MAX:g}"
    return Figure(label, ratio, f"x {BEFORE}", bound, ratio <= SLOWER_MAX, BEFORE, 1.0)
