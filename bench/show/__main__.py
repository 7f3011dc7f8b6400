"""`make show`: the list of promises, or one of them run.

::

  make show
  make show NAME=memory
  make show NAME=session-cost ARGS=--json
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import TYPE_CHECKING

from bench import catalogue, report
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Sequence


def list_promises(*, as_json: bool) -> int:
    """Print the name and the sentence of every promise."""
    promises = [catalogue.load(name) for name in catalogue.names()]
    if as_json:
        print(json.dumps([{"name": promise.name, "summary": promise.summary} for promise in promises], indent=2))
    else:
        print("\n".join(report.table([("promise", "summary"), *((each.name, each.summary) for each in promises)])))
        print("\nmake show NAME=... runs one of them.")
    return 0


def show_promise(name: str, *, as_json: bool) -> int:
    """Run one promise, save and print what it found."""
    promise = catalogue.load(name)
    print(f"{promise.name}: {promise.summary}", file=sys.stderr)
    shown = catalogue.show(promise)
    report.save(shown)
    print(json.dumps(report.as_data(shown), indent=2) if as_json else report.text(shown))
    return 0 if shown.holds else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only when what was asked for holds."""
    parser = argparse.ArgumentParser(
        prog="make show", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="the promise to show; without it, the list of all")
    parser.add_argument("--json", action="store_true", help="print JSON, progress on stderr")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what the promise started ends with it
    try:
        if arguments.name is None:
            return list_promises(as_json=arguments.json)
        return show_promise(arguments.name, as_json=arguments.json)
    except CannotShow as problem:
        print(f"make show: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
