"""`mutants`: small faults are put into the code one at a time, and the tests notice nearly every one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.mutants.campaign import SCORE_MIN, Campaign, Options
from bench.show import CannotShow, Figure, Progress, Shown

if TYPE_CHECKING:
    from bench.mutants.campaign import Scores

SUMMARY = "Of small faults put into the core, replication and stores, the tests notice at least 95 % and all that are listed by hand."
PROGRAMS = ("redis-server",)

SEED = 11
MINUTES = float(os.environ.get("SESSILE_MUTANTS_MINUTES", "30"))
SURVIVORS_SHOWN = 60
NOTES = [
    "cosmic-ray's near misses, statements left out, min for max, in for not in, errors no longer caught: a seeded sample",
    "equivalent mutants are listed with a reason in bench/mutants/equivalent.toml, and are not counted",
]


def run(progress: Progress) -> Shown:
    """Run the sample of this seed until the time is over, without the results of earlier runs."""
    campaign = Campaign(Options(minutes=MINUTES, seed=SEED), progress, kept=None)
    try:
        campaign.run()
    except ValueError as problem:
        raise CannotShow(str(problem)) from None
    return judged(campaign.handmade, campaign.scores, campaign.total, campaign.notes)


def judged(handmade: Scores, scores: list[Scores], total: Scores, notes: list[str]) -> Shown:
    """The score of each module and of all; every mutant that is listed by hand must be noticed."""
    figures = [
        Figure(f"{each.module}: noticed of {each.tried} (of {each.made})", 100 * each.score, "%")
        for each in scores
        if each.tried
    ]
    figures += [
        Figure("mutants tried", total.tried, "", "> 0", total.tried > 0),
        Figure("mutants noticed", 100 * total.score, "%", f">= {SCORE_MIN:.0%}", total.score >= SCORE_MIN),
        Figure("equivalent, with a reason", total.equivalent),
        Figure("listed by hand", handmade.made, "", "> 0", handmade.made > 0),
        Figure("listed by hand and not noticed", len(handmade.survivors), "", "= 0", not handmade.survivors),
    ]
    survivors = [f"survived: {each}" for each in (*handmade.survivors, *total.survivors)]
    if len(survivors) > SURVIVORS_SHOWN:
        survivors[SURVIVORS_SHOWN:] = [f"and {len(survivors) - SURVIVORS_SHOWN} more: make mutants lists them"]
    return Shown("mutants", figures, [*NOTES, *notes, *survivors])
