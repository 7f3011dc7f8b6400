"""What stands in for the world in tests of the core: a clock, a browser, and the other holders of a session.

`FakeBackend` plays every other holder at once: one more copy of each record, which obeys the rules that real holders obey
(`record.apply`, `record.merge`). It can be unreachable, keep silent about a push, lose it, or wait before it answers; it
writes down whatever it is asked, in order. `FakeBrowser` keeps cookies as RFC 6265 §5.3 wants, as far as two cookies
for one path need it.

Nothing here sleeps, reads a clock or opens a socket.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from sessile import codec
from sessile.backend import Acknowledged, Change, Ended, Pulled, PullStatus, Whole
from sessile.delta import Delta, Outcome, apply
from sessile.engine import Engine
from sessile.record import Heads, Record, merge
from sessile.session import Limits, Opened, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sessile.token import SessionKey

__all__ = [
    "ELSEWHERE",
    "HERE",
    "KEY",
    "LIMITS",
    "SECRET",
    "FakeBackend",
    "FakeBrowser",
    "FakeClock",
    "FakeOpener",
    "cookie_names",
    "encoded",
    "make_engine",
    "make_pair",
    "make_record",
    "nobody",
    "open_session",
    "settled",
]

SECRET = "a secret of the tests, long enough"
KEY = b"\x01" * 16
HERE, ELSEWHERE = 7, 8
"""The tags of two writers."""
LIMITS = Limits(fields=8, value_bytes=100, session_bytes=400)


def encoded(**values: Any) -> dict[str, bytes]:
    """Fields as they stand in a record or a delta."""
    return {name: codec.encode(value) for name, value in values.items()}


def make_record(values: dict[str, Any], *, subject: str = "") -> Record:
    """A record with these fields, written at once by `HERE`."""
    born = Record.create(now_ms=0, idle_ms=1_000, deadline_ms=10_000, subject=subject)
    record, _ = born.write(HERE, encoded(**values), now_ms=0)
    return record


class FakeOpener:
    """Knows one session, and counts how often it was asked for it."""

    def __init__(self, opened: Opened, drawn: SessionKey = b"\x02" * 16) -> None:
        self.opened = opened
        self.drawn = drawn
        self.loads = self.batches = 0
        self.late: list[str] = []
        """What was refused since the head had left."""

    def load(self, session: Session) -> Opened:
        self.loads += 1
        return self.opened

    def draw_key(self, session: Session) -> SessionKey:
        return self.drawn

    def draw_batch(self) -> str:
        self.batches += 1
        return f"batch{self.batches}"

    def reload(self, session: Session) -> Awaitable[None]:
        raise AssertionError("nobody reloads it")

    def used(self, session: Session) -> None:
        """It has no clock."""

    async def until_ended(self, session: Session) -> None:
        """Nor an end."""

    def came_too_late(self, call: str) -> None:
        self.late.append(call)


def open_session(record: Record | None = None, *, limits: Limits = LIMITS, **opened: Any) -> Session:
    """A session without an engine that goes on from this record; without one, a new session."""
    if record is None:
        return Session(FakeOpener(Opened(**opened)), limits)
    return Session(FakeOpener(Opened(record, KEY, len(record.pack()), **opened)), limits)


class FakeClock:
    """Whole milliseconds that pass only when told to."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        assert seconds >= 0, "a clock never goes back"
        self.now_ms += round(seconds * 1000)


@dataclass
class FakeBackend:
    """The other holders of every session, as one more copy of each record."""

    is_holder: Callable[[SessionKey], bool] = lambda _: True
    """Whether this process holds a session."""
    is_first: Callable[[SessionKey], bool] = lambda _: True
    """Whether this process is the first holder of a session."""
    is_informed: bool = True
    """Whether this process hears of every change to what it holds, so that it may serve it without asking."""
    is_trusted: bool = True
    """Whether copies may be served where nobody answers."""
    unsettled: set[SessionKey] = field(default_factory=set)
    """What waits for confirmation, until somebody waits for it."""
    is_reachable: bool = True
    """Whether the others answer at all. A change that is pushed meanwhile reaches nobody."""
    is_confirming: bool = True
    """Whether the others confirm what they got."""
    lose: int = 0
    """So many of the next changes are lost on the way."""
    gate: asyncio.Event | None = None
    """What every answer waits for, when set."""
    records: dict[SessionKey, Record] = field(default_factory=dict)
    """What the others hold."""
    pulls: list[tuple[SessionKey, Record | None, Heads]] = field(default_factory=list)
    """What was asked: the key, the copy that was named, the heads that are to be covered."""
    pushes: list[tuple[Change, str]] = field(default_factory=list)
    """What was told, and how many holders were to confirm it."""
    waits: list[tuple[SessionKey, str]] = field(default_factory=list)
    """What was waited for without a change, and how many holders were to confirm it."""
    touches: list[tuple[SessionKey, int]] = field(default_factory=list)
    """What was touched, and when."""
    outcomes: list[Outcome] = field(default_factory=list)
    """What became of each delta that arrived."""

    is_running: ClassVar[bool] = True

    async def start(self) -> None:
        """It has no life of its own."""

    def start_in_thread(self) -> None:
        """Nor a thread."""

    async def stop(self) -> None:
        """Nor an end."""

    def status(self) -> dict[str, Any]:
        return {}

    def holds(self, key: SessionKey) -> bool:
        return self.is_holder(key)

    def is_first_holder(self, key: SessionKey) -> bool:
        return self.is_first(key)

    def is_sure(self, key: SessionKey, now_ms: int) -> bool:
        return self.is_informed and self.is_holder(key)

    def is_trusting(self) -> bool:
        return self.is_trusted

    def is_settled(self, key: SessionKey) -> bool:
        return key not in self.unsettled

    def is_confirmed(self, key: SessionKey) -> bool:
        return key not in self.unsettled

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        self.touches.append((key, touched_ms))

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        self.pulls.append((key, have, heads))
        await self._wait()
        if not self.is_reachable:
            return Pulled(PullStatus.UNREACHABLE)
        held = self.records.get(key)
        if held is None:
            return Pulled(PullStatus.NONE)
        if have is not None and merge(have, held).same_state(have) and have.touched_ms >= held.touched_ms:
            return Pulled(PullStatus.CURRENT)
        return Pulled(PullStatus.RECORD, held)

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        if change is None:
            self.waits.append((key, ack))
        else:
            assert change.key == key, "a change is about the session it is pushed for"
            self.pushes.append((change, ack))
        await self._wait()
        is_lost = change is not None and self.lose > 0
        self.lose -= is_lost
        if is_lost or not self.is_reachable:
            return Acknowledged.NO
        is_held = change is None or self._receive(change)
        if not (is_held and self.is_confirming):
            return Acknowledged.NO
        self.unsettled.discard(key)
        return Acknowledged.YES

    @property
    def changes(self) -> list[Change]:
        """What was told, in order."""
        return [change for change, _ in self.pushes]

    def _receive(self, change: Change) -> bool:
        """Follow the rules of a holder; returns whether the change is held now."""
        held = self.records.get(change.key)
        if isinstance(change, Whole | Ended):
            self.records[change.key] = change.record if held is None else merge(held, change.record)
            return True
        assert isinstance(change, Delta), f"{change!r} is no change"
        outcome, record = apply(held, change)
        self.outcomes.append(outcome)
        if record is not None:
            self.records[change.key] = record
        return outcome is not Outcome.NEED

    async def _wait(self) -> None:
        if self.gate is not None:
            await self.gate.wait()


