"""Many runs on all cores: seeds in, findings and coverage out, as they come.

Each worker process runs a piece of the seeds at a time and adds up what it reached. A run that raises is a finding like any
other: the world itself is under test as well.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import traceback
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sessile.simulation.checkers.scene import Finding
from sessile.simulation.coverage import Coverage
from sessile.simulation.options import draw, parse
from sessile.simulation.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sessile.simulation.options import Options

__all__ = ["Campaign", "Found", "campaign", "one"]

PIECE: Final = 25
"""Seeds that a worker takes at a time."""


class Found(Struct, frozen=True):
    """A run in which something was found."""

    seed: int
    options: Options
    findings: tuple[Finding, ...]

    @property
    def command(self) -> str:
        """What plays it again."""
        return f"sessile simulate --seed {self.seed} --options {self.options}"


class Campaign:
    """What came of all runs so far."""

    def __init__(self) -> None:
        self.runs = 0
        self.requests = 0
        self.virtual_ms = 0
        self.seconds = 0.0
        self.found: list[Found] = []
        self.coverage = Coverage()

    @property
    def runs_per_s(self) -> float:
        return self.runs / self.seconds if self.seconds else 0.0


class _Piece(Struct):
    """What a worker brings back."""

    runs: int
    requests: int
    virtual_ms: int
    found: list[Found]
    coverage: Coverage


def one(seed: int, given: str = "") -> tuple[Options, tuple[Finding, ...], Coverage, int, int]:
    """One run: its options, what was found, what it reached, its requests and its virtual milliseconds."""
    options = parse(given, draw(seed))
    try:
        result = run(seed, options)
    except Exception as error:  # noqa: BLE001  # whatever it is, it has to be looked at
        lines = "".join(traceback.format_exception(error)[-4:])
        return options, (Finding("raised", lines, 0),), Coverage(), 0, 0
    return options, result.findings, result.coverage, result.requests, result.virtual_ms


def campaign(
    seeds: Sequence[int],
    *,
    jobs: int | None = None,
    options: str = "",
    progress: Callable[[Campaign], None] = lambda _: None,
    found_max: int = 20,
) -> Campaign:
    """Run all these seeds, or until so many of them have found something.

    Args:
        seeds: one run each.
        jobs: worker processes; as many as there are cores if it is None, none at all for 1.
        options: replaces drawn options, as in `options.parse`.
        progress: told after each piece.
        found_max: findings in more runs than this say nothing new.
    """
    logging.getLogger("sessile").addHandler(
        logging.NullHandler()
    )  # what virtual servers log would stand between the lines
    total = Campaign()
    began = time.monotonic()
    pieces = [(seeds[at : at + PIECE], options) for at in range(0, len(seeds), PIECE)]
    jobs = min(jobs or os.cpu_count() or 1, max(len(pieces), 1))

    def add(results: Iterable[_Piece]) -> None:
        for piece in results:
            total.runs += piece.runs
            total.requests += piece.requests
            total.virtual_ms += piece.virtual_ms
            total.found += piece.found
            total.coverage.add(piece.coverage)
            total.seconds = time.monotonic() - began
            progress(total)
            if len(total.found) >= found_max:
                return

    if jobs == 1:
        add(map(_play, pieces))
    else:
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            add(pool.imap_unordered(_play, pieces))
            pool.terminate()
    total.found.sort(key=lambda found: found.seed)
    return total


def _play(piece: tuple[Sequence[int], str]) -> _Piece:
    seeds, given = piece
    done = _Piece(0, 0, 0, [], Coverage())
    for seed in seeds:
        options, findings, coverage, requests, virtual_ms = one(seed, given)
        done.runs += 1
        done.requests += requests
        done.virtual_ms += virtual_ms
        done.coverage.add(coverage)
        if findings:
            done.found.append(Found(seed, options, findings))
    return done
