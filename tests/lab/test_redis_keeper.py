"""The store of a demo: processes that are really there, and one that takes over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessile.errors import LabError
from sessile.lab import redis_keeper
from sessile.lab.redis_keeper import RedisKeeper, info_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.needs("redis-server")
def test_another_one_takes_over(tmp_path: Path) -> None:
    """Killed, the primary is replaced; restarted, it follows the new one; nothing is left at the end."""

    async def run() -> None:
        keeper = RedisKeeper(tmp_path, 20_000, lambda _: None)
        watching = None
        try:
            await keeper.start()
            watching = asyncio.create_task(keeper.watch())
            assert keeper.url.startswith("redis+sentinel://127.0.0.1:") and keeper.url.endswith("/sessile/0")
            roles = [each["role"] for each in keeper.status()]
            assert sorted(roles) == ["primary", "replica", "replica", *["sentinel"] * 3]
            told = await keeper.act("r1", "kill")
            assert (told.status, told.data["state"], told.data["pid"]) == (200, "dead", None)
            assert (await keeper.act("r1", "kill")).status == 409
            assert (await keeper.act("r2", "drain")).status == 409
            await until(lambda: any(each.role == "primary" for name, each in keeper.kept.items() if name != "r1"))
            assert (await keeper.act("r1", "restart")).status == 200
            await until(lambda: keeper.kept["r1"].role == "replica")
            assert (await keeper.act("q1", "pause")).data["state"] == "paused"
            assert (await keeper.act("q1", "resume")).data["state"] in {"ready", "suspect"}
        finally:
            if watching is not None:
                watching.cancel()
            await keeper.stop()
        assert all(each.child is not None and not each.child.is_alive for each in keeper.kept.values())

    asyncio.run(run())


def test_one_that_does_not_start_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which, and its last words."""
    monkeypatch.setattr(redis_keeper, "redis_program", lambda: "/bin/false")

    async def run() -> None:
        keeper = RedisKeeper(tmp_path, 20_000, lambda _: None)
        with pytest.raises(LabError, match=r"r[123], a process of the store: it did not answer: ended with status 1"):
            await keeper.start()
        await keeper.stop()

    asyncio.run(run())


def test_nobody_there_tells_nothing() -> None:
    """No answer is an empty one."""
    assert asyncio.run(info_of(1)) == {}
