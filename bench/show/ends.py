"""`ends`: a session that has ended stays ended, on every strategy and store, whatever fails and however long ago it ended.

Users log in at real servers, visit all of them, and log out at one. Their old cookies are tried at every server, right after and
long after the logout: when every tombstone has been dropped, while copies of the session may still exist. Meanwhile nothing
fails; or a server ends, is stopped, is cut off or is full; or the store is away, is out of memory, or loses messages of its
channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from bench import environments
from bench.ending import plays
from bench.ending.plays import LIVING, SQL_SWEPT_S, Scale
from bench.ending.stores import STRATEGIES, Strategy
from bench.ending.visits import Tally
from bench.namespaces import namespaces
from bench.redis_server import redis_server
from bench.show import CannotShow, Figure, Progress, Shown
from tests.conftest import SEARCHED

SUMMARY = "After a logout was answered, its cookies open no session on any server, whatever failed and however long ago it was."
PROGRAMS = ("redis-server",)

AT_ONCE: Final = 5
"""The number of plays that run at a time; they mostly wait."""
ALL: Final = (
    "sticky",
    "all-to-all",
    "primary-backup",
    "redis leased",
    "redis checked",
    "redis off",
    "sqlite",
    "postgresql",
)
SHARED: Final = ("all-to-all", "primary-backup", "redis leased", "redis checked", "sqlite")
CLUSTERS: Final = ("all-to-all", "primary-backup")
SCALE: Final = Scale()
SQL: Final = Scale(factor=30, swept_s=SQL_SWEPT_S)
WSGI_USERS: Final = 6
"""Few users under WSGI, since each long request occupies a thread."""
PEER: Final = "starsessions"
PEER_TIMES: Final = 20

Play = Callable[[Strategy, Scale], Coroutine[Any, Any, dict[str, Tally]]]


@dataclass(frozen=True)
class Case:
    """One kind of failure, and the strategies on which it is played."""

    name: str
    play: Play
    strategies: tuple[str, ...]
    scale: Scale | None = None
    """The scale on strategies without SQL; None: `SCALE`."""

    def scale_on(self, strategy: str) -> Scale:
        scale = self.scale or SCALE
        return replace(SQL, users=scale.users) if strategy in {"sqlite", "postgresql"} else scale


CASES: Final = (
    Case("100 001 other ends", plays.many_others, ("redis leased", "redis checked", "all-to-all"), Scale(factor=25)),
    Case("no fault", plays.calm, ALL),
    Case("no fault, WSGI", functools.partial(plays.calm, kind="gunicorn"), SHARED, Scale(users=WSGI_USERS)),
    Case("restart", plays.restarted, (*SHARED, "postgresql")),
    Case("server stopped", plays.paused, (*SHARED, "postgresql")),
    Case("cluster cut in two", plays.parted, CLUSTERS),
    Case("server full", plays.full, SHARED),
    Case(
        "store",
        plays.away,
        ("redis leased", "redis checked", "redis frozen", "sqlite", "postgresql"),
    ),
    Case(
        "cut off from the store",
        functools.partial(plays.apart, is_own=True),
        ("redis leased", "redis checked", "postgresql"),
    ),
    Case(
        "cut off from the store",
        functools.partial(plays.apart, is_own=False),
        ("redis leased", "redis checked", "postgresql"),
    ),
    Case("Redis", plays.unheard, ("redis leased", "redis checked")),
    Case("Redis", plays.pressed, ("redis small", "redis small checked")),
)


@dataclass
class Row:
    """The result of one case on one strategy."""

    case: str
    strategy: str
    tallies: dict[str, Tally]
    not_run: str = ""
    """Why it was not played, where this machine lacks something."""
    broke: str = ""
    """Why it was not played to its end."""


async def play_all(cases: tuple[Case, ...], progress: Progress) -> list[Row]:
    """Play all cases, a few at a time."""
    room, cut = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
    wanted = [(case, name) for case in cases for name in case.strategies]
    done = 0

    async def one(case: Case, name: str) -> Row:
        nonlocal done
        row = Row(case.name, name, {}, lacking(case, name))
        if not row.not_run:
            async with room, cut if case.play is plays.parted else contextlib.nullcontext():
                try:
                    row.tallies = await case.play(STRATEGIES[name], case.scale_on(name))
                except Exception as error:  # noqa: BLE001  # a play that raises is reported, and must not end the others
                    row.broke = f"{type(error).__name__}: {error}"
        done += 1
        progress(f"{done} of {len(wanted)}: {case.name}, {name}: {row.not_run or row.broke or in_words(row.tallies)}")
        return row

    return list(await asyncio.gather(*(one(case, name) for case, name in wanted)))


def lacking(case: Case, name: str) -> str:
    """What this machine lacks for the case, in words."""
    if name == "postgresql" and shutil.which("postgres", path=SEARCHED) is None:
        return "postgres is not installed; try: sh scripts/apt.sh postgres"
    if case.play is plays.parted:
        return networks_lacking()
    return ""


@functools.cache
def networks_lacking() -> str:
    """Why this machine makes no network namespaces."""
    try:
        with namespaces(2):
            return ""
    except CannotShow as problem:
        return str(problem)


def in_words(tallies: dict[str, Tally]) -> str:
    """The tallies of a case, in words."""
    return ", ".join(f"{kind} {len(it.users_opened)} of {it.ended} opened" for kind, it in tallies.items() if it.ended)


def judge(rows: list[Row]) -> list[Figure]:
    """No server shows a session that ended; every session that goes on is shown."""
    figures = []
    total = Tally()
    for row in rows:
        for kind, tally in row.tallies.items():
            if kind == LIVING:
                continue
            total.add(tally)
            opened = len(tally.users_opened)
            name = f"{row.case}, {row.strategy}: {kind}, sessions opened of {tally.ended}"
            figures.append(Figure(name, opened, "", "= 0", tally.ended > 0 and not opened))
    broken = sum(bool(row.broke) for row in rows)
    overdue = sum(tally.overdue for row in rows for tally in row.tallies.values())
    living = [row.tallies[LIVING] for row in rows if LIVING in row.tallies]
    missing = sum(tally.failed for tally in living)
    return [
        *figures,
        Figure("cases that were not played to their end", broken, "", "= 0", not broken),
        Figure("requests too late to show anything", overdue, "", "= 0", not overdue),
        Figure("answered ends, all together", total.ended),
        Figure("answers to old cookies", total.asked),
        Figure("of them, 503", total.refused),
        Figure("of them, neither 200 nor 503", total.failed, "", "= 0", not total.failed),
        Figure("of them, showed the session", total.opened, "", "= 0", not total.opened),
        Figure("answers that did not show a session that goes on", missing, "", "= 0", bool(living) and not missing),
    ]


def peer_figure(progress: Progress) -> Figure | str:
    """The result of the same test at a peer, for a fault that needs no waiting; or the reason why it was not run."""
    progress(f"{PEER} on Redis: a request is under way while its user logs out")
    try:
        with redis_server() as port:
            done = subprocess.run(
                [str(environments.python_of(PEER)), "-m", "bench.ending.peer", PEER, str(port), str(PEER_TIMES)],
                cwd=environments.ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
    except (CannotShow, subprocess.TimeoutExpired) as reason:
        return f"{PEER}: NOT RUN: {reason}"
    if done.returncode:
        return f"{PEER}: NOT RUN: {' '.join(done.stderr.strip().splitlines()[-1:])}"
    return Figure(f"{PEER} on Redis, long request: sessions opened of {PEER_TIMES}", int(done.stdout))


def run(progress: Progress) -> Shown:
    """Play every case on its strategies, and judge what old cookies opened."""
    rows = asyncio.run(play_all(CASES, progress))
    peer = peer_figure(progress)
    figures = [*judge(rows), *([peer] if isinstance(peer, Figure) else [])]
    notes = [
        *NOTES,
        *([peer] if isinstance(peer, str) else []),
        *(
            f"{row.case}, {row.strategy}: {row.tallies[LIVING].failed} of {row.tallies[LIVING].asked} answers denied a living session"
            for row in rows
            if LIVING in row.tallies and row.tallies[LIVING].failed
        ),
        *(f"{row.case}, {row.strategy}: NOT RUN: {row.not_run}" for row in rows if row.not_run),
        *(
            f"{row.case}, {row.strategy}: {kind}: {tally.overdue} requests came when the session had run out of time: this machine is too slow"
            for row in rows
            for kind, tally in row.tallies.items()
            if tally.overdue
        ),
        *(f"{row.case}, {row.strategy}: not played to its end: {row.broke}" for row in rows if row.broke),
        *(
            f"{row.case}, {row.strategy}: {each.wrongs[0]}"
            for row in rows
            for each in row.tallies.values()
            if each.wrongs
        ),
    ]
    return Shown("ends", figures, notes)


NOTES: Final = [
    "scaled time: idle_timeout, absolute_timeout, tombstone_keep, rotation_grace and failover_window are the defaults, divided by 50",
    "(by 30 on SQL, by 25 where 100 001 others end): 12 s for the 10 min of tombstone_keep, 36 s for the 30 min of idle_timeout",
    "timeouts of requests and servers (ack_timeout, store_timeout, dead_after, …) have their defaults, unscaled",
    "long after: tombstone_keep has passed since the end, and servers have swept; the session's idle_timeout has not passed",
    "real processes: uvicorn on asyncio (WSGI: gunicorn, 8 threads), 3 in a cluster, 2 on a store; each asked at its own port",
    "an answer counts if its request was sent after the answer to the logout had come; a 503 shows no session",
    "across a partition, and while the store is away, an end takes effect elsewhere when that is over: it is judged from then on",
]
