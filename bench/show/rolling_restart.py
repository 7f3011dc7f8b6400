"""`rolling-restart`: all servers are restarted under load, one after the other, and then again; nobody notices.

As an operator would do it: SIGTERM, and the next server as soon as the one before is ready again. A server that is told to
stop drains: the balancer sends it nothing new, what is under way ends, and what only it holds is handed over. Every
request counts here, POSTs too: there is no excuse for one that fails, or that is executed twice.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.crowd import at_work
from bench.running import demo
from bench.show import Figure, Progress, Shown
from bench.unharmed import (
    COPIES,
    NOTES,
    ROUTING,
    all_asked,
    exactly,
    failures,
    longest,
    named,
    sessions_unharmed,
    wrongs,
)

if TYPE_CHECKING:
    from bench.crowd import User

SUMMARY = (
    "All servers restarted twice under load with each strategy: nothing lost, nothing failed, nothing executed twice."
)

USERS: Final = 200
SERVERS: Final = 3
ROUNDS: Final = 2


class Restart(NamedTuple):
    """One server, told to stop and started again."""

    name: str
    seconds: float
    """Until the new process was ready."""
    was_new: bool
    """Whether another process answers under its name."""


async def play(strategy: str, progress: Progress) -> tuple[list[User], list[Restart]]:
    """One demo, its users, and all the restarts."""
    restarts: list[Restart] = []
    async with demo(strategy=strategy, routing=ROUTING, servers=SERVERS) as running:
        async with at_work(running.port, USERS) as crowd:
            await crowd.until_answered(crowd.users, time.monotonic())
            for _ in range(ROUNDS):
                for server in (await running.status())["servers"]:
                    began_s = time.monotonic()
                    after = await running.act(server["name"], "restart")
                    seconds = time.monotonic() - began_s
                    restarts.append(Restart(server["name"], seconds, after["pid"] != server["pid"]))
                    progress(f"{strategy}: {server['name']} restarted in {seconds:.1f} s; {failures(crowd.users)}")
            await crowd.until_answered(crowd.users, time.monotonic())
        await crowd.look_at((await running.server_ports()).values())
    return crowd.users, restarts


def judge(users: list[User], restarts: list[Restart]) -> list[Figure]:
    """Nothing lost, nothing failed, nothing executed twice."""
    gets, posts = all_asked(users, "GET"), all_asked(users, "POST")
    return [
        exactly("restarts", sum(restart.was_new for restart in restarts), ROUNDS * SERVERS),
        exactly("requests (GET) that failed", sum(not one.is_good for one in gets)),
        exactly("requests (POST) that failed", sum(not one.is_good for one in posts)),
        *sessions_unharmed(users),
        Figure("requests (GET) answered", sum(one.is_good for one in gets)),
        Figure("requests (POST) answered", sum(one.is_good for one in posts)),
        longest("time to an answer, GET", (one.seconds for one in gets)),
        longest("time to an answer, POST", (one.seconds for one in posts)),
        longest("restart", (restart.seconds for restart in restarts)),
    ]


def run(progress: Progress) -> Shown:
    """Start the demos, restart their servers, and judge what users were told."""
    figures: list[Figure] = []
    notes = [
        *NOTES,
        "each POST counts or assigns a value of its own: a change that is lost or executed twice shows in the next answer",
        "restarted by the control API: SIGTERM, drain, hand-over, a new process; then the next server, without a pause",
    ]
    for strategy in COPIES:
        users, restarts = asyncio.run(play(strategy, progress))
        figures += named(strategy, judge(users, restarts))
        notes += wrongs(strategy, users)
    return Shown("rolling-restart", figures, notes)
