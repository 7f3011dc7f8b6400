"""Whole runs: the recorded seeds, some more, always the same for the same seed, and planted bugs that are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sessile.simulation.campaign import campaign
from sessile.simulation.options import draw
from sessile.simulation.run import run
from tests.simulation.planted import PLANTED, hunt
from tests.simulation.seeds import RECORDED

HERE = Path(__file__).resolve().parent
PLAIN = "threads=false,stops=false,watches=false,rooms=0,queue=0"
DRAWN = 300
"""So many seeds are drawn from the commit, so that every commit is looked at from other sides."""
LASTING = "tombstones=1600,grace=50,idle=1800000,afterlife=true"
STOPPED = "stops=true,watches=true,faults=pauses,idle=1800000"
SHARP = {
    "an end is forgotten with its tombstone": ("ends", f"{LASTING},late=4000"),
    "a full server has no room for an end": ("", "rooms=1,watches=true"),
    "a long request writes a session back": ("ends", f"{LASTING},late=4000"),
    "a server that was away believes itself": ("ends", f"{STOPPED},threads=true"),
    "the pulse is not looked at": ("ends", f"{STOPPED},threads=true"),
    "a member asks for what ended since its link was lost": (
        "ends",
        "naps=true,faults=pauses,idle=1800000,duration=6000,latency=20,strategy=all-to-all,fault_every=400,nodes=3",
    ),
    "what a link loses of uses is lost": ("quiet", "idle=2000,reads=95,faults=losses"),
    "only repair goes on with repair": ("bounds", "queue=200,faults=delays+slow+losses,reads=10"),
    "a removal of a set removes the items that its request saw": (
        "reads",
        "behaviours=collections+slow-handlers+bursts+removals+tabs,browsers=1,routing=round-robin",
    ),
    "those who have no room are waited for": ("bounds", "rooms=1,nodes=2,faults=,ack=one"),
    "peers take fewer writers than servers draw": ("bounds", "routing=random,browsers=1,reads=10,faults="),
}
"""Bugs that few runs can show: who notices them, and the options of those that do."""
QUICK = 60
"""A planted bug that the checkers find in so few runs is hunted at every test; all of them in `make show`."""
SLOWER = {
    *SHARP,
    "a link is let go before another one has replaced it",
    "a node that leaves acknowledges",
    "a stamp is given twice",
    "counters are folded",
    "repair leaves out tombstones",
    "the first that has nothing is believed",
    "who leaves drops what it handed over",
}


@pytest.mark.parametrize("name", SHARP)
def test_a_planted_bug_is_found_where_it_is_looked_for(name: str) -> None:
    """Runs that look where it shows find it soon; of all runs, `make show` needs some hundred."""
    checker, options = SHARP[name]
    runs, _, found = hunt(name, first=1, at_most=QUICK, checker=checker, options=options)
    assert runs, f"{name}: nothing found in {QUICK} runs"
    assert found


def commit_number() -> int:
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return int(told.stdout[:8], 16) if told.returncode == 0 else 1


@pytest.mark.parametrize("options", ["", PLAIN, f"{PLAIN},handshake=0", f"{PLAIN},handshake=0,glances=false"])
def test_every_seed_that_once_found_something_finds_nothing(options: str) -> None:
    """Recorded with what they found; none is ever taken out. Most were found before there was what these options leave out."""
    assert RECORDED
    done = campaign(list(RECORDED), options=options)
    assert not done.found, [found.command for found in done.found]


def test_seeds_drawn_from_the_commit_find_nothing() -> None:
    """A failure prints the command that plays it again."""
    first = 10_000_000 + commit_number() * DRAWN
    done = campaign(range(first, first + DRAWN))
    assert not done.found, [found.command for found in done.found]


def test_the_same_seed_is_the_same_run() -> None:
    """Another seed is another; showing what happens changes nothing."""
    shown: list[str] = []
    results = [run(seed, draw(seed)) for seed in (11, 11, 12)]
    again = run(11, draw(11), show=shown.append)
    assert results[0].digest == results[1].digest == again.digest != results[2].digest
    assert shown and results[0].requests > 0 and results[0].virtual_ms > 500


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_python_s_hash_seed_changes_nothing(hash_seed: str) -> None:
    """No order of a set or of object addresses gets into a run."""
    code = (
        "from sessile.simulation.run import run; from sessile.simulation.options import draw;"
        "print(*[run(seed, draw(seed)).digest for seed in range(20, 26)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert told.stdout.split() == [run(seed, draw(seed)).digest for seed in range(20, 26)]


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in SLOWER])
def test_a_planted_bug_is_found(name: str) -> None:
    """The checkers notice it within few runs."""
    runs, _, found = hunt(name, first=1, at_most=QUICK)
    assert runs, f"{name}: nothing found in {QUICK} runs"
    assert found
