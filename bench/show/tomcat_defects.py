"""`tomcat-defects`: the ways in which Tomcat loses writes without a word, played on real engines and nodes."""

from __future__ import annotations

from bench.show import Figure, Progress, Shown
from tests.replication.tomcat_defects import SCENARIOS

SUMMARY = "Where Tomcat's session managers silently lose writes, nothing is lost here."

NOTES = [
    "real engines and nodes, links in memory that encode and decode every message, steps put in the worst order",
    "each was reproduced with Tomcat 10.1.60's own classes, where the write is lost at the end without a line in a log",
]


def run(progress: Progress) -> Shown:
    """Play every scenario, and look at every server afterwards."""
    figures = []
    notes = list(NOTES)
    for name, scenario in SCENARIOS.items():
        progress(name)
        wrong = scenario()
        figures.append(Figure(name, float(bool(wrong)), "lost", "= 0", not wrong, "Tomcat", 1))
        if wrong:
            notes.append(f"{name}: {wrong}")
    return Shown("tomcat-defects", figures, notes)
