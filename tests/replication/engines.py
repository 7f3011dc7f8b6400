"""Servers whose requests are made step by step: real engines on the nodes of a `Cluster`, and browsers that keep cookies.

A request is opened, changed and finished in separate steps, so that a scenario can put anything between them. What a
request waits for passes through its server's node; `wait` lets time pass until it is there.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from sessile.engine import Engine
from sessile.replication.config import NodeConfig
from sessile.replication.events import AddressesFound, ChangePushed, PullAsked, SessionTouched
from sessile.replication.node import Node
from sessile.simulation.asking import InProcess
from tests.replication.cluster import Cluster, Server

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from sessile.backend import Acknowledged, Change, Pulled
    from sessile.record import Heads, Record
    from sessile.session import Session
    from sessile.token import SessionKey

__all__ = ["Browser", "Engines"]

SECRET = "the secret of the scenarios k3Vn8Xw1"


class _Ticket:
    """What a request waits for."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __await__(self) -> Generator[_Ticket, Any, Any]:
        return (yield self)


class _Backend(InProcess):
    """The other holders, by way of the server's node."""

    def __init__(self, cluster: Engines, name: str) -> None:
        self._cluster = cluster
        self._name = name

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        self._cluster.handle(self._name, SessionTouched(key, touched_ms))

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        del have
        answer: Pulled = await _Ticket(self._cluster._ask(self._name, lambda ticket: PullAsked(ticket, key, heads)))
        return answer

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        number = self._cluster._ask(self._name, lambda ticket: ChangePushed(ticket, key, change, ack))
        answer: Acknowledged = await _Ticket(number)
        return answer


class Browser:
    """A cookie jar: what arrives last is kept."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}

    @property
    def header(self) -> bytes:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode()

    def keep(self, set_cookies: list[bytes]) -> None:
        for set_cookie in set_cookies:
            name, _, value = set_cookie.decode().partition(";")[0].partition("=")
            self.cookies.pop(name, None)
            if "max-age=0" not in set_cookie.decode().lower():
                self.cookies[name] = value


class Engines(Cluster):
    """A cluster whose servers have engines."""

    def __init__(self, names: str = "abc", **config: Any) -> None:
        self.engines: dict[str, Engine] = {}
        super().__init__(names, **config)

    def start(self, name: str, *, incarnation: int = 1) -> Server:
        rng = Random(f"{name}/{incarnation}")
        backend = _Backend(self, name)
        engine = self.engines[name] = Engine(
            secret=SECRET, backend=backend, clock_ms=lambda: self.now_ms, draw=rng.randbytes, sweeps=False
        )
        config = NodeConfig(name=name, host=f"host-{name}", incarnation=incarnation, **self.config)
        node = backend.node = Node(config, engine.table, rng=rng, now_ms=self.now_ms)
        server = self.servers[name] = Server(name, node, engine.table, 0)
        self.handle(name, AddressesFound(self._addresses))
        return server

    # -- requests ----------------------------------------------------------------------------------------------------

    def open(self, name: str, browser: Browser) -> Session:
        """A request begins: its session, as the handler gets it."""
        engine = self.engines[name]
        session = engine.open((browser.header,) if browser.cookies else (), is_https=False)
        self.wait(name, engine.prepare(session))
        return session

    def finish(self, name: str, browser: Browser, session: Session) -> None:
        """A request ends: what the handler did is kept, and the browser gets its cookies."""
        engine = self.engines[name]
        steps = engine.commit(session)
        if steps:
            self.wait(name, engine.settle(steps))
        browser.keep(engine.cookies(session))

    def finish_together(self, *requests: tuple[str, Browser, Session]) -> None:
        """Several requests end at the same moment: all are committed before anybody hears of any."""
        running = [(name, browser, session, self.engines[name].commit(session)) for name, browser, session in requests]
        waiting = [(name, self.engines[name].settle(steps)) for name, _, _, steps in running]
        for name, coroutine in waiting:
            self.wait(name, coroutine)
        for name, browser, session, _ in running:
            browser.keep(self.engines[name].cookies(session))

    def request(self, name: str, browser: Browser, **values: Any) -> dict[str, Any]:
        """A whole request that assigns these values; returns what its handler saw, with them."""
        session = self.open(name, browser)
        session.update(values)
        seen = dict(session)
        self.finish(name, browser, session)
        return seen

    def wait(self, name: str, coroutine: Coroutine[Any, Any, None], *, at_most_ms: int = 2_000) -> None:
        """Let time pass until a step of a request is over."""
        answer: object = None
        until_ms = self.now_ms + at_most_ms
        while True:
            try:
                ticket = coroutine.send(answer)
            except StopIteration:
                return
            while (answer := self.answer(name, ticket.number)) is None:
                assert self.now_ms < until_ms, f"a request at {name} waits for ever"
                self.run(1)
