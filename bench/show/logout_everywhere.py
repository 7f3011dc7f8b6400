"""`logout-everywhere`: what one server has acknowledged holds on all others, at once.

A logout that server A has acknowledged: its cookies, kept by somebody and sent again to A, B and C, open nothing any more.
A login: the id of before shows at most what was there before, changes nothing, and is nothing ten seconds later. A write:
no server shows an older state to who comes with the newest cookies. After parallel writes, whose cookies know little of
each other, nobody shows an old state a tenth of a second later; servers that hold no copy, or none that is leased, are asked like all
others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from bench.browser import Browser
from bench.running import demo, has_replicas
from bench.show import Figure, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.running import Running

SUMMARY = "A logout or login acknowledged at one server holds on every server at once, and nobody reads an older state."

PROGRAMS = ("redis-server",)

STRATEGIES: Final = ("all-to-all", "primary-backup", "store")
SERVERS: Final = 3
SESSIONS: Final = 250
"""So many of each kind: logged out, logged in, written to in parallel."""
PARALLEL: Final = 8
WRITES: Final = 1_000
"""So many writes one after the other, each read at the two other servers."""
AT_ONCE: Final = 4
REPLICATED_S: Final = 0.1
GRACE_S: Final = 10.0
"""`rotation_grace`, as long as it is by default."""
SLACK_S: Final = 1.0
TOLD_MAX: Final = 10

PEERS: Final = {"all-to-all": ("Tomcat DeltaManager", 1_164), "primary-backup": ("Tomcat BackupManager", 0)}
"""Stale reads of 2 000, each right after a write at another node."""

Cookies = dict[bytes, bytes]


@dataclass(slots=True)
class Tally:
    """What came of one kind of requests, over many sessions."""

    asked: int = 0
    failed: Counter[int] = field(default_factory=Counter)
    """Those without a usable answer, by their status; 0 where none came."""
    wrong: list[str] = field(default_factory=list)
    """Answers that must not be, in words."""
    roles: Counter[str] = field(default_factory=Counter)
    """What the servers that answered are to the session."""

    def note(self, status: int, told: dict[str, Any] | None, problem: str, about: str) -> None:
        """One answer; `problem` is what is wrong with it, if anything."""
        self.asked += 1
        if status != 200 or told is None:
            self.failed[status] += 1
            return
        self.roles[told["role"]] += 1
        if problem:
            self.wrong.append(f"{about}: {problem} ({told})")


@dataclass(slots=True)
class Found:
    """Everything that one strategy was asked."""

    logouts: Tally = field(default_factory=Tally)
    replays: Tally = field(default_factory=Tally)
    """Cookies of a session that was logged out."""
    logins: Tally = field(default_factory=Tally)
    looks_back: Tally = field(default_factory=Tally)
    """Cookies of before a login, at once."""
    intrusions: Tally = field(default_factory=Tally)
    """Changes with such cookies."""
    outdated: Tally = field(default_factory=Tally)
    """The same cookies when the grace is over."""
    after_parallel: Tally = field(default_factory=Tally)
    at_once: Tally = field(default_factory=Tally)
    """Reads right after parallel writes, which may miss some of them."""
    after_write: Tally = field(default_factory=Tally)


# -- what is wrong with an answer ------------------------------------------------------------------------------------


def opens(told: dict[str, Any], key: str, allowed: dict[str, Any] | None = None) -> str:
    """What an answer to the cookies of an ended session shows of it; a new session with these fields is fine."""
    if told["key"] == key:
        return "the session is open"
    if told["fields"] != (allowed or {}) or not told["new"]:
        return "there is something in it"
    return ""


def looks_back(told: dict[str, Any], old_key: str, before: dict[str, Any]) -> str:
    """What an answer to the cookies of before a login shows too much: the new session, or what came into it."""
    if told["key"] == old_key:
        return "" if told["fields"] == before else "it shows something else than was there before"
    return opens(told, old_key)


def lacks(told: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What an answer should show and does not."""
    missing = [name for name, value in wanted.items() if told["fields"].get(name) != value]
    if told["stale"]:
        return "it says itself that it is stale"
    return f"it lacks {missing}" if missing else ""


