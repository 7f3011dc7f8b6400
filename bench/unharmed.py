"""What is judged alike wherever servers come to harm under a crowd: nothing lost, nothing twice, nothing old.

Knows what users were told and how long they waited, not what was done to the servers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bench.show import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.crowd import Asked, User

__all__ = [
    "COPIES",
    "NOTES",
    "ROUTING",
    "all_asked",
    "ended_with_server",
    "exactly",
    "failures",
    "longest",
    "named",
    "sessions_unharmed",
    "wrongs",
]

COPIES: Final = {"all-to-all": 3, "primary-backup": 2}
"""Strategy → on how many of three servers a session is."""
ROUTING: Final = "round-robin"
WRONGS_TOLD: Final = 20
NOTES: Final = [
    "servers and balancer are started by `sessile demo --routing round-robin`: any server answers any user",
    "users have one request under way at a time, and pauses of 0.3 s; clients never send anything twice",
    "reads, counts (read-modify-write), increments and assignments, by chance",
    "every answer is compared with a model of the session, and in the end every session is read from every server",
]


def sessions_unharmed(users: list[User]) -> list[Figure]:
    """What no failure may do to a session."""
    return [
        exactly("acknowledged changes lost", sum(user.changes_lost for user in users)),
        exactly("sessions lost", sum(user.sessions_lost for user in users)),
        exactly("changes executed twice", sum(user.executed_twice for user in users)),
        exactly("answers that were stale", sum(user.stale for user in users)),
    ]


def exactly(name: str, value: int, wanted: int = 0) -> Figure:
    """A figure that is promised to the last digit."""
    return Figure(name, value, "", f"= {wanted}", value == wanted)


def all_asked(users: list[User], method: str) -> list[Asked]:
    """All requests of a method, whoever sent them."""
    return [asked for user in users for asked in user.asked if asked.method == method]


def longest(name: str, times: Iterable[float]) -> Figure:
    """A figure that is only shown: the longest of these times."""
    return Figure(f"longest {name}", max(times, default=0.0), "s")


def named(strategy: str, figures: Iterable[Figure]) -> list[Figure]:
    """The figures of one strategy."""
    return [replace(figure, name=f"{strategy}: {figure.name}") for figure in figures]


def failures(users: list[User]) -> str:
    """What failed and what was wrong so far, in words."""
    gets, posts = (sum(not one.is_good for one in all_asked(users, method)) for method in ("GET", "POST"))
    return f"{gets} GET and {posts} POST failed, {sum(len(user.wrongs) for user in users)} answers were wrong"


def ended_with_server(asked: Asked) -> bool:
    """Whether a request that may not be sent twice failed as it must: its server ended before, or within, its answer."""
    return asked.method == "POST" and asked.status in {0, 502}


def wrongs(strategy: str, users: list[User]) -> list[str]:
    """The first answers that were wrong, and the first failures that had another cause than a server's end, in words."""
    failed = [one for user in users for one in user.asked if not one.is_good and not ended_with_server(one)]
    told = [wrong for user in users for wrong in user.wrongs]
    told += [f"a {one.method} failed with status {one.status} after {one.seconds:.2f} s" for one in failed]
    return [f"{strategy}: {one}" for one in told[:WRONGS_TOLD]]
