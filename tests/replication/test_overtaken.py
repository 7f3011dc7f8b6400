"""Logouts and rotations that overtake each other between members, without any fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessile.errors import SessionConflict
from sessile.session import Session
from tests.replication.engines import Browser, Engines

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY: dict[str, Any] = {}


class Request:
    """A request that is under way beside others."""

    def __init__(self, cluster: Engines, name: str, browser: Browser) -> None:
        self.name = name
        self.done_ms: int | None = None
        self.error: SessionConflict | None = None
        self._cluster = cluster
        self.session = cluster.open(name, browser)
        assert self.session["who"] == "ann"

    def finish(self, change: Callable[[Session], object]) -> None:
        """Change the session, and begin to wait for the others."""
        change(self.session)
        engine = self._cluster.engines[self.name]
        try:
            self._settling = engine.settle(engine.commit(self.session))
        except SessionConflict as error:
            self._is_over(error)
            return
        self._go_on(None)

    def _go_on(self, answer: object) -> None:
        try:
            self._asked = self._settling.send(answer)
        except StopIteration:
            self._is_over(None)
        except SessionConflict as error:
            self._is_over(error)

    def _is_over(self, error: SessionConflict | None) -> None:
        self.error, self.done_ms = error, self._cluster.now_ms

    def step(self) -> None:
        """Go on as far as the answers that have come allow."""
        while self.done_ms is None:
            answer = self._cluster.answer(self.name, self._asked.number)
            if answer is None:
                return
            self._go_on(answer)


@pytest.mark.parametrize("strategy", ["all-to-all", "primary-backup"])
@pytest.mark.parametrize("delay_ms", [1, 5])
def test_a_logout_that_was_answered_leaves_no_new_id(strategy: str, delay_ms: int) -> None:
    """Whichever comes first: either the rotation is refused, or the logout is, which then can be tried again."""
    refused = set()
    for after_ms in range(25):
        cluster = Engines("abc", strategy=strategy, delay_ms=delay_ms)
        browser = Browser()
        cluster.request("a", browser, who="ann")
        cluster.run(300)
        rotating, leaving = Request(cluster, "b", browser), Request(cluster, "a", browser)
        rotating.finish(Session.rotate)
        for ms in range(400):
            if ms == after_ms:
                leaving.finish(Session.logout)
            cluster.run(1)
            rotating.step()
            if ms >= after_ms:
                leaving.step()
        assert rotating.done_ms is not None and leaving.done_ms is not None
        refused.add((rotating.error is not None, leaving.error is not None))
        if leaving.error is None and leaving.done_ms <= rotating.done_ms:
            browser.keep(cluster.engines["b"].cookies(rotating.session))
            assert [dict(cluster.open(name, browser)) for name in "abc"] == [NOBODY] * 3, f"after {after_ms} ms"
    assert (True, False) in refused
    assert (False, True) in refused


def test_a_logout_is_waited_for_by_the_next_one() -> None:
    """A double click: the second request finds the session ended here, and is answered when the others know that."""
    cluster = Engines("ab", strategy="all-to-all", delay_ms=50)
    browser = Browser()
    cluster.request("a", browser, who="ann")
    cluster.run(500)
    first = Request(cluster, "a", browser)
    first.finish(Session.logout)
    second = cluster.open("a", browser)
    second.logout()
    cluster.finish("a", Browser(), second)
    assert dict(cluster.open("b", browser)) == NOBODY
