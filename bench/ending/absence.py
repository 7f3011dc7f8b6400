"""What a server shows that was stopped, or too busy to read its connections, while users logged out at another server.

Requests with the old cookies are sent as soon as the logout was answered. They wait in the sockets of the stopped server, most of
them on connections that it had accepted before, and it reads them when it continues. More are sent right after that. Other users
keep their sessions meanwhile, and must be shown them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.browser import Browser
from bench.ending.group import group
from bench.ending.stores import Strategy, opened
from bench.ending.visits import VERSION, Tally, User, began, in_turn, logged_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench.ending.group import Group, Host

__all__ = ["ROUNDS", "STOPS_S", "Absence", "busy", "stopped"]

STOPS_S: Final = (0.3, 0.6, 1.0, 2.0, 4.0, 10.0)
ACCEPTED_S: Final = 0.1
"""A connection is accepted within this time."""
ROUNDS: Final = 2
"""How often old cookies are tried when the server continues, besides the requests that waited in its sockets."""
ACCEPTED: Final = 2
"""The number of connections of each user that the server has accepted before; one more is new."""
LOOKS: Final = 3
"""Requests of each user to a busy server, sent as soon as the logout was answered."""
BUSY_AT_ONCE: Final = 4


@dataclass
class Absence:
    """The answers of a server that was away."""

    old: Tally = field(default_factory=Tally)
    """Answers to cookies from before a logout."""
    living: Tally = field(default_factory=Tally)
    """Answers to cookies of sessions that go on; `opened` counts those that showed the session, as they should."""
    refused_ends: int = 0
    """Logouts that were not answered with 200: these sessions are not judged."""


@contextlib.asynccontextmanager
async def _servers(strategy: Strategy, kind: str) -> AsyncIterator[Group]:
    """Three servers in a cluster, or two on a store, with default settings."""
    with opened(strategy) as (url, _):
        async with group(url, 3 if strategy.is_cluster else 2, kind=kind, settings=strategy.settings) as servers:
            yield servers


async def stopped(
    strategy: Strategy, kind: str, *, users: int, stops_s: Sequence[float] = STOPS_S
) -> dict[float, Absence]:
    """Stop the last server (SIGSTOP) for each of these times."""
    found = {}
    async with _servers(strategy, kind) as servers:
        for stop_s in stops_s:
            found[stop_s] = await _stop_once(servers, stop_s, users)
            await servers.until_ready()
    return found


async def _stop_once(servers: Group, stop_s: float, count: int) -> Absence:
    found = Absence()
    *others, victim = servers.hosts
    leaving = await began(servers.hosts, [f"leaving-{number}" for number in range(count)], seen=[victim])
    staying = await began(servers.hosts, [f"staying-{number}" for number in range(count // 4)], seen=[victim])
    tabs = {user.name: [await _known(victim, user) for _ in range(ACCEPTED)] for user in leaving}
    await asyncio.sleep(ACCEPTED_S)
    began_s = time.monotonic()
    victim.pause()
    try:
        asking = [asyncio.create_task(_leave(user, others[place % len(others)], victim, found, [*tabs[user.name], None]))
                  for place, user in enumerate(leaving)]  # fmt: skip
        asking += [asyncio.create_task(_look(user, victim, found.living)) for user in staying]
        await asyncio.sleep(max(0.0, began_s + stop_s - time.monotonic()))
    finally:
        victim.resume()
    for _ in range(ROUNDS):
        await in_turn([_look(user, victim, found.old) for user in leaving if user.ended_s], at_once=2 * count)
    await asyncio.gather(*asking)
    await in_turn([_look(user, victim, found.old) for user in leaving], at_once=2 * count)
    await in_turn([_look(user, victim, found.living) for user in staying])
    return found


async def busy(strategy: Strategy, kind: str, *, users: int, threads: int) -> Absence:
    """Let this many threads of the last server compute, and ask it as soon as each logout was answered by another one."""
    found = Absence()
    async with _servers(strategy, kind) as servers:
        *others, victim = servers.hosts
        leaving = await began(servers.hosts, [f"leaving-{number}" for number in range(users)], seen=[victim])
        staying = await began(servers.hosts, [f"staying-{number}" for number in range(users // 4)], seen=[victim])
        await victim.ask(f"busy?threads={threads}")
        await in_turn(
            [
                _leave(user, others[place % len(others)], victim, found, [None] * LOOKS)
                for place, user in enumerate(leaving)
            ],
            at_once=BUSY_AT_ONCE,
        )
        await in_turn([_look(user, victim, found.living) for user in staying], at_once=BUSY_AT_ONCE)
        await victim.ask("busy?threads=0")
    return found


async def _known(host: Host, user: User) -> Browser:
    """A connection that the server has accepted and waits on for a request."""
    browser = Browser(host.port, dict(user.old))
    await browser.connect()
    return browser


async def _leave(user: User, where: Host, victim: Host, found: Absence, tabs: Sequence[Browser | None]) -> None:
    """Log out, and then send the old cookies to the other server at once."""
    await logged_out([user], [where], found.old)
    if not user.ended_s:
        found.refused_ends += 1
        return
    looks = [_look(user, victim, found.old, tab) for tab in tabs]
    await asyncio.gather(*looks)


async def _look(user: User, host: Host, tally: Tally, tab: Browser | None = None) -> None:
    """Send one request with old cookies; half of these requests lack the version cookie, which no server may need."""
    if tally.asked % 2 and tab is None:
        cookies = {name: value for name, value in user.old.items() if not name.endswith(VERSION)}
    else:
        cookies = dict(user.old)
    browser = tab or Browser(host.port, cookies)
    is_after = user.ended_s > 0
    status, told = await browser.ask("GET", "/look")
    browser.close()
    if is_after or not user.name.startswith("leaving"):
        tally.note(user, status, told, f"{user.name} at {host.name}")
