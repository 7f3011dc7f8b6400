"""How often a server asks while it waits for the end of a session that others hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessile.engine import ASK_S
from sessile.record import ENDED
from tests.fakes import FakeBackend, FakeClock, make_pair, nobody, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.session import Session
    from sessile.token import SessionKey

IDLE_S = 10
WAITS = 40


class Waiting:
    """A socket at a server that need not hold its session. Time passes only while it waits for the end."""

    def __init__(self, *, is_held: bool, meanwhile: Callable[[Waiting], object]) -> None:
        self.clock = FakeClock()
        self.backend, self.engine = make_pair(
            FakeBackend(), clock=self.clock, idle_timeout=IDLE_S, absolute_timeout=10_000
        )
        browser = settled(self.engine, a=1)
        self.key = browser.key
        self.backend.is_holder = nobody
        if not is_held:
            self.engine.table.drop(self.key)
        self.session: Session = self.engine.open((browser.header,), is_https=False, is_lasting=True)
        self.waits: list[float] = []
        self._meanwhile = meanwhile
        self.engine._watchers.wait = self._wait  # type: ignore[method-assign]  # of this one engine

    async def until_ended(self) -> None:
        await self.engine.prepare(self.session)
        assert self.session["a"] == 1
        await asyncio.wait_for(self.session.until_ended(), 10)

    async def _wait(self, key: SessionKey, timeout_s: float) -> None:
        assert key == self.key
        self.waits.append(timeout_s)
        self.clock.advance(timeout_s)
        self._meanwhile(self)
        if len(self.waits) == WAITS:
            self.backend.is_reachable = True
            self.end()

    def end(self) -> None:
        self.backend.records[self.key] = self.backend.records[self.key].end(ENDED, self.clock.now_ms)

    def use_elsewhere(self) -> None:
        self.backend.records[self.key] = self.backend.records[self.key].touch(self.clock.now_ms)

    def use(self) -> None:
        assert self.session["a"] == 1

    def lose_others(self) -> None:
        self.backend.is_reachable = False


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("use", [Waiting.use, Waiting.use_elsewhere, Waiting.lose_others])
def test_a_session_in_use_is_asked_for_every_few_seconds(use: Callable[[Waiting], object], is_held: bool) -> None:  # noqa: FBT001
    """Here, elsewhere, or where nobody can be asked: also when the time has passed that its record named at first."""
    it = Waiting(is_held=is_held, meanwhile=use)
    asyncio.run(it.until_ended())
    assert len(it.waits) == WAITS and max(it.waits) == ASK_S
    assert sum(it.waits) > (WAITS - 1) * ASK_S, "it asks no more often than it must"


def test_a_session_that_nobody_uses_is_over_when_its_time_is() -> None:
    """The copies of others say when that is."""
    it = Waiting(is_held=False, meanwhile=lambda _: None)
    asyncio.run(it.until_ended())
    assert IDLE_S <= sum(it.waits) < IDLE_S + 1
