"""`recipes`: nginx and HAProxy as the documentation configures them; servers are restarted and killed under load.

The README's app on three servers. First nothing happens, and every user stays where they are. Then a rolling restart: SIGTERM,
and the next server as soon as the one before is ready again. Then `kill -9`, one server after the other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.recipes import AFFINITY, BALANCERS, at_work, site
from bench.show import Figure, Progress, Shown
from bench.unharmed import exactly, longest, named

if TYPE_CHECKING:
    from bench.recipes import Asked, Shopper

SUMMARY = (
    "nginx and HAProxy as pasted from the docs: restarts and kill -9 lose nothing, fail no GET, execute no POST twice."
)
PROGRAMS = ("haproxy", "nginx")

USERS: Final = 60
CALM_S: Final = 2.0
RESTARTS: Final = 2
"""How often each server is restarted."""
KILLS: Final = 3
"""How often each server is killed."""
APART_S: Final = 3.0
"""From the start of a killed server to the next kill: the others notice, and make the copies that are missing."""
WRONGS_TOLD: Final = 20
NOTES: Final = [
    "the files are those of docs/recipes; addresses, port and nginx's folders are replaced, nothing else",
    "the README's app, three servers of `uvicorn` as in docs/RECIPES.md, primary-backup with two copies",
    "each POST puts an item of its own into the cart and counts a visit; clients never send anything twice",
    "a POST that was under way at a server when it was killed may have been executed: nobody may send it again",
    "nginx has no health checks: a POST that reaches a server while it closes its port is answered 502, and not executed",
]


@dataclass(slots=True)
class Play:
    """What one balancer's users saw, and what was done to the servers meanwhile."""

    users: list[Shopper] = field(default_factory=list)
    moved_for_nothing: int = 0
    """Users who were given another server while nothing happened."""
    restarts: int = 0
    out_of_order: int = 0
    """Servers that did not end by themselves."""
    kills: int = 0
    restarted: list[Asked] = field(default_factory=list)
    """All requests of the rolling restart."""
    killed: list[Asked] = field(default_factory=list)
    """All requests since."""
    said: list[str] = field(default_factory=list)
    """The servers' logs."""


async def play(balancer: str, progress: Progress) -> Play:
    """One balancer, its servers and users, and all that happens."""
    done = Play()
    async with site(balancer) as running, at_work(running.port, USERS) as users:
        done.users = users
        cookie = AFFINITY[balancer]
        homes = [user.browser.cookies.get(cookie) for user in users]
        await asyncio.sleep(CALM_S)
        now = [user.browser.cookies.get(cookie) for user in users]
        done.moved_for_nothing = sum(home is None or home != at for home, at in zip(homes, now, strict=True))
        for _ in range(RESTARTS):
            for number, server in enumerate(running.servers, 1):
                done.out_of_order += not await server.restart()
                done.restarts += 1
                progress(f"{balancer}: web{number} restarted; {failures(all_asked(users))}")
        restarted = [len(user.asked) for user in users]
        for _ in range(KILLS):
            for number, server in enumerate(running.servers, 1):
                await server.kill()
                await server.start()
                done.kills += 1
                progress(f"{balancer}: web{number} killed and back; {failures(all_asked(users))}")
                await asyncio.sleep(APART_S)
        done.said = [line for server in running.servers for line in server.said]
    for user, count in zip(users, restarted, strict=True):
        done.restarted += user.asked[:count]
        done.killed += user.asked[count:]
    return done


def all_asked(users: list[Shopper]) -> list[Asked]:
    """All requests, whoever sent them."""
    return [asked for user in users for asked in user.asked]


def failed(asked: list[Asked], method: str) -> list[Asked]:
    """Those that failed, of one method."""
    return [one for one in asked if one.method == method and not one.is_good]


def failures(asked: list[Asked]) -> str:
    """What failed so far, in words."""
    return f"{len(failed(asked, 'GET'))} GET and {len(failed(asked, 'POST'))} POST failed of {len(asked)}"


def judge(done: Play) -> list[Figure]:
    """Nothing lost, no GET failed, no POST executed twice, and none left without an answer, which browsers would send again."""
    users, both = done.users, [*done.restarted, *done.killed]
    gets, posts = failed(done.killed, "GET"), failed(done.killed, "POST")
    return [
        exactly("users who were moved while nothing happened", done.moved_for_nothing),
        exactly("servers restarted", done.restarts, RESTARTS * 3),
        exactly("servers that did not end by themselves on SIGTERM", done.out_of_order),
        exactly("servers killed", done.kills, KILLS * 3),
        exactly("sessions lost", sum(user.sessions_lost for user in users)),
        exactly("acknowledged changes lost", sum(user.changes_lost for user in users)),
        exactly("POST executed twice", sum(user.executed_twice for user in users)),
        exactly("POST left without an answer", sum(not one.was_answered for one in failed(both, "POST"))),
        exactly("GET failed, restarts", len(failed(done.restarted, "GET"))),
        exactly("GET failed, kill -9", sum(not is_cut(one) for one in gets)),
        Figure("GET cut between the head of its answer and the body, kill -9", sum(map(is_cut, gets))),
        Figure("POST failed, restarts", len(failed(done.restarted, "POST"))),
        Figure("POST failed, for each kill", len(posts) / max(done.kills, 1)),
        Figure("requests answered", sum(one.is_good for one in both)),
        longest("time to an answer, GET", (one.seconds for one in both if one.method == "GET")),
        longest("time to an answer, POST", (one.seconds for one in both if one.method == "POST")),
    ]


def is_cut(asked: Asked) -> bool:
    """Whether its server was killed within its answer, of which the balancer had passed on the head: too late for another one."""
    return asked.status == 0 and asked.was_answered


def run(progress: Progress) -> Shown:
    """Start each balancer with its recipe, harm the servers behind it, and judge what users were told."""
    figures: list[Figure] = []
    notes = list(NOTES)
    for balancer in BALANCERS:
        done = asyncio.run(play(balancer, progress))
        figures += named(balancer, judge(done))
        told = [wrong for user in done.users for wrong in user.wrongs]
        told += [
            f"a {one.method} failed with status {one.status} after {one.seconds:.2f} s"
            for one in [*failed(done.restarted, "POST"), *failed([*done.restarted, *done.killed], "GET")]
        ]
        told += [f"a server said: {line}" for line in done.said if "Error" in line or "Traceback" in line]
        notes += [f"{balancer}: {one}" for one in told[:WRONGS_TOLD]]
    return Shown("recipes", figures, notes)
