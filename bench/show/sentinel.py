"""`sentinel`: the primary of a Redis is killed, paused, cut off, or comes back empty before anybody noticed; nobody does.

Cut off, it is at its most dangerous: clients still reach it, it takes what they write, and nobody else will ever see that.
Three servers with `ack=one` and three with `ack=none` work on one store, and beside them writers with nothing but redis-py.
Once it is cut off a fourth server of either dies as well, before anybody has noticed: what it was told then, and what no
replica had, nobody has.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.browser import HOST, Browser
from bench.redis_group import NAME, Watched, watched
from bench.show import Figure, Progress, Shown
from bench.stored import NOTES, PLAIN_TIMEOUT_S, Adder, Plain, at_home, in_store, judge_served, judge_store, servers_on
from bench.unharmed import all_asked, exactly, named, wrongs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.crowd import User
    from bench.stored import Servers

SUMMARY = (
    "A Redis primary is killed, paused, cut off or emptied: nothing acknowledged is lost, no repeatable request fails."
)
PROGRAMS = ("redis-server",)

EMPTIED: Final = "started anew at once, empty"
"""Then it is the primary still, mostly, and its replicas copy its emptiness."""
HARMS: Final = ("killed", "paused", "cut off", "cut off, and a server dies", EMPTIED)
USERS: Final = 60
"""Of either three servers."""
SERVERS: Final = 3
ADDERS: Final = 20
"""Users of the server that dies, of either side."""
BEFORE_S: Final = 3.0
DIES_AFTER_S: Final = 0.3
"""Sooner than a server gives up waiting for a replica, and than Sentinels agree that the primary is gone."""
HARM_S: Final = 10.0
AFTER_S: Final = 15.0
"""An old primary that is back learns after eight seconds that it is none any more."""


@dataclass
class Side:
    """What came of the servers with one `ack`."""

    users: list[User] = field(default_factory=list)
    held: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """What the store held in the end."""
    adders: list[Adder] = field(default_factory=list)
    """Users of the server that died."""
    is_settled: bool = False
    figures: list[dict[str, Any]] = field(default_factory=list)
    """What its servers tell of themselves."""

    def counted(self, part: str, name: str) -> int:
        """A count of all its servers."""
        if part == "store":
            return sum(told.get("cluster", {}).get("counts", {}).get(name, 0) for told in self.figures)
        return sum(told.get("stats", {}).get(name, 0) for told in self.figures)


@dataclass
class Found:
    """What came of one harm."""

    one: Side = field(default_factory=Side)
    none: Side = field(default_factory=Side)
    has_moved: bool = False
    """Another one was the primary in the end."""
    plain_acknowledged: int = 0
    plain_lost: int = 0
    plain_refused: int = 0


async def harm(group: Watched, what: str, doomed: Sequence[Servers] = ()) -> bool:
    """Do it to the primary, and undo it after a while; whether another one took over. Of these, a server dies with it."""
    primary = await group.primary()
    until_s = time.monotonic() + HARM_S
    if what in {"killed", EMPTIED}:
        await primary.kill()
    elif what == "paused":
        primary.pause()
    else:
        assert primary.door is not None, "every one with data has a door"
        primary.door.cut()
    try:
        if doomed:
            await asyncio.sleep(DIES_AFTER_S)
            await asyncio.gather(*(servers.kill_last() for servers in doomed))
        if what == EMPTIED:
            await primary.run()
        else:
            await group.until_another(primary)
        await asyncio.sleep(max(until_s - time.monotonic(), 0))
    finally:
        if what == "paused":
            primary.resume()
        elif primary.door is not None:
            primary.door.heal()
    has_moved = await group.primary() is not primary
    if what == "killed":
        await primary.run()
    return has_moved


def plain_writers(group: Watched) -> Plain:
    """Writers with redis-py alone, by way of the same Sentinels."""
    from redis.asyncio.sentinel import Sentinel

    hosts = [(HOST, node.port) for node in group.sentinels]
    timeouts: dict[str, Any] = {"socket_timeout": PLAIN_TIMEOUT_S, "socket_connect_timeout": PLAIN_TIMEOUT_S}
    make: Any = Sentinel  # without types
    sentinel = make(hosts, sentinel_kwargs=timeouts, **timeouts)
    return Plain(sentinel.master_for(NAME, **timeouts), sentinel.sentinels)


async def play(what: str, progress: Progress) -> Found:
    """One harm to a store of its own."""
    found, count = Found(), SERVERS + what.endswith("dies")
    async with (
        watched() as group,
        servers_on(f"{group.url}?ack=one&cluster=one", count) as one,
        servers_on(f"{group.url}?ack=none&cluster=none", count) as none,
    ):
        plain = plain_writers(group)
        async with at_home(one.ports[:SERVERS], USERS) as crowd, at_home(none.ports[:SERVERS], USERS) as other:
            plain.begin()
            doomed = (one, none) if count > SERVERS else ()
            for side, servers in zip((found.one, found.none), doomed, strict=False):
                side.adders = [Adder(Browser(servers.ports[-1])) for _ in range(ADDERS)]
            adders = [*found.one.adders, *found.none.adders]
            adding = [asyncio.create_task(adder.work()) for adder in adders]
            await asyncio.sleep(BEFORE_S)
            progress(f"the primary is {what}")
            found.has_moved = await harm(group, what, doomed)
            await asyncio.gather(*adding)
            progress("that is over")
            await asyncio.sleep(AFTER_S)
        found.plain_acknowledged, found.plain_refused = len(plain.acknowledged), plain.refused
        found.plain_lost = await plain.end()
        for side, servers, those in ((found.one, one, crowd), (found.none, none, other)):
            side.users = those.users
            await finish(side, servers)
            await those.look_at(servers.ports)
            await asyncio.gather(*(adder.look(servers.ports[0]) for adder in side.adders))
    return found


async def finish(side: Side, servers: Servers) -> None:
    """What the store holds once nothing waits for it, and what servers say."""
    side.is_settled = await servers.until_settled()
    side.figures = await servers.figures()
    side.held = await in_store(servers.url, [user.key for user in side.users])


def judge(found: Found, *, must_move: bool = True, must_plain_lose: bool) -> list[Figure]:
    """With `ack=one` nothing is lost; what without, and with redis-py alone, is shown."""
    one, none = found.one, found.none
    moved = int(found.has_moved)
    return [
        exactly("failovers", moved, 1) if must_move else Figure("failovers", moved),
        *named("ack=one", judge_served(one.users)),
        *named("ack=one", [judge_store(one.users, one.held), exactly("servers not settled", int(not one.is_settled))]),
        *judge_adders("ack=one", one.adders, may_lose=False),
        Figure("ack=one: changes answered that no replica had confirmed", one.counted("stats", "degraded")),
        Figure("ack=one: times a server found its store away", one.counted("store", "outages")),
        Figure("ack=none: requests answered", sum(it.is_good for user in none.users for it in user.asked)),
        Figure("ack=none: repeatable requests (GET) that failed", _failed(none.users, "GET")),
        Figure("ack=none: POST that failed", _failed(none.users, "POST")),
        Figure("ack=none: acknowledged changes lost", sum(user.changes_lost for user in none.users)),
        Figure("ack=none: sessions that the store lacks, or holds otherwise", judge_store(none.users, none.held).value),
        *judge_adders("ack=none", none.adders, may_lose=True),
        Figure("redis-py: writes acknowledged", found.plain_acknowledged),
        Figure("redis-py: writes that failed", found.plain_refused),
        Figure(
            "redis-py: acknowledged writes lost",
            found.plain_lost,
            "",
            "> 0" if must_plain_lose else "",
            found.plain_lost > 0 if must_plain_lose else None,
        ),
    ]


def judge_adders(name: str, adders: list[Adder], *, may_lose: bool) -> list[Figure]:
    """What is left of the sessions of which only the server that died had a copy."""
    if not adders:
        return []
    acknowledged, lost = sum(adder.acknowledged for adder in adders), sum(adder.lost for adder in adders)
    what = f"{name}: acknowledged changes lost, of the server that died"
    return [
        Figure(f"{name}: changes acknowledged by the server that died", acknowledged, "", "> 0", acknowledged > 0),
        Figure(what, lost) if may_lose else exactly(what, lost),
        exactly(f"{name}: sessions of it with changes nobody asked for", sum(adder.has_more for adder in adders)),
    ]


def _failed(users: list[User], method: str) -> int:
    return sum(not one.is_good for one in all_asked(users, method))


def run(progress: Progress) -> Shown:
    """Do every harm, each to processes of its own, and judge what users were told and what the store holds."""
    figures: list[Figure] = []
    notes = [
        "a Redis with two replicas and three Sentinels (down after 1 s), each with a relay before it; no persistence",
        f"servers are started as the demo starts them, without a balancer; each harm lasts {HARM_S:g} s",
        "cut off: the relay holds back what replicas and Sentinels send the primary, and it them; clients pass",
        f"a server that dies: {ADDERS} users of its own add as fast as it answers; it is killed {DIES_AFTER_S:g} s after the cut",
        "redis-py: four writers, a SET of a new key each time, by the same Sentinels, never sent twice",
        "redis-py must lose writes to a primary that is cut off, or it was not cut off",
        *NOTES,
    ]
    for what in HARMS:
        found = asyncio.run(play(what, progress))
        figures += named(what, judge(found, must_move=what != EMPTIED, must_plain_lose=what.startswith("cut off")))
        notes += wrongs(what, found.one.users)
    return Shown("sentinel", figures, notes)
