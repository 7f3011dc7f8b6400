"""Users whose sessions end, and what their old cookies open after the end was answered.

An answer is wrong if its request was sent after the answer to the end had been received, and it shows the session's key or
content. A 503 does not show the session; it is counted separately, as is a connection that breaks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.browser import Browser
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.ending.group import Host

__all__ = ["VERSION", "Tally", "User", "ask", "began", "in_turn", "logged_out", "see_all", "try_all"]

AT_ONCE: Final = 16
WRONGS_TOLD: Final = 3
VERSION: Final = b"_v"

Cookies = dict[bytes, bytes]


@dataclass
class Tally:
    """The answers to old cookies."""

    asked: int = 0
    refused: int = 0
    """Answers of 503, which neither show nor deny the session."""
    failed: int = 0
    """Other statuses, and connections that broke."""
    opened: int = 0
    """Answers that showed the session."""
    ended: int = 0
    """Sessions whose end was answered."""
    users_opened: set[str] = field(default_factory=set)
    """Sessions that were shown at least once."""
    wrongs: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    idle_s: float = math.inf
    """The idle timeout of these sessions."""
    overdue: int = 0
    """Answers to requests so late that the session had run out of time anyway: they prove nothing."""

    def note(self, user: User, status: int, told: Any, about: str) -> None:
        """One answer to cookies of a session that has ended."""
        self.asked += 1
        self.statuses[status] += 1
        self.overdue += time.monotonic() - user.used_s > self.idle_s
        if status == 503:
            self.refused += 1
        elif status != 200 or not isinstance(told, dict):
            self.failed += 1
        elif user.is_shown_by(told):
            self.opened += 1
            self.users_opened.add(user.name)
            if len(self.wrongs) < WRONGS_TOLD:
                self.wrongs.append(f"{about}, {time.monotonic() - user.ended_s:.1f} s after its end: {told}")

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.asked += other.asked
        self.refused += other.refused
        self.failed += other.failed
        self.opened += other.opened
        self.ended += other.ended
        self.users_opened |= other.users_opened
        self.wrongs = (self.wrongs + other.wrongs)[:WRONGS_TOLD]
        self.statuses += other.statuses
        self.overdue += other.overdue


@dataclass
class User:
    """One user, whose session ends at some time."""

    name: str
    cookies: Cookies = field(default_factory=dict)
    """As the user's own browser has them."""
    old: Cookies = field(default_factory=dict)
    """As they were before the end, as a thief would have kept them."""
    key: str = ""
    used_s: float = math.inf
    """When the last request before the end that used the session was sent; `inf` if it does not matter."""
    ended_s: float = 0.0
    """When the answer to the end had been received; 0 while the session lives."""

    def keep(self) -> None:
        """Keep a copy of the cookies, as a thief would."""
        self.old = dict(self.cookies)

    def is_shown_by(self, told: dict[str, Any]) -> bool:
        """Whether an answer shows the session that had ended."""
        return bool(told["key"] == self.key or told["fields"].get("user") == self.name)


async def ask(
    host: Host, path: str, cookies: Cookies, browsers: dict[int, list[Browser]] | None = None
) -> tuple[int, Any]:
    """One request; the cookies are those of the browser, and change."""
    idle = [] if browsers is None else browsers.setdefault(host.port, [])
    browser = idle.pop() if idle else Browser(host.port)
    browser.cookies = cookies
    try:
        return await browser.ask("GET" if path.startswith(("/look", "/stream", "/long")) else "POST", path)
    finally:
        if browsers is None:
            browser.close()
        else:
            idle.append(browser)


async def began(hosts: Sequence[Host], names: Iterable[str], *, seen: Sequence[Host]) -> list[User]:
    """Users who logged in, at each server in turn, and then visited all of `seen`; a copy of their cookies is kept."""
    users = [User(name) for name in names]

    async def begin(place: int, user: User) -> None:
        home = hosts[place % len(hosts)]
        status, told = await ask(home, f"/login?user={user.name}", user.cookies)
        if status != 200:
            raise CannotShow(
                f"{home.name} refused a session before anything was done to it: {status}; {home.last_words()}"
            )
        user.key = told["key"]
        for host in seen:
            user.used_s = time.monotonic()
            status, told = await ask(host, "/look", user.cookies)
            if status != 200 or told["key"] != user.key:
                raise CannotShow(f"{host.name} did not show a living session: {status} {told}; {host.last_words()}")
        user.keep()

    await in_turn([begin(place, user) for place, user in enumerate(users)])
    return users


async def logged_out(users: Sequence[User], hosts: Sequence[Host], tally: Tally, path: str = "/logout") -> None:
    """End these sessions, each at one of the servers; a session whose end is not answered is not judged."""

    async def end(place: int, user: User) -> None:
        status, _ = await ask(hosts[place % len(hosts)], path, user.cookies)
        if status == 200:
            user.ended_s = time.monotonic()
            tally.ended += 1

    await in_turn([end(place, user) for place, user in enumerate(users)])


async def try_all(users: Sequence[User], hosts: Sequence[Host], tally: Tally, when: str) -> None:
    """Try the old cookies of users whose end was answered, at every server, with and without the version cookie."""

    async def one(user: User, host: Host, *, has_version: bool) -> None:
        cookies = {name: value for name, value in user.old.items() if has_version or not name.endswith(VERSION)}
        status, told = await ask(host, "/look", cookies)
        tally.note(user, status, told, f"{user.name} at {host.name}, {when}")

    for host in hosts:
        await in_turn(
            [one(user, host, has_version=bool(place % 4)) for place, user in enumerate(users) if user.ended_s]
        )


async def see_all(users: Sequence[User], hosts: Sequence[Host], tally: Tally) -> None:
    """Try the cookies of sessions that go on, at every server: an answer that does not show the session is wrong."""

    async def one(user: User, host: Host) -> None:
        status, told = await ask(host, "/look", dict(user.old))
        tally.asked += 1
        tally.statuses[status] += 1
        if status != 200 or not user.is_shown_by(told):
            tally.failed += 1

    for host in hosts:
        await in_turn([one(user, host) for user in users])


async def in_turn(things: Sequence[Any], at_once: int = AT_ONCE) -> None:
    """Do all of them, a few at a time."""
    room = asyncio.Semaphore(at_once)

    async def one(thing: Any) -> None:
        async with room:
            await thing

    await asyncio.gather(*map(one, things))
