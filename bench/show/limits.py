"""`limits`: settings at their bounds and beyond, and sessions at the settings' limits, which must not disturb other users.

Three server processes, under each strategy and on a Redis, hold the sessions: the largest, one with the most fields, the longest
names, or the most writers, one that two servers fill at the same time, and one whose slow requests overlap quick ones. Requests
also try to exceed each limit. Seconds with and without these sessions alternate, so that the times of ordinary users are compared
within one run. All rounds are the same, so nothing may grow from one to the next.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from bench.bounds import BOUNDS, is_taken, refusal
from bench.browser import Browser
from bench.limited import limited
from bench.members import quantile
from bench.redis_server import redis_server
from bench.show import Figure, Progress, Shown
from bench.unharmed import exactly, named
from sessile.engine import WRITERS_RENEWED
from sessile.record import HELD_BYTES_MAX, WRITTEN_FIELDS_MAX

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractContextManager

    from bench.limited import Limited

SUMMARY = "Settings have the core's limits; sessions at these limits close no link, and others' requests take <= 2 x their usual time."
PROGRAMS = ("redis-server",)

SERVERS: Final = 3
ROUNDS: Final = 3
USERS: Final = 9
PAUSE_S: Final = 0.02
REST_S: Final = 1.0
"""The time without a request of a large session, and then the time with one."""
SLOW_S: Final = 2.6
"""Longer than a server that is not a holder keeps its copy."""
SLOW: Final = 3
TAGS: Final = WRITERS_RENEWED + 20
"""The number of processes that write to one session, one after the other."""
TAGS_AT_ONCE: Final = 40
SAID_MAX: Final = 10
TIMES_MAX: Final = 2.0
GROWTH_MAX: Final = 1.2
SETTLE_S: Final = 21.0
"""The rest after a round: longer than `tombstone_keep` and a sweep, so that only what stays is compared."""
RESIDENT_MAX: Final = 24 * 2**20
"""The most bytes by which a process may grow after the second round: allocators keep freed memory."""
STRATEGIES: Final = ("all-to-all", "primary-backup", "redis")


@dataclass
class Found:
    """The findings of one strategy."""

    usual_s: list[float] = field(default_factory=list)
    meanwhile_s: list[float] = field(default_factory=list)
    failed: int = 0
    """Ordinary requests whose answer was not their count."""
    odd: int = 0
    """Requests of large sessions without an answer, or with an error of the server."""
    filled: dict[str, int] = field(default_factory=dict)
    """What was tried → how far it got."""
    before: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[list[dict[str, Any]]] = field(default_factory=list)
    """What each server holds, after each round."""
    said: list[str] = field(default_factory=list)
    """The servers' log lines."""
    most: dict[str, int] = field(default_factory=dict)
    """The largest record of any server in any turn: bytes, fields and writers."""


# -- settings ------------------------------------------------------------------------------------------------------------


def judge_settings() -> list[Figure]:
    """Each value of the table is accepted, or refused in one line that names the setting and says what to do."""
    inside = [(name, value) for name, bound in BOUNDS.items() for value in bound.inside]
    outside = [(name, value) for name, bound in BOUNDS.items() for value in bound.outside]
    refused = [(name, refusal(name, value)) for name, value in outside]
    good = [line for name, line in refused if line.startswith(name) and "\n" not in line]
    return [
        Figure("settings", len(BOUNDS)),
        exactly("values at their bounds that were taken", sum(is_taken(*each) for each in inside), len(inside)),
        exactly("values beyond that were refused in a line that names them", len(good), len(outside)),
    ]


# -- sessions ------------------------------------------------------------------------------------------------------------


class Users:
    """Ordinary users, each at its server: they read and count in turn, and are timed."""

    def __init__(self, ports: list[int], found: Found) -> None:
        self._found = found
        self.times: list[float] = []
        self._browsers = [Browser(ports[number % len(ports)]) for number in range(USERS)]
        self._tasks = [asyncio.create_task(self._work(browser)) for browser in self._browsers]

    def turn(self) -> list[float]:
        """The times measured until now; begins a new list."""
        times, self.times = self.times, []
        return times

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for browser in self._browsers:
            browser.close()

    async def _work(self, browser: Browser) -> None:
        count = 0
        while True:
            for method, path in (("POST", "/count"), ("GET", "/read")):
                began = time.monotonic()
                status, told = await browser.ask(method, path)
                self.times.append(time.monotonic() - began)
                count += method == "POST"
                self._found.failed += status != 200 or told["n"] != count
                await asyncio.sleep(PAUSE_S)


