"""`kill`: servers are killed under load, one at a time, and started again; nobody misses them.

The demo is started by its public command, with `--routing round-robin`: any server answers any request, so every answer
leans on what the others hold. With affinity most requests would go where all that came before went, and a copy that is
missing or too old would hardly ever be asked for.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.crowd import answered_s, at_work
from bench.running import demo
from bench.show import Figure, Progress, Shown
from bench.unharmed import (
    COPIES,
    NOTES,
    ROUTING,
    all_asked,
    ended_with_server,
    exactly,
    failures,
    longest,
    named,
    sessions_unharmed,
    wrongs,
)

if TYPE_CHECKING:
    from bench.crowd import Crowd, User
    from bench.running import Running

SUMMARY = "50 times kill -9 under load with each strategy: no session, no change and no repeatable request is lost."

USERS: Final = 200
SERVERS: Final = 3
KILLS: Final = 50
DEAD_S: Final = 0.5
"""A killed server stays dead for so long at least."""
WHOLE_S: Final = 30.0
"""A server that was started again is linked and has its copies in so long, or that is a finding."""
TELL_EVERY: Final = 5
TOMCAT: Final = "Tomcat, HAProxy"
TOMCAT_FAILED: Final = 4.0
"""Requests that failed for each kill there: 4 to 17, of 10 that were under way, methods not told apart."""


class Kill(NamedTuple):
    """What one kill meant to the users of the server: those whose session it was the primary of."""

    victim: str
    users: int
    back_s: float
    """When the last of them was served again, and had not asked before the kill."""
    whole_s: float
    """From the restart until every session had all its copies."""
    is_whole: bool


async def strike(running: Running, crowd: Crowd, copies: int, rng: Random) -> Kill:
    """Kill one server, wait until its users are served, start it again, wait until it has its copies."""
    victim = rng.choice(sorted(await running.server_ports()))
    its = [user for user in crowd.users if user.home == victim]
    killed_s = time.monotonic()
    await running.kill(victim)
    dead_until_s = time.monotonic() + DEAD_S
    await crowd.until_answered(its, killed_s)
    back_s = max((answered_s(user, killed_s) or 0.0 for user in its), default=killed_s) - killed_s
    await asyncio.sleep(max(dead_until_s - time.monotonic(), 0))
    await running.act(victim, "restart")
    restarted_s = time.monotonic()
    is_whole = await running.until_whole(WHOLE_S) and await running.until_copied(len(crowd.users), copies, WHOLE_S)
    return Kill(victim, len(its), back_s, time.monotonic() - restarted_s, is_whole)


async def play(strategy: str, progress: Progress) -> tuple[list[User], list[Kill]]:
    """One demo, its users, and all the kills."""
    rng = Random(0)
    kills: list[Kill] = []
    async with demo(strategy=strategy, routing=ROUTING, servers=SERVERS) as running:
        async with at_work(running.port, USERS) as crowd:
            await crowd.until_answered(crowd.users, time.monotonic())
            while len(kills) < KILLS:
                kills.append(await strike(running, crowd, COPIES[strategy], rng))
                if len(kills) % TELL_EVERY == 0:
                    progress(f"{strategy}: {len(kills)} of {KILLS} kills; {failures(crowd.users)}")
        await crowd.look_at((await running.server_ports()).values())
    return crowd.users, kills


def judge(users: list[User], kills: list[Kill]) -> list[Figure]:
    """Nothing lost, and nothing failed that could be repeated."""
    gets, posts = all_asked(users, "GET"), all_asked(users, "POST")
    failed = [one for one in posts if not one.is_good]
    return [
        exactly("kills", len(kills), KILLS),
        *sessions_unharmed(users),
        exactly("repeatable requests (GET) that failed", sum(not one.is_good for one in gets)),
        exactly(
            "POST that failed, and not because its server ended", sum(not ended_with_server(one) for one in failed)
        ),
        exactly("kills after which copies stayed away", sum(not kill.is_whole for kill in kills)),
        Figure("requests answered", sum(one.is_good for one in [*gets, *posts])),
        Figure(
            "requests (POST) that ended with their server, for each kill",
            len(failed) / max(len(kills), 1),
            peer=TOMCAT,
            peer_value=TOMCAT_FAILED,
        ),
        Figure("of these, cut in the middle of the answer", sum(one.status == 0 for one in failed)),
        Figure("changes of a failed POST that showed late", sum(user.late for user in users)),
        longest("time to an answer, GET", (one.seconds for one in gets if one.is_good)),
        longest("time to an answer, POST", (one.seconds for one in posts if one.is_good)),
        longest("time until all users of a killed server were served again", (kill.back_s for kill in kills)),
        Figure("the same, median", statistics.median([kill.back_s for kill in kills] or [0.0]), "s"),
        longest("time from a restart until all copies were there", (kill.whole_s for kill in kills)),
    ]


def run(progress: Progress) -> Shown:
    """Start the demos, kill their servers, and judge what users were told."""
    figures: list[Figure] = []
    notes = [
        *NOTES,
        "the next server is killed when every session has all its copies again",
        "a POST that was under way at a server when it was killed may have been executed: nobody may send it again",
        "Tomcat's figures are those of another run: reference/baselines.md",
    ]
    for strategy in COPIES:
        users, kills = asyncio.run(play(strategy, progress))
        figures += named(strategy, judge(users, kills))
        notes += wrongs(strategy, users)
    return Shown("kill", figures, notes)
