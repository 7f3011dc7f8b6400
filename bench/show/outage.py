"""`outage`: the whole store goes away under load, and comes back empty half a minute later; nobody notices.

All Redis processes of a demo are killed, Sentinels too. Users go on at the servers that hold their copies. Some log out
meanwhile, though a copy of their session is held by a second server as well, which cannot be told. When the store is back
it holds nothing; then servers bring it what they hold, and the store's own client reads whether it is all there.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from bench.browser import HOST, Browser
from bench.crowd import Crowd, User
from bench.running import demo
from bench.show import CannotShow, Figure, Progress, Shown
from bench.stored import ANSWER_S_MAX, SETTLE_S, at_home, in_store, judge_served, judge_store, within
from bench.unharmed import exactly, wrongs
from sessile.lab.redis_keeper import MASTER

if TYPE_CHECKING:
    from bench.running import Running

SUMMARY = (
    "The store is gone for 30 s and comes back empty: users with a copy notice nothing, and the store gets all back."
)
PROGRAMS = ("redis-server",)

USERS: Final = 150
SERVERS: Final = 3
LEAVERS: Final = 20
"""Half of them log out before, half of them during the outage."""
NEWCOMERS: Final = 20
BEFORE_S: Final = 3.0
AWAY_S: Final = 30.0
AFTER_S: Final = 10.0
SENTINELS_FIRST: Final = ("q1", "q2", "q3", "r1", "r2", "r3")


@dataclass
class Leaver:
    """Somebody with a session that ends, seen at two servers."""

    key: str
    cookies: dict[bytes, bytes]
    """As they were before."""
    home: int
    is_answered: bool = False
    took_s: float = 0.0


@dataclass
class Found:
    """What came of it."""

    users: list[User] = field(default_factory=list)
    leavers: list[Leaver] = field(default_factory=list)
    away_s: float = 0.0
    asked_meanwhile: int = 0
    slowest_meanwhile_s: float = 0.0
    is_settled: bool = False
    held: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    shown_again: int = 0
    """Servers that showed a session which had ended."""
    newcomers: list[User] = field(default_factory=list)
    """Whose sessions began while the store was away."""


async def begin_leavers(ports: list[int]) -> list[Leaver]:
    """Sessions of which two servers hold a copy."""
    leavers = []
    for number in range(LEAVERS):
        home, other = ports[number % len(ports)], ports[(number + 1) % len(ports)]
        browser = Browser(home)
        status, told = await browser.ask("POST", "/api/login?user=leaver")
        browser.close()
        elsewhere = Browser(other, dict(browser.cookies))
        seen, _ = await elsewhere.ask("GET", "/api/session")
        elsewhere.close()
        if (status, seen) != (200, 200):
            raise CannotShow("a server refused a session before anything was done to the store")
        leavers.append(Leaver(told["key"], dict(browser.cookies), home))
    return leavers


async def log_out(leavers: list[Leaver]) -> None:
    """One after the other."""
    for leaver in leavers:
        browser = Browser(leaver.home, dict(leaver.cookies))
        began_s = time.monotonic()
        status, _ = await browser.ask("POST", "/api/logout")
        leaver.took_s = time.monotonic() - began_s
        leaver.is_answered = status == 200
        browser.close()


async def take_away(running: Running) -> None:
    """Every process of the store is killed."""
    for name in SENTINELS_FIRST:
        await running.act(name, "kill")


async def bring_back(running: Running) -> None:
    """Start them all again: with nothing."""
    for name in reversed(SENTINELS_FIRST):
        await running.act(name, "restart")


async def is_settled(running: Running) -> bool:
    """Whether every server has its store, and nothing that waits for it."""
    stores = [server["cluster"] for server in (await running.status())["servers"]]
    return all(it.get("state") == "ready" and not it["queued"] + it["pushes"] for it in stores)


async def reopened(leavers: list[Leaver], ports: list[int]) -> int:
    """How many servers show a session that has ended to whoever kept its cookies."""
    count = 0
    for leaver in leavers:
        for port in ports:
            browser = Browser(port, dict(leaver.cookies))
            status, told = await browser.ask("GET", "/api/session")
            browser.close()
            count += status != 200 or told["key"] == leaver.key or bool(told["fields"])
    return count


def store_url(status: dict[str, Any]) -> str:
    """Where the demo's store is."""
    hosts = ",".join(f"{HOST}:{each['port']}" for each in status["store"] if each["name"].startswith("q"))
    if not hosts:
        raise CannotShow("the demo found no redis-server; try: sh scripts/apt.sh redis-server")
    return f"redis+sentinel://{hosts}/{MASTER}/0"