class Large:
    """Browsers that fill sessions to their limits and try to exceed them, step by step, with rests in between."""

    def __init__(self, servers: Limited, users: Users, found: Found) -> None:
        self._servers = servers
        self._ports = servers.ports
        self._users = users
        self._found = found

    async def turn(self) -> None:
        """Do every step once; every session ends with the turn."""
        await self._fill("fields of 50 kB in the largest session", "/fill?count=50&bytes=50000")
        await self._fill("fields of the session with most", "/fill?count=5000&bytes=10")
        await self._fill("fields with the longest names", "/fill?count=5000&bytes=200&long=1")
        await self._fill_at_two()
        await self._be_slow()
        await self._be_many()

    async def _step(self, *asking: Awaitable[Any]) -> list[Any]:
        """Rest, and then spend as long with these requests; the times of other users' requests in both are compared."""
        self._users.turn()
        await asyncio.sleep(REST_S)
        self._found.usual_s += self._users.turn()
        answers: list[Any] = (await asyncio.gather(asyncio.gather(*asking), asyncio.sleep(REST_S)))[0]
        self._found.meanwhile_s += self._users.turn()
        for each in await self._servers.look():
            for name in ("writers", "fields", "largest"):
                self._found.most[name] = max(self._found.most.get(name, 0), each[name])
        return answers

    async def _ask(self, browser: Browser, path: str) -> Any:
        status, told = await browser.ask("POST", path)
        if status not in {200, 409}:
            self._found.odd += 1
        return told if status == 200 else None

    async def _fill(self, what: str, path: str) -> None:
        """Fill a session at one server until it refuses, write to it at the next, try to exceed, and end it at the third."""
        browser = Browser(self._ports[0])
        await self._ask(browser, "/count")
        (told,) = await self._step(self._ask(browser, path))
        if told is not None:
            self._found.filled[what] = told["filled"]
        self._go(browser, 1)
        await self._step(self._ask(browser, "/count"))
        await self._step(self._ask(browser, "/fill?start=more&bytes=900000&count=3"))
        self._go(browser, 2)
        await self._step(self._ask(browser, "/end"))
        browser.close()

    def _go(self, browser: Browser, number: int) -> None:
        browser.close()
        browser.port = self._ports[number]

    async def _fill_at_two(self) -> None:
        """Two tabs at two servers at the same time: each adds as much as one server accepts."""
        browser = Browser(self._ports[1])
        await self._ask(browser, "/count")
        tabs = [Browser(port, dict(browser.cookies)) for port in self._ports[:2]]
        await self._step(
            *(self._ask(tab, f"/fill?start={name}&count=36&bytes=55000") for tab, name in zip(tabs, "ab", strict=True))
        )
        (told,) = await self._step(self._ask(tabs[0], "/size"))
        if told is not None:
            self._found.filled["fields of 55 kB that two servers filled in at once"] = told["fields"]
        await self._step(self._ask(tabs[0], "/end"))
        for tab in (browser, *tabs):
            tab.close()

    async def _be_slow(self) -> None:
        """Slow requests beside quick ones of the same sessions; servers drop their copies in between."""

        async def one(number: int) -> None:
            browser = Browser(self._ports[number % SERVERS])
            await self._ask(browser, "/count")
            elsewhere = self._ports[(number + 1) % SERVERS]
            slow, quick = Browser(elsewhere, browser.cookies), Browser(elsewhere, browser.cookies)
            waiting = asyncio.create_task(self._ask(slow, f"/slow?seconds={SLOW_S}"))
            await asyncio.sleep(0.1)
            await self._ask(quick, "/count")
            await waiting
            await self._ask(quick, "/end")
            for each in (browser, slow, quick):
                each.close()

        await self._step(*(one(number) for number in range(SLOW)))

    async def _be_many(self) -> None:
        """One process after another writes to one session, which gets a record of one writer now and then."""
        browser = Browser(self._ports[0])
        for at in range(0, TAGS, TAGS_AT_ONCE):
            await self._step(self._write_under_tags(browser, range(at, min(at + TAGS_AT_ONCE, TAGS))))
        await self._ask(browser, "/end")
        browser.close()

    async def _write_under_tags(self, browser: Browser, numbers: range) -> None:
        for number in numbers:
            told = await self._ask(browser, "/tag")
            if told is not None and told["n"] != number + 1:
                self._found.odd += 1


async def play(url: str, progress: Progress) -> Found:
    """Start three servers and ordinary users, and play one round after the other."""
    found = Found()
    async with limited(url, SERVERS) as servers:
        users = Users(servers.ports, found)
        large = Large(servers, users, found)
        try:
            await asyncio.sleep(REST_S)
            found.before = await servers.look()
            for number in range(ROUNDS):
                await large.turn()
                await asyncio.sleep(SETTLE_S)
                found.rounds.append(await servers.look())
                progress(f"{url}: round {number + 1} of {ROUNDS}")
        finally:
            await users.stop()
            found.said = [line[:300] for line in servers.said]
    return found


