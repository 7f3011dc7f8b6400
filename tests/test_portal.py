"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sessile.portal import Portal


def test_what_is_run_there_returns_and_raises_here() -> None:
    """Its loop is another thread's, and ends with it."""
    portal = Portal()

    async def name() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("told")

    assert portal.run(name()) == "sessile-portal"
    with pytest.raises(KeyError, match="told"):
        portal.run(fail())
    portal.close()
    assert portal.loop.is_closed()
    assert not any(thread.name == "sessile-portal" for thread in threading.enumerate())
