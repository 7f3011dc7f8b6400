"""`exact-round-robin`: no stickiness anywhere, and still every change counts.

One browser counts its session up through the balancer, which hands every request to the next server; then many browsers
send requests in parallel to all servers, and each sets a field of its own, or increments a common one. Sequential
requests are exact answer by answer; what was sent in parallel is complete on every server a second later. Nothing is ever
sent twice, and ack is what it is by default: `one`. On the strategy `store` the same with a Redis that has two replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.browser import Browser
from bench.running import demo, has_replicas
from bench.show import Figure, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from bench.running import Running

SUMMARY = "Without stickiness: 2 000 counts are 2 000, 4 000 parallel writes are 4 000 on every server, and increments are exact."

PROGRAMS = ("redis-server",)

STRATEGIES: Final = ("all-to-all", "primary-backup", "store")
LATE: Final = {"all-to-all": "ack=all", "primary-backup": "ack=all", "store": "cache=checked"}
"""With which setting what is changed after the head is known everywhere before the last byte has left."""
SERVERS: Final = 3
COUNTS: Final = 2_000
SESSIONS: Final = 250
ROUNDS: Final = 2
PARALLEL: Final = 8
COUNTED_SESSIONS: Final = 50
COUNTED_ROUNDS: Final = 5
AT_ONCE: Final = 10
"""So many browsers at a time, each with its parallel requests."""
SETTLE_S: Final = 1.0

WAYS: Final = {"": "counts", "early": "counts answered early"}
"""How the answer leaves: with the handler's end, or while the handler still runs."""

Peer = tuple[str, float]
PEERS: Final[dict[tuple[str, str], Peer]] = {
    ("all-to-all", "counts"): ("Tomcat DeltaManager", 876),
    ("all-to-all", "counts answered early"): ("Tomcat DeltaManager, synchronous acks", 746),
    ("all-to-all", "values"): ("Tomcat DeltaManager", 27),
    ("primary-backup", "counts"): ("Tomcat BackupManager", 0),
    ("primary-backup", "counts answered early"): ("Tomcat BackupManager", 83),
    ("primary-backup", "values"): ("Tomcat BackupManager", 1_910),
}
"""What was lost there in the same test, and on the server that lacked the most: medians of three runs or four."""


@dataclass(slots=True)
class Counted:
    """What came of counting one session up, one request after the other."""

    requests: int
    failed: int = 0
    wrong: int = 0
    """Answers that told something else than one more than the answer before."""
    servers: set[str] = field(default_factory=set)
    last: dict[str, int] = field(default_factory=dict)
    """Server → what it tells at the end."""

    @property
    def lost(self) -> int:
        """How much is missing on the server that is the furthest from the truth; less than nothing for what is too much."""
        return max((self.requests - each for each in self.last.values()), key=abs, default=self.requests)


@dataclass(slots=True)
class Gathered:
    """What came of many sessions, each written to in parallel."""

    requests: int
    failed: int = 0
    found: dict[str, int] = field(default_factory=dict)
    """Server → how many of the writes it shows when all is settled."""

    @property
    def missing(self) -> int:
        """The same of these."""
        return max((self.requests - each for each in self.found.values()), key=abs, default=self.requests)


async def count_up(port: int, ports: dict[str, int], requests: int, answer: str = "") -> Counted:
    """Count one session up through the balancer, and read it at every server."""
    browser = Browser(port)
    counted = Counted(requests)
    expected = 0
    await browser.ask("POST", "/api/set?name=n&value=")  # a session that begins after the head has no cookie at all
    await browser.ask("POST", "/api/remove?name=n")
    for _ in range(requests):
        status, told = await browser.ask("POST", f"/api/count?name=n&answer={answer}")
        expected += 1
        if status != 200:
            counted.failed += 1
            continue
        counted.servers.add(told["server"])
        if told["fields"] != {"n": expected}:
            counted.wrong += 1
            expected = told["fields"].get("n", 0)
    async for server, fields in read_everywhere(ports, browser.cookies):
        counted.last[server] = fields.get("n", 0)
    browser.close()
    return counted


