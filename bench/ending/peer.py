"""The same test of another library: `python -m bench.ending.peer NAME REDIS_PORT TIMES`, in that library's environment.

A request of a browser is under way when the same browser logs out. The request writes to the session and ends after the logout.
Prints how often the cookies from before the logout opened the session after that.
"""

from __future__ import annotations

import sys

from bench.races.hazards import slow_writer_after_logout
from bench.races.peer import site_of

__all__ = ["count"]


def count(name: str, redis_port: int, times: int) -> int:
    """How often the session opened again."""
    site = site_of(name, redis_port)
    return sum(slow_writer_after_logout(site) == "RESURRECTED" for _ in range(times))


if __name__ == "__main__":
    print(count(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), flush=True)
