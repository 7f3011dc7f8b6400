from __future__ import annotations

import asyncio

import pytest

from sessile.stores.confirmations import Confirmations
from tests.stores.rig import WITHIN_S, ran

KEY = b"k" * 16


def test_an_end_waits_for_those_who_may_hold_a_lease() -> None:
    """Whoever says so before the answer counts as well; whoever else says so does not."""

    async def body() -> None:
        confirmations = Confirmations()
        with confirmations.expecting(KEY) as expected:
            confirmations.told(KEY, b"a")
            waiting = asyncio.create_task(expected.wait((b"a", b"b"), WITHIN_S))
            for key, by in ((KEY, b"a"), (KEY, b"c"), (b"o" * 16, b"b")):
                confirmations.told(key, by)
                await asyncio.sleep(0)
                assert not waiting.done()
            confirmations.told(KEY, b"b")
            assert await waiting
        assert not confirmations

    ran(body)


@pytest.mark.parametrize("lessees", [None, (b"a",)])
def test_nobody_is_waited_for_longer_than_a_lease(lessees: tuple[bytes, ...] | None) -> None:
    """A server that says nothing, or servers that nobody can name."""

    async def body() -> None:
        confirmations = Confirmations()
        with confirmations.expecting(KEY) as expected:
            confirmations.told(KEY, b"b")
            assert not await expected.wait(lessees, 0.01)

    ran(body)


def test_two_may_end_a_session_at_once() -> None:
    """Both hear what is said, and nothing is left of either."""

    async def body() -> None:
        confirmations = Confirmations()
        with confirmations.expecting(KEY) as one:
            with confirmations.expecting(KEY) as other:
                confirmations.told(KEY, b"a")
            assert await one.wait((b"a",), WITHIN_S) and await other.wait((), WITHIN_S)
            assert len(confirmations) == 1
        assert len(confirmations) == 0

    ran(body)
