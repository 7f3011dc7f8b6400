"""Waiting for the end of a session: woken from any thread, once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading

from sessile.watchers import Watchers
from tests.fakes import KEY

WITHIN_S = 10.0


def test_all_who_wait_for_a_session_are_woken_from_any_thread() -> None:
    """And nobody who waits for another one."""

    async def run() -> None:
        watchers = Watchers()
        waiting = [asyncio.create_task(watchers.wait(KEY, WITHIN_S)) for _ in range(2)]
        other = asyncio.create_task(watchers.wait(b"o" * 16, WITHIN_S))
        while len(watchers) < 2:  # noqa: ASYNC110  # until both are at it
            await asyncio.sleep(0)
        thread = threading.Thread(target=watchers.ended, args=(KEY,))
        thread.start()
        await asyncio.wait_for(asyncio.gather(*waiting), WITHIN_S)
        thread.join()
        assert not other.done() and len(watchers) == 1
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert len(watchers) == 0

    asyncio.run(run())


def test_a_wait_ends_by_itself() -> None:
    """After its time, with nothing left; and an end that nobody waits for is none."""

    async def run() -> None:
        watchers = Watchers()
        await watchers.wait(KEY, 0.001)
        assert len(watchers) == 0
        watchers.ended(KEY)

    asyncio.run(run())


def test_a_loop_that_was_closed_harms_nobody() -> None:
    """Its waiter is forgotten."""
    watchers = Watchers()
    loop = asyncio.new_event_loop()
    task = loop.create_task(watchers.wait(KEY, WITHIN_S))
    loop.run_until_complete(asyncio.sleep(0))
    assert len(watchers) == 1
    watchers.ended(KEY)
    loop.run_until_complete(task)
    task = loop.create_task(watchers.wait(KEY, WITHIN_S))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    watchers.ended(KEY)
    assert len(watchers) == 0