async def play(progress: Progress) -> Found:
    """One demo, its users, and the outage."""
    found = Found()
    async with demo(strategy="store", routing="sticky", servers=SERVERS) as running:
        ports = list((await running.server_ports()).values())
        url = store_url(await running.status())
        async with at_home(ports, USERS) as crowd:
            found.users = crowd.users
            found.leavers = await begin_leavers(ports)
            await asyncio.sleep(BEFORE_S)
            half = LEAVERS // 2
            await log_out(found.leavers[:half])
            progress("every process of the store is killed")
            away_s = time.monotonic()
            await take_away(running)
            gone_s = time.monotonic()
            await log_out(found.leavers[half:])
            found.newcomers = [User(Browser(ports[n % len(ports)]), Random(n)) for n in range(NEWCOMERS)]
            await asyncio.gather(*(newcomer.count() for newcomer in found.newcomers))
            await asyncio.sleep(AWAY_S - (time.monotonic() - gone_s))
            found.away_s = time.monotonic() - gone_s
            progress(f"all are started again, empty; {failures(crowd.users)}")
            await bring_back(running)
            back_s = time.monotonic()
            meanwhile = [one for user in crowd.users for one in user.asked if away_s <= one.began_s <= back_s]
            found.asked_meanwhile = len(meanwhile)
            found.slowest_meanwhile_s = max((one.seconds for one in meanwhile), default=0.0)
            await asyncio.sleep(AFTER_S)
        found.is_settled = await within(SETTLE_S, lambda: is_settled(running))
        progress("everything is read: from the store by its own client, and at every server")
        begun = [newcomer.key for newcomer in found.newcomers if newcomer.key]
        keys = [*(user.key for user in crowd.users), *begun, *(leaver.key for leaver in found.leavers)]
        found.held = await in_store(url, keys)
        await crowd.look_at(ports)
        await Crowd(found.newcomers).look_at(ports)
        found.shown_again = await reopened(found.leavers, ports)
    return found


def failures(users: list[User]) -> str:
    """How it goes, in words."""
    return f"{sum(not one.is_good for user in users for one in user.asked)} requests failed so far"


def judge(found: Found) -> list[Figure]:
    """Whoever had a copy noticed nothing; the store has everything, and nothing that had ended."""
    leavers = found.leavers
    slowest = max([found.slowest_meanwhile_s, *(leaver.took_s for leaver in leavers)])
    return [
        Figure("store away", found.away_s, "s", f">= {AWAY_S:g}", found.away_s >= AWAY_S),
        Figure("requests while it was away", found.asked_meanwhile, "", "> 0", found.asked_meanwhile > 0),
        Figure("slowest of them, logouts too", slowest, "s", f"<= {ANSWER_S_MAX:g}", slowest <= ANSWER_S_MAX),
        *judge_served([*found.users, *found.newcomers]),
        exactly("sessions begun while it was away", sum(bool(it.key) for it in found.newcomers), NEWCOMERS),
        exactly("logouts answered", sum(leaver.is_answered for leaver in leavers), LEAVERS),
        exactly("servers with something left for the store", int(not found.is_settled)),
        judge_store([*found.users, *found.newcomers], found.held),
        exactly("ended sessions that the store holds alive", sum(found.held[it.key] is not None for it in leavers)),
        exactly("servers that showed an ended session", found.shown_again),
    ]


def run(progress: Progress) -> Shown:
    """Start the demo, take its store away, bring it back, and judge what users were told and what the store holds."""
    found = asyncio.run(play(progress))
    notes = [
        f"`sessile demo --strategy store --servers {SERVERS}`: a Redis with two replicas and three sentinels, no persistence",
        "all six processes are killed by the control API, and started again 30 s later; nothing is on disk",
        "each user stays with one server, which holds a copy; every answer is compared with a model",
        f"{LEAVERS} sessions, each held by two servers, are logged out at one: half before, half during the outage",
        f"{NEWCOMERS} sessions begin while the store is away",
        *wrongs("store", [*found.users, *found.newcomers]),
    ]
    return Shown("outage", judge(found), notes)
