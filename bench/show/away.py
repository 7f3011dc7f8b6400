"""`away`: a server that was away shows no session whose logout was answered meanwhile.

On every strategy, and four kinds of servers, the last server is stopped (SIGSTOP) for 0.3 to 10 s. Users log out at another server.
As soon as that is answered, their old cookies are sent to the stopped server, on connections that it had accepted before and on
new ones. More requests follow right after it continues. Then the same is done with a server that is not stopped, but busy with
computing threads. Users who did not log out must be shown their sessions all the time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.ending.absence import STOPS_S, Absence, busy, stopped
from bench.ending.server import KINDS
from bench.ending.stores import STRATEGIES
from bench.ending.visits import Tally
from bench.show import Figure, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

SUMMARY = (
    "A server that was stopped or busy shows no session whose logout was answered meanwhile, and shows every other one."
)
PROGRAMS = ("redis-server",)

SHARED: Final = ("all-to-all", "primary-backup", "redis leased", "redis checked", "sqlite")
BUSY_KINDS: Final = ("gunicorn", "threads")
BUSY_THREADS: Final = 8
USERS: Final = 16
BUSY_USERS: Final = 40
AT_ONCE: Final = 5
"""How many groups of servers are played at a time."""
BUSY_AT_ONCE: Final = 2
ANSWERS_MIN: Final = 2_000
REFUSED_MAX: Final = 0.02
"""The part of the requests with cookies of living sessions that may be answered with 503."""


@dataclass
class Row:
    """The result of one strategy on one kind of servers."""

    strategy: str
    kind: str
    is_busy: bool
    found: dict[float, Absence] = field(default_factory=dict)
    """By how long the server was stopped, in seconds; 0 if it was busy."""
    broke: str = ""
    """Why it was not played to its end."""

    @property
    def name(self) -> str:
        return f"{self.strategy}, {self.kind}, {'busy' if self.is_busy else 'stopped'}"

    def old(self) -> Tally:
        """All answers to cookies from before a logout."""
        return total([each.old for each in self.found.values()])

    def living(self) -> Tally:
        return total([each.living for each in self.found.values()])


def total(tallies: list[Tally]) -> Tally:
    """All of them together."""
    found = Tally()
    for tally in tallies:
        found.add(tally)
    return found


async def play_all(progress: Progress) -> list[Row]:
    """Play every row with stopped servers, a few at a time, and then with busy ones."""
    rows: list[Row] = []

    async def one(row: Row, room: asyncio.Semaphore, playing: Coroutine[Any, Any, dict[float, Absence]]) -> None:
        rows.append(row)
        async with room:
            try:
                row.found = await playing
            except Exception as error:  # noqa: BLE001  # a play that raises is reported, and must not end the others
                row.broke = f"{type(error).__name__}: {error}"
        old = row.old()
        progress(f"{row.name}: {row.broke or f'{old.opened} of {old.asked} answers showed a session that had ended'}")

    async def busy_once(strategy: str, kind: str) -> dict[float, Absence]:
        return {0.0: await busy(STRATEGIES[strategy], kind, users=BUSY_USERS, threads=BUSY_THREADS)}

    room = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(
        *(
            one(
                Row(strategy, kind, is_busy=False),
                room,
                stopped(STRATEGIES[strategy], kind, users=USERS, stops_s=STOPS_S),
            )
            for kind in KINDS
            for strategy in SHARED
        )
    )
    room = asyncio.Semaphore(BUSY_AT_ONCE)
    await asyncio.gather(
        *(
            one(Row(strategy, kind, is_busy=True), room, busy_once(strategy, kind))
            for kind in BUSY_KINDS
            for strategy in SHARED
        )
    )
    return rows


def judge(rows: list[Row]) -> list[Figure]:
    """No ended session is shown; each living one is."""
    figures = []
    for row in rows:
        old = row.old()
        is_played = bool(old.asked) and all(each.old.ended for each in row.found.values())
        figures.append(
            Figure(
                f"{row.name}: showed the session, of {old.asked}", old.opened, "", "= 0", is_played and not old.opened
            )
        )
    old, living = total([row.old() for row in rows]), total([row.living() for row in rows])
    denied = living.asked - living.opened - living.refused
    share = living.refused / max(living.asked, 1)
    return [
        *figures,
        Figure("answers after an answered logout", old.asked, "", f">= {ANSWERS_MIN}", old.asked >= ANSWERS_MIN),
        Figure("of them, showed the session", old.opened, "", "= 0", not old.opened),
        Figure("of them, 503", old.refused),
        Figure("of them, neither 200 nor 503", old.failed, "", "= 0", not old.failed),
        Figure(
            "logouts that were not answered with 200",
            sum(each.refused_ends for row in rows for each in row.found.values()),
        ),
        Figure("answers to sessions that go on", living.asked, "", "> 0", living.asked > 0),
        Figure("of them, did not show it", denied, "", "= 0", not denied),
        Figure("of them, 503", 100 * share, "%", f"<= {100 * REFUSED_MAX:g}", share <= REFUSED_MAX),
    ]


def by_stop(row: Row) -> str:
    """How many answers showed the session, for each time that the server was stopped."""
    return "; ".join(f"{stop_s:g} s: {it.old.opened} of {it.old.asked}" for stop_s, it in row.found.items())


def run(progress: Progress) -> Shown:
    """Play every row, and judge what the server that was away showed."""
    rows = asyncio.run(play_all(progress))
    notes = [
        *NOTES,
        *(f"{row.name}: not played to its end: {row.broke}" for row in rows if row.broke),
        *(f"{row.name}: {by_stop(row)}" for row in rows if row.old().opened),
        *(f"{row.name}: {row.old().wrongs[0]}" for row in rows if row.old().wrongs),
    ]
    return Shown("away", judge(rows), notes)


NOTES: Final = [
    "default settings; 3 servers in a cluster, 2 on a store, each a process of its own, asked at its own port",
    "asyncio and uvloop: uvicorn; gunicorn: one worker of 8 threads; threads: wsgiref with a thread for each connection",
    "an answer counts if its request was sent after the answer to the logout had come; a 503 shows no session, and is counted apart",
    f"busy: {BUSY_THREADS} threads compute in the server's process",
    "peer: Tomcat's session replication: NOT RUN, it is not on this machine; no Python peer holds copies of sessions in its servers",
]
