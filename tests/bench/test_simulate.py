"""The verdict over a hundred thousand runs is its bounds."""

from __future__ import annotations

from bench.show import simulate as promise
from sessile.simulation.campaign import Campaign, Found, campaign
from sessile.simulation.checkers.scene import Finding
from sessile.simulation.coverage import MESSAGES
from sessile.simulation.options import FAULTS, Options


def done(*, runs: int = promise.RUNS, each: int = promise.EACH) -> Campaign:
    made = Campaign()
    made.runs = runs
    for tag, name in MESSAGES.items():
        if name not in promise.RARE:
            for place in range(len(FAULTS)):
                made.coverage.frames[tag, 1 << place] = each
            made.coverage.frames[tag, 0] = each
    return made


def test_every_run_and_every_cell_counts() -> None:
    """All runs made, nothing found, every message often enough under every fault."""
    assert promise.judged(done()).holds
    assert not promise.judged(done(runs=promise.RUNS - 1)).holds
    assert not promise.judged(done(each=promise.EACH - 1)).holds
    found = done()
    found.found.append(Found(1, Options(), (Finding("reads", "wrong", 1),)))
    shown = promise.judged(found)
    assert not shown.holds and any("--seed 1" in note for note in shown.notes)


def test_a_few_real_runs_are_judged() -> None:
    """They find nothing, and are too few."""
    shown = promise.judged(campaign(range(1, 26), jobs=1))
    by_name = {figure.name: figure for figure in shown.figures}
    assert by_name["runs that found something"].holds and not shown.holds
    assert any(figure.name.startswith("came up: note member") for figure in shown.figures)
