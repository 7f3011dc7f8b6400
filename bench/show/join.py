"""`join`: a server joins a cluster that is full of sessions and in use, and nobody has to wait for it.

A hundred thousand sessions on three servers; a fourth one starts, three times anew. How soon it answers counts from when its
process is up: Python has started and imported everything, and the server has yet to listen and to join. It holds its share
when it holds every session that is its to hold; what it holds at the end is compared with what the others do.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.browser import HOST, Browser
from bench.members import STRATEGIES, cluster, node_ports, quantile
from bench.show import CannotShow, Figure, Progress, Shown
from sessile.replication.placement import Place, Placement

if TYPE_CHECKING:
    from bench.members import Cluster, Member

SUMMARY = "A server that joins 100 000 sessions answers at once and holds its share sooner than Tomcat's, while others answer on."
MEASURES = True

SESSIONS: Final = 100_000
SERVERS: Final = 3
ROUNDS: Final = 3
BROWSERS: Final = 6
PAUSE_S: Final = 0.02
"""Each browser rests so long between two requests."""
BEFORE_S: Final = 3.0
AFTER_S: Final = 3.0
"""So long answers are timed before a server joins, and when it holds its share: copies are compared then."""
HOLD_S: Final = 60.0
SETTLE_S: Final = 60.0
ANSWER_S_MAX: Final = 0.5
HOLD_S_MAX: Final = 1.7
TOMCAT_ANSWER_S: Final = {"all-to-all": 3.94, "primary-backup": 3.65}
TOMCAT_HOLD_S: Final = {"all-to-all": 1.70, "primary-backup": 1.78}
TOMCAT_WORST_MS: Final = {"all-to-all": 49.0, "primary-backup": 47.0}
TOMCAT: Final = {"all-to-all": "Tomcat DeltaManager", "primary-backup": "Tomcat BackupManager"}


@dataclass
class Times:
    """How long answers took at the servers that were there before."""

    taken_s: list[float] = field(default_factory=list)
    failed: int = 0


@dataclass
class Joined:
    """What came of one newcomer. Seconds count from when its process was up."""

    answer_s: float = 0.0
    hold_s: float = 0.0
    share: int = 0
    """So many sessions are its to hold."""
    missing: int = 0
    """Of these it did not hold, or not as the others do."""
    processor_s: float = 0.0
    """What all servers together spent until then, on the newcomer and on browsers."""
    meanwhile: Times = field(default_factory=Times)


@dataclass
class Found:
    """What came of one strategy."""

    before: Times = field(default_factory=Times)
    joined: list[Joined] = field(default_factory=list)
    sessions: int = 0


class Load:
    """Browsers at the servers that are there: each reads and changes its session in turn."""

    def __init__(self, cookies: list[tuple[Member, dict[bytes, bytes]]]) -> None:
        self.times = Times()
        self._tasks = [
            asyncio.create_task(self._browse(Browser(member.port, dict(jar)))) for member, jar in cookies[:BROWSERS]
        ]

    def turn(self) -> Times:
        """What was timed until now; what follows is timed anew."""
        times, self.times = self.times, Times()
        return times

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _browse(self, browser: Browser) -> None:
        try:
            while True:
                for method, path in (("GET", "/api/session"), ("POST", "/api/count?name=n")):
                    began = time.monotonic()
                    status, told = await browser.ask(method, path)
                    self.times.taken_s.append(time.monotonic() - began)
                    self.times.failed += status != 200 or not told or "user" not in told["fields"]
                    await asyncio.sleep(PAUSE_S)
        finally:
            browser.close()


async def join(group: Cluster, jar: dict[bytes, bytes], load: Load) -> tuple[Member, Joined]:
    """Start one server more, and watch it."""
    joined = Joined()
    before = await group.members[0].ask("/bench/contents")
    for member in group.members[1:]:
        before |= await member.ask("/bench/contents")
    names = [*(member.address for member in group.members), group.next_address]
    joined.share = share_of(group.next_address, names, list(before), group.strategy)
    await asyncio.sleep(0.5)
    load.turn()
    spent_s = await spent(group)
    newcomer = await group.start()
    joined.answer_s = await first_answer(newcomer, jar) - newcomer.imported
    joined.hold_s = await held(newcomer, joined.share) - newcomer.imported
    joined.processor_s = await spent(group) - spent_s
    await asyncio.sleep(AFTER_S)
    joined.meanwhile = load.turn()
    return newcomer, joined


async def spent(group: Cluster) -> float:
    """The processor time of all servers until now."""
    return sum([float((await member.ask("/bench/size"))["processor_s"]) for member in group.members])


def share_of(name: str, names: list[str], keys: list[str], strategy: str) -> int:
    """How many of these sessions are this member's to hold."""
    copies = 2 if strategy == "primary-backup" else None
    placement = Placement(name, [Place(each, socket.gethostname()) for each in names], copies)
    return sum(placement.is_holder(bytes.fromhex(key)) for key in keys)