async def read_everywhere(
    ports: dict[str, int], cookies: dict[bytes, bytes]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """What every server says is in the session of these cookies."""
    for server, port in ports.items():
        browser = Browser(port, dict(cookies))
        status, told = await browser.ask("GET", "/api/session")
        browser.close()
        yield server, told["fields"] if status == 200 else {}


def value_path(turn: int, place: int) -> str:
    """A request with a field of its own."""
    return f"/api/set?name={turn}-{place}&value={turn}-{place}"


def increment_path(turn: int, place: int) -> str:
    """The same request for everybody."""
    del turn, place
    return "/api/increment?name=n"


def values_in(fields: dict[str, Any]) -> int:
    """How many of the fields hold what was written to them."""
    return sum(value == name for name, value in fields.items())


def increments_in(fields: dict[str, Any]) -> int:
    """How often the session was incremented."""
    found: int = fields.get("n", 0)
    return found


async def write_in_parallel(
    ports: dict[str, int],
    *,
    sessions: int,
    rounds: int,
    path: Callable[[int, int], str],
    found_in: Callable[[dict[str, Any]], int],
) -> Gathered:
    """Let many browsers write, `PARALLEL` requests at a time over all servers; look everywhere when all is settled."""
    gathered = Gathered(sessions * rounds * PARALLEL, found=dict.fromkeys(ports, 0))
    addresses = list(ports.values())
    waiting = iter(range(sessions))
    jars: list[dict[bytes, bytes]] = []

    async def one_browser() -> None:
        tabs = [Browser(addresses[place % len(addresses)]) for place in range(PARALLEL)]
        for number in waiting:
            jar: dict[bytes, bytes] = {}
            jars.append(jar)
            for tab in tabs:
                tab.cookies = jar
            await tabs[number % len(tabs)].ask("POST", "/api/set?name=begun&value=")
            for turn in range(rounds):
                asked = [tab.ask("POST", path(turn, place)) for place, tab in enumerate(tabs)]
                answers = await asyncio.gather(*asked)
                gathered.failed += sum(status != 200 for status, _ in answers)
        for tab in tabs:
            tab.close()

    await asyncio.gather(*(one_browser() for _ in range(AT_ONCE)))
    await asyncio.sleep(SETTLE_S)
    for jar in jars:
        async for server, fields in read_everywhere(ports, jar):
            gathered.found[server] += found_in(fields)
    return gathered


def exactly(name: str, value: float, wanted: float, peer: Peer | None = None) -> Figure:
    """A figure that is promised to the last digit."""
    told = ("", None) if peer is None else peer
    return Figure(name, value, "", f"= {wanted:g}", value == wanted, *told)


def judge_counted(strategy: str, way: str, counted: Counted) -> list[Figure]:
    """Every answer is exact, every server was asked, and nothing is lost."""
    about = f"{strategy}, {way}"
    return [
        exactly(f"{about}: requests that failed", counted.failed, 0),
        exactly(f"{about}: servers that answered", len(counted.servers), len(counted.last)),
        exactly(f"{about}: answers that were not exact", counted.wrong, 0),
        exactly(f"{about}: lost of {counted.requests}", counted.lost, 0, PEERS.get((strategy, way))),
    ]


def judge_gathered(strategy: str, what: str, gathered: Gathered) -> list[Figure]:
    """All of it is there, on every server."""
    about = f"{strategy}, parallel {what}"
    return [
        exactly(f"{about}: requests that failed", gathered.failed, 0),
        exactly(f"{about}: servers looked at", len(gathered.found), SERVERS),
        exactly(
            f"{about}: not shown by the server that lacks the most, of {gathered.requests}",
            gathered.missing,
            0,
            PEERS.get((strategy, what)),
        ),
    ]


def judge_late(strategy: str, counted: Counted, setting: str) -> list[Figure]:
    """What is changed when the head has left is in no cookie: only `LATE` makes sure that the next server knows it."""
    about = f"{strategy}, counts after the head, {setting}"
    lost = f"{about}: lost of {counted.requests}"
    return [
        exactly(f"{about}: requests that failed", counted.failed, 0),
        exactly(lost, counted.lost, 0) if setting == LATE[strategy] else Figure(lost, counted.lost),
    ]


@contextlib.contextmanager
def set_to(setting: str) -> Iterator[None]:
    """Demos started meanwhile have servers with this setting."""
    name, _, value = setting.partition("=")
    variable = f"SESSILE_{name.upper()}"
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]


async def show(progress: Progress) -> Shown:
    """Every strategy, each on fresh processes."""
    figures: list[Figure] = []
    for strategy in STRATEGIES:
        async with demo(routing="round-robin", servers=SERVERS, strategy=strategy) as running:
            await has_replicas(strategy, running)
            figures += await show_strategy(strategy, running, progress)
        with set_to(LATE[strategy]):
            async with demo(routing="round-robin", servers=SERVERS, strategy=strategy) as running:
                progress(f"{strategy}: {COUNTS} counts after the head of the answer has left, {LATE[strategy]}")
                counted = await count_up(running.port, await running.server_ports(), COUNTS, "late")
                figures += judge_late(strategy, counted, LATE[strategy])
    return Shown("exact-round-robin", figures, _NOTES)


async def show_strategy(strategy: str, running: Running, progress: Progress) -> list[Figure]:
    """Everything that is shown with the default ack."""
    figures: list[Figure] = []
    ports = await running.server_ports()
    for answer, way in WAYS.items():
        progress(f"{strategy}: {COUNTS} {way}, one after the other through the balancer")
        figures += judge_counted(strategy, way, await count_up(running.port, ports, COUNTS, answer))
    progress(f"{strategy}: {COUNTS} counts after the head of the answer has left")
    figures += judge_late(strategy, await count_up(running.port, ports, COUNTS, "late"), "ack=one")
    progress(f"{strategy}: {SESSIONS} sessions, {ROUNDS} x {PARALLEL} parallel writes each, over {SERVERS} servers")
    gathered = await write_in_parallel(ports, sessions=SESSIONS, rounds=ROUNDS, path=value_path, found_in=values_in)
    figures += judge_gathered(strategy, "values", gathered)
    progress(f"{strategy}: {COUNTED_SESSIONS} sessions, {COUNTED_ROUNDS} x {PARALLEL} parallel increments each")
    gathered = await write_in_parallel(
        ports, sessions=COUNTED_SESSIONS, rounds=COUNTED_ROUNDS, path=increment_path, found_in=increments_in
    )
    return [*figures, *judge_gathered(strategy, "increments", gathered)]


_NOTES: Final = [
    f"{SERVERS} server processes and the balancer, started by `sessile demo --routing round-robin`; ack=one, the default",
    "answered early: the whole answer leaves while the handler still runs; Tomcat's figures there are for flushed answers",
    "after the head: the change is confirmed before the last byte, but no cookie tells of it",
    "so where one confirmation is enough a third server may miss it for a moment; this is documented",
    "store: Redis with two replicas and three sentinels; a leased copy may miss such a change for a moment, a checked one not",
    "Tomcat 10.1.60, 3 nodes, the same tests; DeltaManager with its defaults where no acks are named",
    "of BackupManager's 4 000 parallel values 1 798 are on no server at all; DeltaManager's are each on some server",
]


def run(progress: Progress) -> Shown:
    """Start the demos, use them, and judge what was answered."""
    return asyncio.run(show(progress))
