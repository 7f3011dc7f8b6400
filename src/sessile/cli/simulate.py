"""Run servers, network and browsers in a virtual world under faults, and check that every promise holds.

Each run follows from its seed: kinds of faults, number of servers, strategy, requests, everything. The engine and the
replication core are the real ones; time, network and chance are not. A run that finds something is made smaller, and the
command that replays it is printed.

Examples:
  sessile simulate --runs 1000
  sessile simulate --seed 4711 --trace
  sessile simulate --runs 100 --options nodes=2,faults=crashes+pauses
  sessile simulate --runs 100000 --coverage
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from sessile.simulation.campaign import Campaign, Found
    from sessile.simulation.options import Options

HELP = "a virtual cluster under faults, run by run from seeds, with every promise checked"

BAR_CHARS = 30
LINE_EVERY_S = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this subcommand."""
    parser.add_argument("--runs", type=int, default=1_000, metavar="N", help="how many runs (1000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the seed of the first run (0)")
    parser.add_argument("--seed", type=int, metavar="N", help="this one run")
    parser.add_argument("--options", default="", metavar="TEXT", help="replace what seeds draw: nodes=3,faults=losses")
    parser.add_argument("--jobs", type=int, metavar="N", help="how many runs at a time (one on each core)")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    parser.add_argument("--coverage", action="store_true", help="print how often each message came under each fault")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Make the runs; the status is 1 if one of them found something.

    Raises:
        SettingsError: an option of the runs is unknown, or is given what it cannot be.
    """
    from sessile.simulation.campaign import campaign  # noqa: PLC0415 - other subcommands do without
    from sessile.simulation.options import draw, parse  # noqa: PLC0415 - as above

    if arguments.seed is None:
        seeds = range(arguments.first, arguments.first + arguments.runs)
    else:
        seeds = range(arguments.seed, arguments.seed + 1)
    for seed in seeds[:1]:
        options = parse(arguments.options, draw(seed))  # raises before anything is started
        if arguments.trace:
            _trace(seed, options)
    bar = _Bar(len(seeds), is_shown=not arguments.json and len(seeds) > 1)
    done = campaign(seeds, jobs=arguments.jobs, options=arguments.options, progress=bar.show)
    bar.end()
    smallest = _smallest(done.found[0]) if done.found else None
    if arguments.json:
        print(json.dumps(_told(done, smallest)))
    else:
        print(_text(done, smallest))
        if arguments.coverage:
            print(done.coverage.table())
            print("\n".join(f"{count:>12} {name}" for name, count in sorted(done.coverage.counts.items())))
    return 1 if done.found else 0


def _trace(seed: int, options: Options) -> None:
    """Print a run line by line."""
    from sessile.simulation.run import run as run_one  # noqa: PLC0415 - as above

    print(options)
    run_one(seed, options, show=print)


def _smallest(found: Found) -> str:
    """What plays the smallest run that still finds something."""
    from sessile.simulation.campaign import one  # noqa: PLC0415 - as above
    from sessile.simulation.smaller import smallest  # noqa: PLC0415 - as above

    print(f"seed {found.seed} found something; looking for the smallest run that still does", file=sys.stderr)
    options = smallest(found.options, lambda options: bool(one(found.seed, str(options))[1]))
    return f"sessile simulate --seed {found.seed} --options {options}"


def _told(done: Campaign, smallest: str | None) -> dict[str, Any]:
    """What is printed as JSON."""
    return {
        "runs": done.runs,
        "requests": done.requests,
        "virtual_s": round(done.virtual_ms / 1_000, 1),
        "seconds": round(done.seconds, 1),
        "runs_per_s": round(done.runs_per_s, 1),
        "found": [
            {
                "seed": found.seed,
                "replay": found.command,
                "smallest": smallest if found is done.found[0] else None,
                "findings": [
                    {"checker": each.checker, "at_ms": each.at_ms, "problem": each.problem} for each in found.findings
                ],
            }
            for found in done.found
        ],
        "messages": {f"{message} under {fault}": count for (message, fault), count in done.coverage.cells().items()},
        "states": dict(sorted(done.coverage.counts.items())),
    }


def _text(done: Campaign, smallest: str | None) -> str:
    lines = []
    for found in done.found:
        lines += [f"{each.at_ms} ms, {each.checker}: {each.problem}" for each in found.findings]
        lines.append(f"  {found.command}")
    if smallest:
        lines.append(f"The smallest run that still finds something:\n  {smallest}")
    lines.append(
        f"{done.runs} runs in {done.seconds:.1f} s ({done.runs_per_s:.0f} a second), {done.requests} requests, "
        f"{done.virtual_ms / 1_000:.0f} virtual seconds: "
        + (f"{len(done.found)} found something" if done.found else "nothing found")
    )
    return "\n".join(lines)


class _Bar:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, *, is_shown: bool = True) -> None:
        self._total = total
        self._is_shown = is_shown
        self._is_terminal = sys.stderr.isatty()
        self._said_s = 0.0

    def show(self, done: Campaign) -> None:
        """So far it came to this."""
        if not self._is_shown or done.seconds - self._said_s < (0.1 if self._is_terminal else LINE_EVERY_S):
            return
        self._said_s = done.seconds
        left_s = (self._total - done.runs) / max(done.runs_per_s, 0.1)
        about = f"{done.runs}/{self._total} runs, {done.runs_per_s:.0f} a second, {left_s:.0f} s to go"
        if done.found:
            about += f", {len(done.found)} found something"
        filled = BAR_CHARS * done.runs // self._total
        if self._is_terminal:
            about = f"\r[{'#' * filled}{'.' * (BAR_CHARS - filled)}] {about} "
        print(about, end="" if self._is_terminal else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing more comes."""
        if self._is_shown and self._is_terminal:
            print(file=sys.stderr)