class FakeBrowser:
    """A browser that talks to an engine as an adapter would, and keeps its cookies.

    Args:
        engine: whom it talks to; another one may be given for each request.
        is_https: whether its requests come over HTTPS.
    """

    def __init__(self, engine: Engine, *, is_https: bool = False) -> None:
        self.engine = engine
        self.is_https = is_https
        self.cookies: dict[str, str] = {}

    @property
    def header(self) -> bytes:
        """Its Cookie header."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode()

    @property
    def key(self) -> SessionKey:
        """The key of its session, which is held by its engine."""
        visitor = self.engine._identify(self.engine.open((self.header,), is_https=self.is_https).visit)
        assert visitor is not None, "it is in a session"
        return visitor.identity.key

    def open(self, engine: Engine | None = None) -> Session:
        """Begin a request: what the other holders have to say is asked for."""
        engine = engine or self.engine
        headers = (self.header,) if self.cookies else ()
        session = engine.open(headers, is_https=self.is_https)
        if engine.backend is not None:
            asyncio.run(engine.prepare(session))
        return session

    def finish(self, session: Session, engine: Engine | None = None) -> list[bytes]:
        """End a request: commit, wait for the other holders, keep the cookies; returns the Set-Cookie values."""
        engine = engine or self.engine
        steps = engine.commit(session)
        if steps:
            asyncio.run(engine.settle(steps))
        cookies = engine.cookies(session)
        self.keep(cookies)
        return cookies

    @contextmanager
    def request(self, engine: Engine | None = None) -> Iterator[Session]:
        """A whole request, whose handler is the body of the `with`; one that raises is never finished."""
        session = self.open(engine)
        yield session
        self.finish(session, engine)

    def look(self) -> dict[str, Any]:
        """What its next request finds."""
        with self.request() as session:
            return dict(session)

    def keep(self, set_cookies: list[bytes]) -> None:
        """Keep, replace or forget a cookie for each Set-Cookie value."""
        for set_cookie in set_cookies:
            pair, _, attributes = set_cookie.decode().partition(";")
            name, _, value = pair.partition("=")
            self.cookies.pop(name, None)
            if "max-age=0" not in attributes.lower():
                self.cookies[name] = value

    def copy(self) -> FakeBrowser:
        """Another tab, or a thief: the same cookies from now on, each its own later ones."""
        other = FakeBrowser(self.engine, is_https=self.is_https)
        other.cookies = dict(self.cookies)
        return other


def cookie_names(set_cookies: list[bytes]) -> list[str]:
    """The names that these Set-Cookie values set, sorted."""
    return sorted(cookie.decode().partition("=")[0] for cookie in set_cookies)


def settled(engine: Engine, **values: Any) -> FakeBrowser:
    """A browser that is in a session with these values."""
    browser = FakeBrowser(engine)
    with browser.request() as session:
        session.update(values)
    return browser


def make_engine(*, clock: FakeClock | None = None, seed: int = 1, **options: Any) -> Engine:
    """An engine on a fake clock that draws the same bytes in every run; `options` are its own and settings by name."""
    keywords: dict[str, Any] = {"secret": SECRET, **options}
    return Engine(clock_ms=clock or FakeClock(), draw=Random(seed).randbytes, **keywords)


def make_pair(backend: FakeBackend | None = None, **options: Any) -> tuple[FakeBackend, Engine]:
    """An engine and the other holders it talks to."""
    backend = backend or FakeBackend()
    return backend, make_engine(backend=backend, **options)


def nobody(_: SessionKey) -> bool:
    """Says of no session that it is held here."""
    return False
