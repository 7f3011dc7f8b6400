"""`mistakes`: mistakes that people make with settings, clusters and stores, each made on real processes.

For each one: what was done, each line that was logged, and the exit status. A line must name the setting and the remedy, no
traceback is needed to understand it, and no secret is in it; a server either stops or goes on as it must.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.mistakes.judge import faults_of
from bench.mistakes.table import MISTAKES
from bench.show import Figure, Progress, Shown
from sessile.shown import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.mistakes import Mistake, Seen

SUMMARY = "Mistakes with settings, clusters and stores: each is told in a line that names the setting and the remedy."

LINES_SHOWN: Final = 8
CHARS_SHOWN: Final = 400
ONLY: Final = "MISTAKES_ONLY"
"""A variable with the beginnings of names (`D17`, `C`), with commas between them: only these are made."""


def told(mistake: Mistake, seen: Seen, faults: list[str]) -> list[str]:
    """The rows of one mistake, for people."""
    ended = "it ran on" if seen.status is None else f"it ended with status {seen.status}"
    counted = ", ".join(f"{seen.answers.count(one)} times {one or 'none'}" for one in sorted(set(seen.answers)))
    answered = f"; answers: {counted}" if counted else ""
    rows = [f"{mistake.issue} {mistake.name}: {seen.done}; {ended}{answered}"]
    rows += [f"    log: {plain(line, CHARS_SHOWN)}" for line in seen.lines[:LINES_SHOWN]]
    if len(seen.lines) > LINES_SHOWN:
        rows.append(f"    log: and {len(seen.lines) - LINES_SHOWN} lines more")
    return rows + [f"    WRONG: {fault}" for fault in faults]


def play(mistake: Mistake, progress: Progress) -> tuple[Seen, list[str]]:
    """Make it; what was seen, and what is wrong with that."""
    progress(f"{mistake.issue} {mistake.name}")
    with tempfile.TemporaryDirectory(prefix="sessile-mistake-") as folder:
        seen = mistake.play(Path(folder))
    return seen, faults_of(seen, mistake.wanted)


def chosen(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Those that are asked for and whose programs are there."""
    only = tuple(part for part in os.environ.get(ONLY, "").split(",") if part)
    return [each for each in mistakes if not only or each.issue.startswith(only)]


def run(progress: Progress) -> Shown:
    """One after the other."""
    figures, notes = [], []
    for mistake in chosen(MISTAKES):
        name = f"{mistake.issue} {mistake.name}"
        missing = [program for program in mistake.programs if shutil.which(program) is None]
        if missing:
            notes.append(f"{name}: not made, {', '.join(missing)} is not installed")
            continue
        seen, faults = play(mistake, progress)
        notes += told(mistake, seen, faults)
        figures.append(Figure(name, len(seen.lines), "lines", mistake.wanted.outcome.value, holds=not faults))
    return Shown("mistakes", figures, notes)