def judge(found: Found, *, is_store: bool) -> list[Figure]:
    """Links stay up, other users are served as usual, and memory is bounded and does not grow."""
    last, second = found.rounds[-1], found.rounds[min(1, len(found.rounds) - 1)]
    figures = [
        exactly("ordinary requests that failed", found.failed),
        exactly("requests of large sessions that failed", found.odd),
        *(
            exactly(label, _counted(last, name) - _counted(found.before, name))
            for name, label in _harm(is_store=is_store)
        ),
    ]
    for label, part in (("median", 0.5), ("99th percentile", 0.99)):
        usual, meanwhile = quantile(found.usual_s, part), quantile(found.meanwhile_s, part)
        ratio = meanwhile / usual if usual else 0.0
        times = Figure(f"{label} of others' requests, as a share of the usual", ratio, "x", f"<= {TIMES_MAX:g}")
        figures += [replace(times, holds=0 < ratio <= TIMES_MAX), Figure(f"{label}: usual", usual * 1_000, "ms")]
    most = found.most
    figures += [
        _at_most("bytes of the largest record", most.get("largest", 0), HELD_BYTES_MAX, "B"),
        _at_most("fields of the record with most", most.get("fields", 0), 2 * WRITTEN_FIELDS_MAX + 1),
        _at_most("writers of the record with most", most.get("writers", 0), WRITERS_RENEWED),
        *(Figure(f"reached: {what}", far) for what, far in sorted(found.filled.items())),
    ]
    for name, label, unit in (("sessions", "live sessions held", ""), ("bytes", "bytes held by tables", "B")):
        then, now = _sum(second, name), _sum(last, name)
        figures.append(_at_most(f"{label}, as a share of round 2", now / max(then, 1), GROWTH_MAX, "x"))
        figures.append(Figure(label, now, unit))
    grown = max(each["resident_bytes"] - then["resident_bytes"] for each, then in zip(last, second, strict=True))
    figures.append(_at_most("growth of a process since round 2", grown / 2**20, RESIDENT_MAX / 2**20, "MiB"))
    waiting = ("pulls", "pushes", "outstanding_bytes") if not is_store else ("pushes", "queued")
    left = sum(int(each["status"].get(name, 0)) for each in last for name in waiting)
    return [*figures, _at_most("what waits in queues at the end", left, USERS * 1_000)]


def _harm(*, is_store: bool) -> tuple[tuple[str, str], ...]:
    if is_store:
        return (
            ("store_errors", "errors of the store"),
            ("outages", "outages of the store"),
            ("malformed", "records that were none"),
            ("given_up", "sessions given up"),
        )
    return (
        ("protocol_errors", "protocol errors"),
        ("view_changes", "view changes"),
        ("refused_links", "links refused"),
        ("bad_records", "records that were none"),
        ("oversized", "messages too long to be sent"),
    )


def _counted(servers: list[dict[str, Any]], name: str) -> int:
    return sum(int(each["status"]["counts"].get(name, 0)) for each in servers)


def _sum(servers: list[dict[str, Any]], name: str) -> int:
    return sum(int(each[name]) for each in servers)


def _at_most(name: str, value: float, bound: float, unit: str = "") -> Figure:
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound)


NOTES: Final = [
    f"{USERS} ordinary users read and count in turn, each at one server, {PAUSE_S * 1000:g} ms apart, all the time",
    f"{REST_S:g} s without a large session and {REST_S:g} s with a request of one, of up to 2 MiB, alternate: these are compared",
    "large sessions: session_bytes_max=2MiB, value_bytes_max=1MiB, fields_max=4096, the highest values that settings take",
    f"tombstone_keep=13s, and {SETTLE_S:g} s of rest after each round: no tombstone is left when tables are compared",
    f"in each round: the largest, most fields, longest names, one filled at two servers at once, {SLOW} with slow requests,",
    f"and one to which {TAGS} processes write one after the other; a 409, or a refusal to a handler, is not a failure",
    "all large sessions of a round end with it",
]


def run(progress: Progress) -> Shown:
    """Judge the settings; then start the servers of each strategy, and judge the effects on ordinary users and links."""
    figures = judge_settings()
    notes = [*NOTES]
    for strategy in STRATEGIES:
        is_store = strategy == "redis"
        store: AbstractContextManager[int] = redis_server() if is_store else nullcontext(0)
        with store as port:
            url = f"redis://127.0.0.1:{port}/0" if is_store else f"{strategy}://"
            found = asyncio.run(play(url, progress))
        figures += named(strategy, judge(found, is_store=is_store))
        notes += [f"{strategy}: a server said: {line}" for line in found.said[:SAID_MAX]]
    return Shown("limits", figures, notes)
