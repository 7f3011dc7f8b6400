"""How tasks are ended, and that those which lose a cancellation are as well."""

from __future__ import annotations

import asyncio
import gc

import pytest

from sessile.tasks import end_tasks


def test_all_have_ended_when_it_returns() -> None:
    """Those that clean up first, those that were done, and those that fail; nothing is said of them."""
    said: list[object] = []

    async def sleep(*, fails: bool) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            if fails:
                raise ValueError

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        done = asyncio.create_task(asyncio.sleep(0))
        tasks = [asyncio.create_task(sleep(fails=fails)) for fails in (True, False)]
        await asyncio.sleep(0.01)
        await end_tasks([done, *tasks])
        assert all(task.done() for task in (done, *tasks))
        await end_tasks([])

    asyncio.run(run())
    gc.collect()
    assert not said


@pytest.mark.parametrize("lost", [1, 3])
def test_one_that_loses_a_cancellation_is_cancelled_again(lost: int) -> None:
    """As `asyncio.wait_for` did before Python 3.12."""

    async def run() -> int:
        count = 0

        async def deaf() -> None:
            nonlocal count
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    count += 1
                    if count > lost:
                        raise

        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await end_tasks([task])
        return count

    assert asyncio.run(run()) == lost + 1