# -- what is asked ---------------------------------------------------------------------------------------------------


class Site:
    """The servers of a demo, each asked without the balancer, by browsers that come and go."""

    def __init__(self, ports: dict[str, int], found: Found) -> None:
        self.ports = list(ports.values())
        self.found = found
        self._idle: dict[int, list[Browser]] = {port: [] for port in self.ports}

    async def ask(self, place: int, method: str, path: str, cookies: Cookies) -> tuple[int, Any]:
        """Ask one server; the cookies are those of the browser, and change."""
        port = self.ports[place % len(self.ports)]
        browser = self._idle[port].pop() if self._idle[port] else Browser(port)
        browser.cookies = cookies
        try:
            return await browser.ask(method, path)
        finally:
            self._idle[port].append(browser)

    def close(self) -> None:
        for browsers in self._idle.values():
            for browser in browsers:
                browser.close()

    async def begin(self, number: int, *paths: str) -> tuple[Cookies, dict[str, Any]]:
        """A session, begun somewhere; its cookies, and what was told last."""
        cookies: Cookies = {}
        told: dict[str, Any] = {}
        for place, path in enumerate((f"/api/set?name=mine&value={number}", *paths), number):
            status, told = await self.ask(place, "POST", path, cookies)
            assert status == 200, f"a session that never began shows nothing: {status}"
        return cookies, told

    async def log_out(self, number: int) -> None:
        """Log out at one server; whoever has the cookies of before comes to all of them at once."""
        is_user = number % 2
        cookies, told = await self.begin(number, *([f"/api/login?user=u{number}"] if is_user else []))
        stolen, key = dict(cookies), told["key"]
        status, told = await self.ask(number // 2, "POST", "/api/logout", cookies)
        self.found.logouts.note(status, told, "it left cookies" if cookies else "", f"logout {number}")
        only_id = {name: value for name, value in stolen.items() if not name.endswith(b"_v")}
        intruding = "/api/set?name=intruder&value=1"

        async def replay(place: int, method: str, path: str, jar: Cookies) -> None:
            status, told = await self.ask(place, method, path, dict(jar))
            allowed = {"intruder": "1"} if method == "POST" else None
            problem = opens(told, key, allowed) if status == 200 else ""
            self.found.replays.note(status, told, problem, f"{method} after logout {number} at {place}")

        asked: list[Awaitable[None]] = []
        for place in range(SERVERS):
            asked += [replay(place, "GET", "/api/session", jar) for jar in (stolen, only_id)]
            asked.append(replay(place, "POST", intruding, stolen))
        await asyncio.gather(*asked)

    async def log_in(self, number: int) -> tuple[int, Cookies, str]:
        """Log in at one server; the cookies of before come to all of them. Returns them, and the key of before."""
        cookies, told = await self.begin(number)
        old, old_key, before = dict(cookies), told["key"], dict(told["fields"])
        status, told = await self.ask(number // 2, "POST", f"/api/login?user=u{number}", cookies)
        is_same = status == 200 and told["key"] == old_key
        self.found.logins.note(status, told, "it left the key as it was" if is_same else "", f"login {number}")

        async def look(place: int) -> None:
            status, told = await self.ask(place, "GET", "/api/session", dict(old))
            problem = looks_back(told, old_key, before) if status == 200 else ""
            self.found.looks_back.note(status, told, problem, f"after login {number} at {place}")

        async def intrude(place: int) -> None:
            status, told = await self.ask(place, "POST", "/api/set?name=intruder&value=1", dict(old))
            problem = opens(told, old_key, {"intruder": "1"}) if status == 200 else ""
            if status == 409:  # as it should be: nothing was stored
                status, told = 200, {"role": "none"}
            self.found.intrusions.note(status, told, problem, f"change after login {number} at {place}")

        await asyncio.gather(*map(look, range(SERVERS)), *map(intrude, range(SERVERS)))
        wanted = {**before, "user": f"u{number}"}
        for place in range(SERVERS):
            status, told = await self.ask(place, "GET", "/api/session", dict(cookies))
            problem = "" if status != 200 or told["fields"] == wanted else "it is not what it was"
            self.found.logins.note(status, told, problem, f"session of login {number} at {place}")
        return number, old, old_key

    async def look_back_late(self, kept: list[tuple[int, Cookies, str]]) -> None:
        """The cookies of before each login once more, when the grace is over."""
        for number, old, old_key in kept:
            for place in range(SERVERS):
                status, told = await self.ask(place, "GET", "/api/session", dict(old))
                problem = opens(told, old_key) if status == 200 else ""
                self.found.outdated.note(status, told, problem, f"long after login {number} at {place}")

    async def write_in_parallel(self, number: int) -> None:
        """Parallel writes at all servers; reads at all of them, at once and when they must be there."""
        cookies, _ = await self.begin(number)
        wanted = {f"f{at}": f"{number}-{at}" for at in range(PARALLEL)}
        asked = [
            self.ask(number + at, "POST", f"/api/set?name={name}&value={value}", cookies)
            for at, (name, value) in enumerate(wanted.items())
        ]
        self.found.after_parallel.failed.update(status for status, _ in await asyncio.gather(*asked) if status != 200)
        answered_s = time.monotonic()
        await self._read_everywhere(self.found.at_once, number, dict(cookies), wanted)
        await asyncio.sleep(answered_s + REPLICATED_S - time.monotonic())
        await self._read_everywhere(self.found.after_parallel, number, dict(cookies), wanted)

    async def _read_everywhere(self, tally: Tally, number: int, cookies: Cookies, wanted: dict[str, str]) -> None:
        async def look(place: int) -> None:
            status, told = await self.ask(place, "GET", "/api/session", dict(cookies))
            problem = lacks(told, wanted) if status == 200 else ""
            tally.note(status, told, problem, f"parallel {number} at {place}")

        await asyncio.gather(*map(look, range(SERVERS)))

    async def write_and_read(self, number: int, writes: int) -> None:
        """One session written to at one server after the other; each write is read at all others at once."""
        cookies, _ = await self.begin(number)
        for turn in range(writes):
            status, told = await self.ask(turn, "POST", f"/api/set?name=last&value={turn}", cookies)
            if status != 200:
                self.found.after_write.failed[status] += 1
                continue
            for place in range(turn + 1, turn + SERVERS):
                status, told = await self.ask(place, "GET", "/api/session", cookies)
                problem = lacks(told, {"last": str(turn)}) if status == 200 else ""
                self.found.after_write.note(status, told, problem, f"after write {turn} of {number} at {place}")


async def many(times: int, one: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """Do it so often, `AT_ONCE` at a time."""
    numbers = count()
    results: list[Any] = []

    async def some() -> None:
        while (number := next(numbers)) < times:
            results.append(await one(number))

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return results


async def examine(strategy: str, running: Running, progress: Progress) -> Found:
    """All of it, on the running servers of one strategy."""
    found = Found()
    site = Site(await running.server_ports(), found)
    progress(f"{strategy}: {SESSIONS} logins, and the cookies of before at every server")
    kept = await many(SESSIONS, site.log_in)
    logged_in_s = time.monotonic()
    progress(f"{strategy}: {SESSIONS} logouts, and the cookies of before at every server")
    await many(SESSIONS, site.log_out)
    progress(f"{strategy}: {SESSIONS} times {PARALLEL} parallel writes, read at every server")
    await many(SESSIONS, site.write_in_parallel)
    progress(f"{strategy}: {WRITES} writes one after the other, read at every other server")
    trips = await running.store_trips() if strategy == "store" else 0
    await many(AT_ONCE, lambda number: site.write_and_read(number, WRITES // AT_ONCE))
    if strategy == "store":  # a begin and a write are one trip each, whoever else made one had no leased copy
        made = AT_ONCE + WRITES // AT_ONCE * AT_ONCE
        found.after_write.roles["proxy"] = await running.store_trips() - trips - made
    progress(f"{strategy}: the cookies of before each login again, {GRACE_S:g} s later")
    await asyncio.sleep(max(0.0, logged_in_s + GRACE_S + SLACK_S - time.monotonic()))
    await site.look_back_late(kept)
    site.close()
    return found


# -- judging ---------------------------------------------------------------------------------------------------------


def never(name: str, tally: Tally, expected: int, peer: tuple[str, float] | None = None) -> list[Figure]:
    """So many were asked, all answered, and nothing was wrong."""
    told = ("", None) if peer is None else peer
    wrong, answered = len(tally.wrong), tally.asked - tally.failed.total()
    return [
        Figure(f"{name}: answered", answered, "", f"= {expected}", answered == expected),
        Figure(f"{name}: wrong", wrong, "", "= 0", not wrong, *told),
    ]


def judge(strategy: str, found: Found) -> list[Figure]:
    """The figures of one strategy."""
    has_proxies = strategy != "all-to-all"
    looked_at, reads = (
        (found.after_write, "reads after a write") if strategy == "store" else (found.after_parallel, "these reads")
    )
    proxies = looked_at.roles["proxy"]
    everywhere = SESSIONS * SERVERS
    return [
        *never(f"{strategy}, logouts", found.logouts, SESSIONS),
        *never(f"{strategy}, cookies of before a logout, everywhere at once", found.replays, everywhere * 3),
        *never(f"{strategy}, logins, read everywhere", found.logins, SESSIONS + everywhere),
        *never(f"{strategy}, cookies of before a login, everywhere at once", found.looks_back, everywhere),
        *never(f"{strategy}, changes with cookies of before a login", found.intrusions, everywhere),
        *never(f"{strategy}, cookies of before a login, after the grace", found.outdated, everywhere),
        *never(
            f"{strategy}, reads everywhere {REPLICATED_S:g} s after parallel writes", found.after_parallel, everywhere
        ),
        Figure(
            f"{strategy}, of {reads} at a proxy",
            proxies,
            "",
            "> 0" if has_proxies else "= 0",
            bool(proxies) is has_proxies,
        ),
        Figure(f"{strategy}, of {everywhere} reads right after parallel writes lacked one", len(found.at_once.wrong)),
        *never(
            f"{strategy}, reads elsewhere right after a write",
            found.after_write,
            WRITES // AT_ONCE * AT_ONCE * (SERVERS - 1),
            PEERS.get(strategy),
        ),
    ]


def told(strategy: str, found: Found) -> list[str]:
    """What was wrong, in words; of each kind the first."""
    lines: list[str] = []
    for name in Found.__slots__:
        tally: Tally = getattr(found, name)
        if name != "at_once":
            lines += tally.wrong[:TOLD_MAX]
        if tally.failed:
            lines.append(f"{strategy}, {name}: failed by status: {dict(tally.failed)}")
    return lines


async def show(progress: Progress) -> Shown:
    """Every strategy, each on fresh processes."""
    figures: list[Figure] = []
    notes = [
        f"{SERVERS} server processes, started by `sessile demo --routing round-robin`, each asked on its own port; ack=one",
        "cookies of before are sent as they were, both and the id alone, right after the acknowledgement",
        "a proxy is a server that holds no copy of the session it is asked for; under store, none that is leased: it asks",
        "store: Redis with two replicas and three sentinels; proxies are counted by the trips that the servers made",
        "Tomcat 10.1.60, 3 nodes: stale reads of 2 000, each at another node right after a write",
    ]
    for strategy in STRATEGIES:
        async with demo(routing="round-robin", servers=SERVERS, strategy=strategy) as running:
            await has_replicas(strategy, running)
            found = await examine(strategy, running, progress)
        figures += judge(strategy, found)
        notes += told(strategy, found)
    return Shown("logout-everywhere", figures, notes)


def run(progress: Progress) -> Shown:
    """Start the demos, use them, and judge what was answered."""
    return asyncio.run(show(progress))
