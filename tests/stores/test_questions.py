"""Questions to a store that share a trip."""

from __future__ import annotations

import asyncio

from sessile.backend import Pulled, PullStatus
from sessile.record import Record, Stamp
from sessile.stores.questions import Questions

KEY = b"k" * 16


def test_those_at_one_time_share_a_trip_unless_they_have_seen_more() -> None:
    """Ten ask at once: one trip. One whose browser has seen more than the answer asks again; who gives up stops nobody."""
    record, _ = Record.create(now_ms=0, idle_ms=10, deadline_ms=100).write(7, {"a": b"1"}, now_ms=0)
    asked: list[Record | None] = []
    gate = asyncio.Event()

    async def ask(key: bytes, have: Record | None) -> Pulled:
        assert key == KEY
        asked.append(have)
        await gate.wait()
        return Pulled(PullStatus.RECORD, record)

    async def run() -> None:
        questions = Questions(ask)
        first = asyncio.create_task(questions.pull(KEY, None, ()))
        await asyncio.sleep(0)
        others = [asyncio.create_task(questions.pull(KEY, None, record.heads)) for _ in range(9)]
        newer = asyncio.create_task(questions.pull(KEY, record, (Stamp(2, 7),)))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        gate.set()
        assert [(await other).record for other in others] == [record] * 9
        assert (await newer).record is record
        assert asked == [None, record] and questions.shared == 10

    asyncio.run(run())
