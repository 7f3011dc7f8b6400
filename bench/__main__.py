"""`make bench`: every promise that measures, one after the other, as one table.

A promise that cannot be shown here is named, and makes the exit status 1, as does one that falls short.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from bench import catalogue, report
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.show import Shown


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only when everything was measured and holds."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON, progress on stderr")
    arguments = parser.parse_args(argv)
    promises = [promise for promise in map(catalogue.load, catalogue.names()) if promise.measures]
    all_shown: list[Shown] = []
    for promise in promises:
        print(f"{promise.name}: {promise.summary}", file=sys.stderr)
        try:
            shown = catalogue.show(promise)
        except CannotShow as problem:
            print(f"make bench: {promise.name}: {problem}", file=sys.stderr)
            continue
        report.save(shown)
        all_shown.append(shown)
    print(json.dumps(list(map(report.as_data, all_shown)), indent=2) if arguments.json else report.texts(all_shown))
    return 0 if len(all_shown) == len(promises) and all(shown.holds for shown in all_shown) else 1


if __name__ == "__main__":
    sys.exit(main())
