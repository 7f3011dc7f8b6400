"""A peer under the same law: `python -m bench.ending.peer NAME REDIS_PORT TIMES`, in that peer's environment.

One request of a browser is under way when the same browser logs out; it ends afterwards, and has written to the session. Prints
how often the cookies of before the logout opened the session then.
"""

from __future__ import annotations

import sys

from bench.races.hazards import slow_writer_after_logout
from bench.races.peer import site_of

__all__ = ["count"]


def count(name: str, redis_port: int, times: int) -> int:
    """How often the session was back."""
    site = site_of(name, redis_port)
    return sum(slow_writer_after_logout(site) == "RESURRECTED" for _ in range(times))


if __name__ == "__main__":
    print(count(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), flush=True)
