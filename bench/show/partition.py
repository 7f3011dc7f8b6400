"""`partition`: servers that cannot reach each other any more, while browsers still reach all of them.

Server processes in network namespaces of their own are cut apart in four shapes by dropping every packet: nobody gets a reset.
Each session has a tab at a server of either side; both go on reading and writing, some sessions are logged out on one side,
new ones begin on both. What every answer must be follows from the documented rule and from who held what at the moment of the
cut: sessions that this side holds go on; of all others it is said that nobody can tell (503), with no cookie touched, and never
that they do not exist. Then the cut heals, and everything must be everywhere.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.browser import Browser
from bench.members import STRATEGIES, cluster
from bench.namespaces import namespaces
from bench.show import Figure, Progress, Shown

if TYPE_CHECKING:
    from bench.members import Cluster

SUMMARY = "Cut apart, each side serves what it holds and denies nothing; healed, all are equal within 5 s and what ended stays so."

USERS: Final = 40
READERS: Final = 4
"""One in so many is only read."""
LOGOUTS: Final = 8
NEW_PER_SERVER: Final = 4
PAUSE_S: Final = 0.25
CUT_S: Final = 4.0
ON_S: Final = 2.0
"""So long both sides go on writing after the cut has healed."""
EQUAL_S_MAX: Final = 5.0
PATIENCE_S: Final = 20.0
NORMAL_S: Final = 0.1
"""An answer that takes longer is not as always."""
PROGRAMS = ("ip",)


@dataclass(frozen=True)
class Shape:
    """Who reaches whom no more."""

    name: str
    servers: int
    ways: tuple[tuple[int, int], ...]
    """Nothing goes from the first of each pair to the second."""

    def reached(self, server: int) -> set[int]:
        """Whom this server can still speak with, itself included: that needs both directions."""
        return {
            other
            for other in range(self.servers)
            if (server, other) not in self.ways and (other, server) not in self.ways
        }

    @property
    def sides(self) -> tuple[int, int]:
        """The servers at which each session has a tab: the first, and one that it does not reach."""
        return 0, min(set(range(self.servers)) - self.reached(0))


def _both(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(pair for pair in itertools.permutations((*one, *other), 2) if (pair[0] in one) != (pair[1] in one))


SHAPES: Final = (
    Shape("1 | 2", 3, _both((0,), (1, 2))),
    Shape("2 | 2", 4, _both((0, 1), (2, 3))),
    Shape("1 - 2 - 3, ends apart", 3, _both((0,), (2,))),
    Shape("1 hears nobody", 3, ((1, 0), (2, 0))),
)


@dataclass
class Tab:
    """One tab of a session: its server, its cookies, and what it was answered."""

    name: str
    server: int
    browser: Browser
    is_reader: bool = False
    """It changes nothing, so its server has no copy unless it is to hold one."""
    sent: int = 0
    """What it last wrote, and was told is written."""
    added: int = 0
    """How many of its increments were answered."""


@dataclass
class User:
    """One session, a tab on either side."""

    key: str
    tabs: tuple[Tab, Tab]
    is_ended: bool = False
    """Logged out at the first of its tabs."""


@dataclass
class Found:
    """What came of one shape."""

    answers: int = 0
    refused: int = 0
    """503 where the rule says so."""
    against_rule: Counter[str] = field(default_factory=Counter)
    """Answers that the rule does not allow, by what they were."""
    wrong: int = 0
    """Answers without what the same tab wrote before."""
    touched: int = 0
    """Cookies that changed with a 503."""
    worst_s: float = 0.0
    cut_normal_s: float = 0.0
    """Seconds after the cut until no answer took long any more."""
    heal_normal_s: float = 0.0
    """Seconds after healing until every session was served everywhere as always."""
    equal_s: float = PATIENCE_S
    lost: int = 0
    """Sessions of which a server did not show everything that was answered on both sides."""
    came_back: int = 0
    """Servers at which a session was shown that had been logged out."""
    unknown_after: int = 0
    """Sessions begun during the cut that a server did not know after it."""


class Play:
    """One shape, played."""

    def __init__(self, shape: Shape, group: Cluster) -> None:
        self.shape = shape
        self.group = group
        self.found = Found()
        self.users: list[User] = []
        self.new: list[tuple[int, str, dict[bytes, bytes]]] = []
        """Sessions begun during the cut: where, which, and with which cookies."""
        self._held: list[set[str]] = []
        self._cut_at = self._healed_at = 0.0
        self._is_over = False

    async def begin(self) -> None:
        """Sessions, made at all servers in turn."""
        one, other = self.shape.sides
        for number in range(USERS):
            browser = Browser(self._port(number % self.shape.servers))
            _, told = await browser.ask("POST", f"/api/set?name=begun&value={number}")
            browser.close()
            jar = browser.cookies
            tabs = [
                Tab(name, server, Browser(self._port(server), dict(jar)), is_reader=number % READERS == 0)
                for name, server in (("a", one), ("b", other))
            ]
            self.users.append(User(told["key"], (tabs[0], tabs[1])))

    def _port(self, server: int) -> int:
        return self.group.members[server].port

    async def contents(self) -> list[dict[str, Any]]:
        return [await member.ask("/bench/contents") for member in self.group.members]

    async def cut(self, cut: Any) -> None:
        """Both sides go on while they are cut apart."""
        tasks = [asyncio.create_task(self._go_on(user, tab)) for user in self.users for tab in user.tabs]
        await asyncio.sleep(4 * PAUSE_S)
        self._held = [
            {key for key, (_, _, is_holder) in contents.items() if is_holder} for contents in await self.contents()
        ]
        cut()
        self._cut_at = time.monotonic()
        await asyncio.sleep(CUT_S / 2)
        await self._log_out()
        await self._begin_new()
        await asyncio.sleep(max(self._cut_at + CUT_S - time.monotonic(), 0))
        self._tasks = tasks

    async def heal(self, heal: Any) -> None:
        """Nothing is cut any more: wait until all are equal, and look at everything everywhere."""
        heal()
        self._healed_at = time.monotonic()
        await asyncio.sleep(ON_S)
        self._is_over = True
        await asyncio.gather(*self._tasks)
        while time.monotonic() < self._healed_at + PATIENCE_S:
            asked = time.monotonic()
            if are_equal(await self.contents(), self._copies()):
                self.found.equal_s = asked - self._healed_at
                break
            await asyncio.sleep(0.1)
        await self._look_everywhere()

    def _copies(self) -> int:
        return self.shape.servers if self.group.strategy == "all-to-all" else 2

    async def close(self) -> None:
        """Everybody goes home."""
        for user in self.users:
            for tab in user.tabs:
                tab.browser.close()
        await asyncio.sleep(0.01)

    # -- a tab -------------------------------------------------------------------------------------------------------

    async def _go_on(self, user: User, tab: Tab) -> None:
        """Read, write and add, one after the other, until it is over."""
        await asyncio.sleep(PAUSE_S * (hash(user.key + tab.name) % 100) / 100)
        for number in itertools.count():
            if self._is_over or (user.is_ended and tab is user.tabs[0]):
                return
            kind = "read" if tab.is_reader else ("read", "set", "increment")[number % 3]
            path = {"read": "/api/session", "set": f"/api/set?name={tab.name}&value={number}"}.get(kind)
            began = time.monotonic()
            before = dict(tab.browser.cookies)
            status, told = await tab.browser.ask("GET" if kind == "read" else "POST", path or "/api/increment?name=n")
            self._judge(user, tab, began, (status, told), before)
            if status == 200 and told["key"] == user.key:
                tab.sent = number if kind == "set" else tab.sent
                tab.added += kind == "increment"
            await asyncio.sleep(PAUSE_S)

    def _judge(self, user: User, tab: Tab, began: float, answer: tuple[int, Any], before: dict[bytes, bytes]) -> None:
        """Hold an answer against the rule."""
        found, (status, told) = self.found, answer
        if user.is_ended:  # on its way to the other side, or there already
            return
        taken = time.monotonic() - began
        is_cut = self._cut_at and began > self._cut_at and not self._healed_at
        is_served = status == 200 and told["key"] == user.key
        if is_served and tab.sent and int(told["fields"].get(tab.name, 0)) < tab.sent:
            found.wrong += 1
        if is_cut:
            found.answers += 1
            found.worst_s = max(found.worst_s, taken)
            if taken > NORMAL_S and status != 503:
                found.cut_normal_s = time.monotonic() - self._cut_at
            if status == 503 and not self.is_held(user.key, tab.server):
                found.refused += 1
                found.touched += tab.browser.cookies != before
            elif not is_served:
                found.against_rule[f"{status} for a session of before"] += 1
        elif not is_served and not (status == 503 and self._healed_at):
            found.against_rule[f"{status} though nothing was cut"] += 1
        elif self._healed_at and (not is_served or taken > NORMAL_S):
            found.heal_normal_s = max(found.heal_normal_s, time.monotonic() - self._healed_at)

    def is_held(self, key: str, server: int) -> bool:
        """Whether somebody whom this server reaches was to hold the session at the moment of the cut.

        Who is not may have a copy all the same, of a change just made there: then it is served, or refused, never denied.
        """
        return any(key in self._held[other] for other in self.shape.reached(server))

    # -- what is done meanwhile ----------------------------------------------------------------------------------------

    async def _log_out(self) -> None:
        """Some sessions end on one side."""
        here = [
            user for user in self.users if self.is_held(user.key, user.tabs[0].server) and not user.tabs[0].is_reader
        ]
        for user in here[:LOGOUTS]:
            user.is_ended = True
            tab = user.tabs[0]
            browser = Browser(self._port(tab.server), dict(tab.browser.cookies))
            status, _ = await browser.ask("POST", "/api/logout")
            browser.close()
            if status != 200:
                self.found.against_rule[f"{status} for a logout"] += 1

    async def _begin_new(self) -> None:
        """Sessions begin at every server; where nobody can know of them they are asked for."""
        for server in range(self.shape.servers):
            for number in range(NEW_PER_SERVER):
                browser = Browser(self._port(server))
                status, told = await browser.ask("POST", f"/api/set?name=new&value={number}")
                browser.close()
                if status == 200:
                    self.new.append((server, told["key"], dict(browser.cookies)))
                else:
                    self.found.against_rule[f"{status} for a new session"] += 1
        for server, key, jar in self.new:
            for other in set(range(self.shape.servers)) - self.shape.reached(server):
                is_apart = not self.shape.reached(server) & self.shape.reached(other)
                browser = Browser(self._port(other), dict(jar))
                status, told = await browser.ask("GET", "/api/session")
                browser.close()
                self.found.refused += status == 503
                self.found.touched += status == 503 and browser.cookies != jar
                if status != 503 and (is_apart or status != 200 or told["key"] != key):
                    self.found.against_rule[f"{status} for a session begun on the other side"] += 1

    async def _look_everywhere(self) -> None:
        """Every session at every server."""
        for user in self.users:
            first, second = user.tabs
            is_lost = False
            for server in range(self.shape.servers):
                for tab in user.tabs[: 2 - user.is_ended]:
                    browser = Browser(self._port(server), dict(tab.browser.cookies))
                    status, told = await browser.ask("GET", "/api/session")
                    browser.close()
                    if user.is_ended:
                        self.found.came_back += status != 200 or told["key"] == user.key
                        continue
                    fields = told["fields"] if status == 200 and told["key"] == user.key else {}
                    is_lost |= not (
                        int(fields.get("a", 0)) == first.sent
                        and int(fields.get("b", 0)) == second.sent
                        and fields.get("n", 0) == first.added + second.added
                    )
            self.found.lost += is_lost
        for _, key, jar in self.new:
            for server in range(self.shape.servers):
                browser = Browser(self._port(server), dict(jar))
                status, told = await browser.ask("GET", "/api/session")
                browser.close()
                self.found.unknown_after += status != 200 or told["key"] != key


def are_equal(contents: list[dict[str, Any]], copies: int) -> bool:
    """Whether every live session has all its holders, and these hold the same.

    A server that is no holder may have a copy for a while yet; it shows nobody anything without asking one.
    """
    for key in set().union(*contents):
        held = [each[key] for each in contents if key in each]
        if all(state for state, _, _ in held):
            continue
        holding = [(state, value) for state, value, is_holder in held if is_holder]
        if len(set(holding)) != 1 or len(holding) < min(copies, len(contents)):
            return False
    return True


async def play(shape: Shape, strategy: str) -> Found:
    """One shape, on servers of its own."""
    with namespaces(shape.servers) as net:
        async with cluster(strategy, shape.servers, net.addresses, net.names) as group:
            playing = Play(shape, group)
            await playing.begin()
            await asyncio.sleep(1)
            await playing.cut(lambda: net.cut(shape.ways))
            await playing.heal(net.heal)
            await playing.close()
            return playing.found


def judged(name: str, found: Found) -> list[Figure]:
    """The figures of one shape, with their bounds."""

    def exactly(what: str, value: int) -> Figure:
        return Figure(f"{name}: {what}", value, "", "= 0", value == 0)

    return [
        Figure(f"{name}: answers while cut apart", found.answers, "", "> 0", found.answers > 0),
        Figure(f"{name}: of them, and to new sessions, 503: nobody can tell", found.refused),
        exactly("answers against the rule", found.against_rule.total()),
        exactly("answers without what the same tab wrote", found.wrong),
        exactly("cookies touched by a 503", found.touched),
        Figure(f"{name}: worst answer while cut apart", found.worst_s * 1_000, "ms"),
        Figure(f"{name}: last slow answer after the cut", found.cut_normal_s, "s"),
        Figure(f"{name}: last slow or refused answer after healing", found.heal_normal_s, "s"),
        Figure(
            f"{name}: all equal after healing", found.equal_s, "s", f"< {EQUAL_S_MAX:g}", found.equal_s < EQUAL_S_MAX
        ),
        exactly("sessions that lack a write of either side", found.lost),
        exactly("sessions begun meanwhile that a server does not know", found.unknown_after),
        exactly("sessions logged out that a server shows", found.came_back),
    ]


def run(progress: Progress) -> Shown:
    """Every shape, under both strategies."""
    figures: list[Figure] = []
    notes = [
        "each server is a process in a network namespace of its own; cut: bridges drop every packet, nobody is told",
        f"{USERS} sessions with a tab at either side, one in {READERS} only read, the others written and added to every {PAUSE_S:g} s; TLS; ack=one",
        f"cut for {CUT_S:g} s; after healing both sides go on for {ON_S:g} s before contents are compared",
        "the rule: what somebody on this side holds goes on; else 503 with no cookie, never 'no such session'",
    ]
    for strategy in STRATEGIES:
        for shape in SHAPES:
            progress(f"{strategy}, {shape.name}")
            found = asyncio.run(play(shape, strategy))
            figures += judged(f"{strategy}, {shape.name}", found)
            notes += [f"{strategy}, {shape.name}: {count} times {what}" for what, count in found.against_rule.items()]
    return Shown("partition", figures, notes)
