"""Sessions by one contender: `python -m bench.peers.fill NAME REDIS_PORT COUNT`, in that contender's environment.

Every one is begun by a browser of its own, with the content of the workload; says `{}` when all are there.
"""

from __future__ import annotations

import sys

from bench.peers.__main__ import drivers
from bench.peers.workload import DATA, FILL, READ, Browser


def main() -> int:
    """Begin them all, and see that the last one is there."""
    name, redis_port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _, driver = drivers(name, redis_port)
    browser = Browser()
    for _ in range(count):
        browser = Browser()
        driver.ask(FILL, browser)
    if driver.ask(READ, browser) != str(DATA["user_id"]):
        sys.stderr.write("the last session is not there\n")
        return 1
    print("{}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
