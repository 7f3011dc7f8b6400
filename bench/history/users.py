"""Browsers that make the requests of a history: one after the other or several at once, and now and then a thief.

Each browser has one jar of cookies and a few tabs. Requests go through the balancer, or to one server. What the handlers
are asked to do is unique where it can be, so that every value can be traced to its request. Nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from bench.browser import Browser
from bench.history.operations import Operation, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

__all__ = ["Recorder", "User"]

TABS: Final = 4
THINK_S: Final = 0.12
"""What is between two requests of a browser, on average."""
BURST_CHANCE: Final = 0.2
DIRECT_CHANCE: Final = 0.3
"""How often several tabs ask at once, and how often a request goes to some server without the balancer."""
STEAL_CHANCE: Final = 0.1
REPLAY_CHANCE: Final = 0.06
"""How often a jar is copied, and how often a copy is used."""
COPIES_MAX: Final = 6
FIELDS_MAX: Final = 120
"""With so many fields, most of them traces, a session is logged out: a session holds no more than 256."""
_WEIGHTS: Final = {Verb.READ: 30, Verb.INCREMENT: 26, Verb.SET: 18, Verb.COUNT: 14, Verb.LOGIN: 5, Verb.LOGOUT: 3}
_BEGINNINGS: Final = (Verb.SET, Verb.COUNT, Verb.INCREMENT, Verb.LOGIN)


class Recorder:
    """Everything that was asked, in the order in which it was over."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.issued = 0
        self._began_s = time.monotonic()

    @property
    def now_ms(self) -> int:
        """Since it began."""
        return round((time.monotonic() - self._began_s) * 1_000)

    async def ask(self, browser: Browser, verb: Verb, name: str = "", value: str = "") -> Operation:
        """Make one request and record it; where there is no value, it gets one of its own."""
        self.issued += 1
        number = self.issued
        asked = Operation(number, verb, name, value or f"v{number}", dict(browser.cookies), self.now_ms)
        asked.status, asked.told = await browser.ask(asked.method, asked.path)
        asked.answered_ms, asked.given = self.now_ms, browser.given
        self.operations.append(asked)
        return asked


class User:
    """One browser and whoever has copies of its cookies.

    Args:
        recorder: of all requests.
        port: the balancer's.
        ports: the servers'.
        rng: what this user does next.
    """

    def __init__(self, recorder: Recorder, port: int, ports: Sequence[int], rng: Random) -> None:
        self._recorder = recorder
        self._port = port
        self._ports = ports
        self._rng = rng
        self._jar: dict[bytes, bytes] = {}
        self._tabs = [Browser(port, self._jar) for _ in range(TABS)]
        self._copies: list[dict[bytes, bytes]] = []
        self._fields = 0
        """How many the session had when it was last seen."""

    async def go_on(self, while_: Callable[[], bool]) -> None:
        """Make requests as long as it is wanted."""
        rng = self._rng
        await asyncio.sleep(rng.random() * THINK_S)
        while while_():
            if rng.random() < STEAL_CHANCE and self._jar:
                self._copies = [*self._copies, dict(self._jar)][-COPIES_MAX:]
            if rng.random() < REPLAY_CHANCE and self._copies:
                await self._replay()
            elif rng.random() < BURST_CHANCE:
                await asyncio.gather(*(self._ask(tab) for tab in self._tabs[: rng.randrange(2, TABS + 1)]))
            else:
                await self._ask(self._tabs[0])
            await asyncio.sleep(rng.random() * 2 * THINK_S)
        for tab in self._tabs:
            tab.close()

    async def _ask(self, tab: Browser) -> None:
        self._aim(tab)
        verb = self._next()
        name = {Verb.SET: self._rng.choice(("mine", "yours")), Verb.COUNT: "visits", Verb.INCREMENT: "hits"}.get(
            verb, ""
        )
        asked = await self._recorder.ask(tab, verb, name)
        if asked.status == 200 and asked.told is not None:
            self._fields = len(asked.told["fields"])

    async def _replay(self) -> None:
        """Somebody comes with a copy of the cookies, and keeps what the answer sets to themselves."""
        thief = Browser(self._port, dict(self._rng.choice(self._copies)))
        self._aim(thief)
        await self._recorder.ask(thief, Verb.READ)
        thief.close()

    def _aim(self, browser: Browser) -> None:
        port = self._rng.choice(self._ports) if self._rng.random() < DIRECT_CHANCE else self._port
        if port != browser.port:
            browser.close()
            browser.port = port

    def _next(self) -> Verb:
        if not self._jar:
            return self._rng.choice(_BEGINNINGS)
        if self._fields > FIELDS_MAX:
            return Verb.LOGOUT
        return self._rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
