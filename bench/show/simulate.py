"""`simulate`: the replication core in a hundred thousand hostile runs."""

from __future__ import annotations

from bench.show import Figure, Progress, Shown
from sessile.simulation.campaign import Campaign, campaign
from sessile.simulation.coverage import MESSAGES
from sessile.simulation.options import FAULTS

SUMMARY = "100 000 runs of the replication core under faults find nothing; every message met every fault 1 000 times."

RUNS = 100_000
FIRST = 1_000_000
EACH = 1_000
RARE = {"Rejoin"}
NOTES = [
    "real engines, nodes, records, cookies and frames; network, clocks, faults and browsers are virtual and seeded",
    "a cell of the table: a message of that type arrived while that fault was at work, anywhere",
    "not judged: Rejoin, which only arrives where one of two nodes alone has noticed that they were apart for too long;",
    "how often nodes were, and started over, told or untold: `node.reunions` and `note starting over`",
    "play one again: sessile simulate --seed N --trace",
]


def run(progress: Progress) -> Shown:
    """Run them on all cores."""
    told = 0.0
    findings = 0

    def tell(done: Campaign) -> None:
        nonlocal told, findings
        for found in done.found[findings:]:
            progress(f"{found.findings[0].checker}: {found.findings[0].problem}\n  {found.command}")
        findings = len(done.found)
        if done.seconds - told >= 10:
            told = done.seconds
            progress(f"{done.runs} of {RUNS} runs, {done.runs_per_s:.0f} a second, {len(done.found)} found something")

    return judged(campaign(range(FIRST, FIRST + RUNS), progress=tell))


def judged(done: Campaign) -> Shown:
    """The figures and their bounds."""
    cells = done.coverage.cells()
    table = {cell: count for cell, count in cells.items() if cell[0] not in RARE}
    few = sorted((count, cell) for cell, count in table.items() if count < EACH)
    figures = [
        Figure("runs", done.runs, "", f"= {RUNS}", done.runs == RUNS),
        Figure("runs that found something", len(done.found), "", "= 0", not done.found),
        Figure("runs a second", done.runs_per_s, "1/s"),
        Figure("requests made", done.requests),
        Figure("virtual time", done.virtual_ms / 3_600_000, "h"),
        Figure(
            f"cells of messages by faults ({len(MESSAGES) - len(RARE)} x {len(FAULTS) + 1}) below {EACH}",
            len(few), "", "= 0", not few,
        ),
        Figure("the least of them", min(table.values())),
        *(Figure(f"came up: {name}", count) for name, count in sorted(done.coverage.counts.items()) if is_state(name)),
    ]  # fmt: skip
    notes = [*NOTES, *(f"{message} while {fault}: {count}" for count, (message, fault) in few)]
    notes += [f"{found.command}: {found.findings[0]}" for found in done.found]
    return Shown("simulate", figures, [*notes, "", *done.coverage.table().splitlines()])


def is_state(name: str) -> bool:
    """Whether a count tells of a state or an outcome: standings, answers to questions, denials, what became of deltas."""
    return name.startswith(("note member", "note starting", "pull ", "push ", "wait ", "node.denied", "node.pulled")) or name in {
        "node.applied", "node.reunions", "node.known", "node.need", "node.absences", "node.repaired", "node.second_targets", "node.hedged",
    }  # fmt: skip
