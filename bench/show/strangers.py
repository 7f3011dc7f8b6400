"""`strangers`: what anybody can do to a server who reaches the port of its node, with the cluster's secret and without.

Without it: garbage, silence, TLS without a certificate or with one that another secret made. With it, over links that are
proven and have greeted: random, mutated, cut, spliced and repeated frames, frames that announce more than comes, and streams that
end in the middle. Meanwhile browsers go on reading their sessions, at that server and the others. A frame never speaks of a session
that there is, so all of them must be as they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from bench import wire
from bench.browser import Browser
from bench.members import STRATEGIES, cluster, quantile
from bench.show import Figure, Progress, Shown
from sessile.errors import WireError
from sessile.network import tls
from sessile.replication.messages import PROTOCOL, Answered, Hello, MemberInfo, Members, Pull, Rejoin
from sessile.replication.wire import FRAME_BYTES_MAX, HELLO_BYTES_MAX, LENGTH_BYTES, Frames, decode, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.members import Cluster

SUMMARY = "100 000 cases of garbage, silence, false certificates and bad frames: the node lives, sessions and memory as before."

CASES: Final = {
    "garbage": 40_000,
    "silence": 2_000,
    "no certificate": 1_500,
    "another's certificate": 1_500,
    "frames": 4_000,
    "streams that end": 1_000,
}
"""Under each strategy."""
SERVERS: Final = 3
SESSIONS: Final = 1_000
BROWSERS: Final = 6
PAUSE_S: Final = 0.02
WARM: Final = 0.2
"""Memory is looked at after this part of the cases, and at the end."""
AT_ONCE: Final = 8
LISTENS_S: Final = 10.0
SHAKING: Final[dict[str, Any]] = {"ssl_shutdown_timeout": 1.0}
"""A handshake that failed must not keep its socket until after the end."""
GROWTH_BYTES_MAX: Final = 8 * 2**20
TLS_ALERT: Final = 21
"""The type of a record that tells why a handshake failed (RFC 8446 §5.1): nothing of ours is in it."""
INSIDERS: Final = tuple(f"127.0.0.1:{port}" for port in (1, 7, 9, 13))
"""What nodes with the secret call themselves: nobody listens there. A node keeps one link to each name."""


@dataclass
class Found:
    """What came of one strategy."""

    cases: Counter[str] = field(default_factory=Counter)
    leaked: int = 0
    """Bytes that somebody without the secret was sent, alerts of TLS aside."""
    unanswered: Counter[str] = field(default_factory=Counter)
    """Cases after which the node did not do what it should, by what it should have done."""
    hung_up: int = 0
    changed: int = 0
    """Sessions that are not as they were, or not where they were."""
    is_alive: bool = False
    growth_bytes: int = 0
    taken_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    """Requests of browsers, by what they were answered."""


class Attack:
    """Everything that is done to one node."""

    def __init__(self, group: Cluster, found: Found) -> None:
        host, _, port = group.members[0].address.rpartition(":")
        self._where = (host, int(port))
        self._strategy = "all-to-all" if group.strategy == "all-to-all" else "primary-backup:2"
        self._found = found
        self._rng = Random(4)
        self._incarnations = itertools.count(1)
        self._tickets = itertools.count(1)
        self._insider = tls.contexts([group.secret.encode()], "sessile", INSIDERS[0]).client
        self._nobody = _believing(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._foreign = _believing(tls.contexts([b"Qm2xV9tL4rYw7sKd8HnP3fJz6bGc1aTe"], "sessile", INSIDERS[0]).client)
        self._payloads = [encode(message)[LENGTH_BYTES:] for message in wire.examples().values()]

    # -- without the secret --------------------------------------------------------------------------------------------

    async def garbage(self) -> None:
        """Bytes that are no TLS, some of which look as if they began as such."""
        begins = self._rng.choice(
            (b"", b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n", b"\x80")
        )
        reader, writer = await asyncio.open_connection(*self._where)
        with contextlib.suppress(OSError):
            writer.write(begins + self._rng.randbytes(self._rng.choice((1, 5, 60, 600, 3_000))))
            if self._rng.random() < 0.5:  # half of them wait for what comes, the others go at once
                writer.write_eof()
                await self._take(reader)
        await _close(writer)

    async def silence(self) -> None:
        """Nothing is said; whoever waits for it is hung up."""
        reader, writer = await asyncio.open_connection(*self._where)
        if self._rng.random() < 0.02:
            await self._take(reader)
        await _close(writer)

    async def no_certificate(self) -> None:
        """A handshake by somebody who has nothing to show."""
        await self._shake(self._nobody)

    async def another_s_certificate(self) -> None:
        """A handshake by a member of another cluster."""
        await self._shake(self._foreign)

    async def _shake(self, context: ssl.SSLContext) -> None:
        hello = encode(self._hello(INSIDERS[0]))
        try:
            reader, writer = await asyncio.open_connection(*self._where, ssl=context, server_hostname="", **SHAKING)
        except (OSError, ssl.SSLError):
            return
        with contextlib.suppress(OSError, ssl.SSLError):
            writer.write(hello)
            told = await asyncio.wait_for(reader.read(1_000), LISTENS_S)
            self._found.leaked += len(told)
            self._found.unanswered["hang up on a stranger"] += bool(told)
        await _close(writer)

    async def _take(self, reader: asyncio.StreamReader) -> None:
        """All that comes in the clear: nothing but alerts may."""
        try:
            told = await asyncio.wait_for(reader.read(100_000), LISTENS_S)
        except TimeoutError:
            self._found.unanswered["hang up on who says nothing of use"] += 1
            return
        except OSError:
            return
        self._found.leaked += len(told) if told[:1] not in {b"", bytes([TLS_ALERT])} else 0

    # -- with the secret -----------------------------------------------------------------------------------------------

    async def frames(self, name: str, count: int) -> None:
        """Frames one after the other; after each the node answers a question, or has hung up."""
        link: _Link | None = None
        thrown = wire.frames(self._rng, self._payloads)
        try:
            for _ in range(count):
                link = link or await self._link(name)
                payload = next(payload for _, payload in thrown if not is_order(payload))
                if not await link.throw(_framed(payload), next(self._tickets)):
                    self._found.hung_up += 1
                    await link.close()
                    link = None
                self._found.cases["frames"] += 1
        except TimeoutError:
            self._found.unanswered["answer or hang up"] += 1
        finally:
            if link is not None:
                await link.close()

    async def streams_that_end(self) -> None:
        """A frame that announces much more than comes, before the greeting or after it."""
        is_greeted = self._rng.random() < 0.5
        announced = self._rng.randrange(2_000, FRAME_BYTES_MAX if is_greeted else 2 * HELLO_BYTES_MAX)
        link = await self._link(INSIDERS[0] if is_greeted else "")
        link.send(announced.to_bytes(LENGTH_BYTES, "big") + bytes(self._rng.choice((0, 10, 1_999, 60_000))))
        await link.close()

    async def _link(self, name: str) -> _Link:
        """A link that is proven; it greets under this name, or not at all."""
        for _ in range(100):
            try:
                link = _Link(
                    *await asyncio.open_connection(*self._where, ssl=self._insider, server_hostname="", **SHAKING)
                )
            except (OSError, ssl.SSLError):
                await asyncio.sleep(0.05)  # there are as many who have not greeted as may be
                continue
            if name:
                link.send(encode(self._hello(name)))
            return link
        raise TimeoutError

    def _hello(self, name: str) -> Hello:
        me = MemberInfo(name, "stranger", next(self._incarnations))
        return Hello(PROTOCOL, "sessile", self._strategy, me, 0, is_fresh=False, members=())


class _Link:
    """A link that is proven, as its other side has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._cutter = Frames()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._writer.write(data)

    async def throw(self, frame: bytes, ticket: int) -> bool:
        """Send a frame and a question after it; False when it was hung up."""
        self.send(frame + encode(Pull(ticket, ticket.to_bytes(16, "big"), ())))
        async with asyncio.timeout(LISTENS_S):
            while True:
                try:
                    data = await self._reader.read(65_536)
                except (OSError, ssl.SSLError):
                    return False
                if not data:
                    return False
                for payload in self._cutter.feed(data):
                    message = decode(payload, is_greeting=payload[1] == 1)
                    if isinstance(message, Answered) and message.ticket == ticket:
                        return True

    async def close(self) -> None:
        await _close(self._writer)