async def first_answer(member: Member, jar: dict[bytes, bytes]) -> float:
    """When it first gave a session that was made before it was there."""
    browser = Browser(member.port, dict(jar))
    async with asyncio.timeout(HOLD_S):
        while True:
            status, told = await browser.ask("GET", "/api/session")
            if status == 200 and told["fields"].get("user"):
                browser.close()
                return time.monotonic()
            await asyncio.sleep(0.001)


async def held(member: Member, share: int) -> float:
    """When it held so many sessions."""
    browser = Browser(member.port)
    until = time.monotonic() + HOLD_S
    while True:
        status, told = await browser.ask("GET", "/bench/size")
        if status == 200 and told["sessions"] >= share:
            browser.close()
            return float(told["at"])
        if time.monotonic() > until:
            raise CannotShow(f"{member.name} holds {told} of {share} after {HOLD_S:g} s")
        await asyncio.sleep(0.01)


def missing(newcomer: dict[str, Any], others: list[dict[str, Any]], name: str, names: list[str], strategy: str) -> int:
    """Of the sessions that are the newcomer's to hold, how many it does not hold as every other holder does."""
    keys = {key for contents in others for key in contents}
    copies = 2 if strategy == "primary-backup" else None
    placement = Placement(name, [Place(each, socket.gethostname()) for each in names], copies)
    bad = 0
    for key in keys:
        if placement.is_holder(bytes.fromhex(key)):
            copy = newcomer.get(key, [None, None])[:2]
            bad += any(key in contents and contents[key][:2] != copy for contents in others)
    return bad


async def settled(group: Cluster) -> None:
    """Wait until what each server holds has not changed for a while."""
    before: list[int] = []
    same = 0
    async with asyncio.timeout(SETTLE_S):
        while same < 4:
            now = [int((await member.ask("/bench/size"))["sessions"]) for member in group.members]
            same = same + 1 if now == before else 0
            before = now
            await asyncio.sleep(0.5)


async def play(strategy: str, progress: Progress) -> Found:
    """One strategy, from an empty cluster on."""
    found = Found()
    addresses = [f"{HOST}:{port}" for port in node_ports(SERVERS + ROUNDS)]
    async with cluster(strategy, SERVERS, addresses) as group:
        progress(f"{strategy}: {SESSIONS} sessions are made on {SERVERS} servers")
        cookies = await group.fill(SESSIONS, 2 * BROWSERS)
        await settled(group)
        mixed = cookies[::2] + cookies[1::2]
        load = Load(mixed)
        await asyncio.sleep(BEFORE_S)
        found.before = load.turn()
        for number in range(ROUNDS):
            newcomer, joined = await join(group, cookies[-1][1], load)
            progress(
                f"{strategy}, newcomer {number + 1}: answered after {joined.answer_s:.2f} s, "
                f"held its {joined.share} sessions after {joined.hold_s:.2f} s"
            )
            await load.stop()
            await settled(group)
            contents = [await member.ask("/bench/contents") for member in group.members]
            found.sessions = len(set().union(*contents))
            names = [member.address for member in group.members]
            joined.missing = missing(contents[-1], contents[:-1], newcomer.address, names, strategy)
            found.joined.append(joined)
            await group.kill(newcomer)
            await asyncio.sleep(1)
            await settled(group)
            load = Load(mixed)
        await load.stop()
    return found


