"""`make mutants`: how many small faults in the code the tests notice.

::

  make mutants
  make mutants ARGS="--minutes 5 --only record,delta"
  make mutants ARGS="--only handmade"
  make mutants ARGS="--survivors"
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import TYPE_CHECKING

from bench import report
from bench.mutants.campaign import SCORE_MIN, Campaign, Options
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only if enough mutants were killed, and all of those that are listed by hand."""
    parser = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="how long it may take (20)")
    parser.add_argument("--only", default="", help="modules, separated by commas; handmade: those listed by hand")
    parser.add_argument("--seed", type=int, default=1, help="the order in which they are tried (1)")
    parser.add_argument("--sample", type=int, help="at most this many of each module")
    parser.add_argument("--afresh", action="store_true", help="forget what earlier runs found")
    parser.add_argument("--survivors", action="store_true", help="try once more what survived, and nothing else")
    given = parser.parse_args(argv)
    only = tuple(filter(None, given.only.split(",")))
    options = Options(given.minutes, given.seed, only, given.sample, given.afresh, given.survivors)
    began = time.monotonic()

    def progress(line: str) -> None:
        print(f"  {time.monotonic() - began:5.0f} s  {line}", file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends child processes as well
    campaign = Campaign(options, progress)
    try:
        campaign.run()
    except (CannotShow, ValueError) as problem:
        print(f"make mutants: {problem}", file=sys.stderr)
        return 2
    print_result(campaign)
    return 0 if campaign.holds else 1


def print_result(campaign: Campaign) -> None:
    """The survivors, the score of each module, the verdict."""
    total = campaign.total
    for mutant in (*campaign.handmade.survivors, *total.survivors):
        print(f"survived: {mutant}")
    rows: list[tuple[str, ...]] = [("module", "tried", "of", "killed", "survived", "equivalent", "score")]
    for each in (*campaign.scores, total):
        left = len(each.survivors)
        score = f"{each.score:.1%}" if each.tried else "-"
        rows.append((each.module, *map(str, (each.tried, each.made, each.killed, left, each.equivalent)), score))
    print("\n".join(report.table(rows)))
    if campaign.handmade.made:
        print(f"listed by hand: {campaign.handmade.killed} of {campaign.handmade.made} killed")
    for note in campaign.notes:
        print(note)
    verdict = "HOLDS" if campaign.holds else "FALLS SHORT"
    print(f"mutants: {verdict} (at least {SCORE_MIN:.0%}, and all that are listed by hand)")


if __name__ == "__main__":
    sys.exit(main())