def is_order(payload: bytes) -> bool:
    """Whether a frame came out as what a member may rightly tell others to do, beyond the sessions it speaks of.

    `Members` names addresses, which are dialled; `Rejoin` makes a node start over.
    """
    with contextlib.suppress(WireError):
        return isinstance(decode(payload), Members | Rejoin)
    return False


def _framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def _believing(context: ssl.SSLContext) -> ssl.SSLContext:
    """One that takes whatever certificate the other side shows, to get as far as it can."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


async def several(count: int, one: Callable[[], Awaitable[None]], found: Found, name: str) -> None:
    """So many of a kind, some at once."""
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            try:
                await one()
            except OSError:
                await asyncio.sleep(0.01)  # refused: it counts, since nobody was let in
            except TimeoutError:
                found.unanswered["let a member in"] += 1
            found.cases[name] += 1

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def browse(browser: Browser, user: str, found: Found) -> None:
    """Read one session for ever."""
    try:
        while True:
            began = time.monotonic()
            status, told = await browser.ask("GET", "/api/session")
            found.taken_s.append(time.monotonic() - began)
            if status != 200 or told["fields"].get("user") != user:
                found.failed[f"{status} {'' if told is None else told.get('key', told)}".strip()] += 1
            await asyncio.sleep(PAUSE_S)
    finally:
        browser.close()


def differing(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> int:
    """Sessions of which some server has another state than before, or that some server which held it does not hold."""
    return len(
        {
            key
            for then, now in zip(before, after, strict=True)
            for key, (state, value, is_holder) in then.items()
            if is_holder and now.get(key, [None, None])[:2] != [state, value]
        }
    )


async def play(strategy: str, cases: dict[str, int], progress: Progress) -> Found:
    """All of it, under one strategy."""
    found = Found()
    async with cluster(strategy, SERVERS) as group:
        progress(f"{strategy}: {SESSIONS} sessions are made")
        jars = await group.fill(SESSIONS, BROWSERS)
        await asyncio.sleep(3)
        before = [await member.ask("/bench/contents") for member in group.members]
        pid = group.members[0].pid
        tasks = []
        for member, jar in jars:
            browser = Browser(member.port, jar)
            _, told = await browser.ask("GET", "/api/session")
            tasks.append(asyncio.create_task(browse(browser, told["fields"]["user"], found)))
        attack = Attack(group, found)
        warm_bytes = 0
        for part in (WARM, 1 - WARM):
            for name, make in kinds(attack).items():
                count = round(cases[name] * part)
                progress(f"{strategy}: {count} times {name}")
                if make is None:
                    await asyncio.gather(*(attack.frames(insider, count // len(INSIDERS)) for insider in INSIDERS))
                else:
                    await several(count, make, found, name)
            resident = int((await group.members[0].ask("/bench/size"))["resident_bytes"])
            found.growth_bytes, warm_bytes = resident - warm_bytes, resident
        await asyncio.sleep(4)  # the last stranger is dead, and nothing is its to hold any more
        found.changed = differing(before, [await member.ask("/bench/contents") for member in group.members])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        child = group.members[0].child
        found.is_alive = child is not None and child.is_alive and child.pid == pid
    return found


def kinds(attack: Attack) -> dict[str, Callable[[], Awaitable[None]] | None]:
    """Name → one case of it; None for frames, which share links."""
    return {
        "garbage": attack.garbage,
        "silence": attack.silence,
        "no certificate": attack.no_certificate,
        "another's certificate": attack.another_s_certificate,
        "frames": None,
        "streams that end": attack.streams_that_end,
    }


def judged(strategy: str, found: Found, wanted: int) -> list[Figure]:
    """The figures of one strategy, with their bounds."""

    def exactly(what: str, value: int) -> Figure:
        return Figure(f"{strategy}: {what}", value, "", "= 0", value == 0)

    total = found.cases.total()
    return [
        Figure(f"{strategy}: cases", total, "", f">= {wanted}", total >= wanted),
        Figure(f"{strategy}: of them frames answered by hanging up", found.hung_up),
        Figure(f"{strategy}: the node lives", int(found.is_alive), "", "= 1", found.is_alive),
        exactly("bytes told to somebody without the secret", found.leaked),
        exactly("times it did not answer or hang up as it should", found.unanswered.total()),
        exactly("sessions that are not as they were", found.changed),
        Figure(
            f"{strategy}: growth of its memory after the first fifth", found.growth_bytes / 2**20, "MB",
            f"<= {GROWTH_BYTES_MAX // 2**20}", found.growth_bytes <= GROWTH_BYTES_MAX,
        ),
        Figure(f"{strategy}: requests answered meanwhile", len(found.taken_s), "", "> 0", bool(found.taken_s)),
        exactly("requests that failed meanwhile", found.failed.total()),
        Figure(f"{strategy}: median answer meanwhile", quantile(found.taken_s, 0.5) * 1_000, "ms"),
        Figure(f"{strategy}: worst answer meanwhile", max(found.taken_s, default=0) * 1_000, "ms"),
    ]  # fmt: skip


def run(progress: Progress) -> Shown:
    """Both strategies, one after the other."""
    figures: list[Figure] = []
    notes = [
        f"{SERVERS} servers with TLS from the secret, {SESSIONS} sessions, {BROWSERS} browsers that read; one node is attacked",
        "each strategy: " + ", ".join(f"{count} times {name}" for name, count in CASES.items()),
        "frames come over links proven by the secret, after a greeting; after each the node must answer a question or hang up",
        "not among them: what members may order each other, to dial an address or to start over (Members, Rejoin)",
    ]
    for strategy in STRATEGIES:
        found = asyncio.run(play(strategy, CASES, progress))
        figures += judged(strategy, found, sum(CASES.values()))
        notes += [f"{strategy}: {count} times it did not {what}" for what, count in found.unanswered.items() if count]
        notes += [f"{strategy}: {count} times a browser was answered {what}" for what, count in found.failed.items()]
    return Shown("strangers", figures, notes)