def judged(strategy: str, found: Found) -> list[Figure]:
    """The figures of one strategy, with their bounds."""
    tomcat = TOMCAT[strategy]
    answer_s, hold_s = (median(times) for times in zip(*((j.answer_s, j.hold_s) for j in found.joined), strict=True))
    lacking = sum(joined.missing for joined in found.joined)
    failed = found.before.failed + sum(joined.meanwhile.failed for joined in found.joined)
    before = found.before.taken_s
    meanwhile = [taken for joined in found.joined for taken in joined.meanwhile.taken_s]
    most = max(joined.share for joined in found.joined)

    def figure(name: str, *rest: Any) -> Figure:
        return Figure(f"{strategy}: {name}", *rest)

    return [
        figure("sessions", found.sessions, "", f">= {SESSIONS}", found.sessions >= SESSIONS),
        figure(
            "newcomer's first answer, from when its process is up", answer_s, "s", f"< {ANSWER_S_MAX:g}",
            answer_s < ANSWER_S_MAX, f"{tomcat}, from its start", TOMCAT_ANSWER_S[strategy],
        ),
        figure("the slowest newcomer's", max(joined.answer_s for joined in found.joined), "s"),
        figure("the newcomer's share", most, "", "> 0", most > 0),
        figure(
            "newcomer holds its share, from when its process is up", hold_s, "s", f"< {HOLD_S_MAX:g}",
            hold_s < HOLD_S_MAX, f"{tomcat}, its transfer", TOMCAT_HOLD_S[strategy],
        ),
        figure("the slowest newcomer's", max(joined.hold_s for joined in found.joined), "s"),
        figure("processor time of all servers until then", median(j.processor_s for j in found.joined), "s"),
        figure("of its share missing or different", lacking, "", "= 0", lacking == 0),
        figure("requests to the others that failed", failed, "", "= 0", failed == 0),
        figure("the others' answers before: median", quantile(before, 0.5) * 1_000, "ms"),
        figure("the others' answers before: 99 %", quantile(before, 0.99) * 1_000, "ms"),
        figure("the others' answers before: worst", max(before, default=0) * 1_000, "ms"),
        figure("the others' answers meanwhile: median", quantile(meanwhile, 0.5) * 1_000, "ms"),
        figure("the others' answers meanwhile: 99 %", quantile(meanwhile, 0.99) * 1_000, "ms"),
        figure(
            "the others' answers meanwhile: worst", max(meanwhile, default=0) * 1_000, "ms", "", None, tomcat,
            TOMCAT_WORST_MS[strategy],
        ),
    ]  # fmt: skip


def run(progress: Progress) -> Shown:
    """Fill a cluster of each strategy, and let servers join it."""
    figures: list[Figure] = []
    busy = os.getloadavg()[0]
    for strategy in STRATEGIES:
        figures += judged(strategy, asyncio.run(play(strategy, progress)))
    notes = [
        f"{SERVERS} servers and the newcomer: processes on this machine, links in TLS; medians of {ROUNDS} newcomers",
        "up: its process has started Python and imported everything; then it binds its ports, joins, listens and answers",
        f"{BROWSERS} browsers read and change their sessions at the {SERVERS} servers all the time",
        "Tomcat: the same number of sessions on 4 cores; its newcomer answers only when it holds them",
        f"before this run {busy:.1f} processes wanted one of {os.cpu_count()} processors",
    ]
    return Shown("join", figures, notes)
