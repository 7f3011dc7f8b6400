"""Questions to a store that share a trip."""

from __future__ import annotations

import asyncio

from sessile.backend import Pulled, PullStatus
from sessile.record import ENDED, Record
from sessile.stores.questions import Questions

KEY = b"k" * 16


def test_those_that_come_while_one_is_under_way_share_the_next_trip() -> None:
    """Ten ask at once: two trips. Whoever gives up stops no other."""
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
        first = asyncio.create_task(questions.pull(KEY, None))
        await asyncio.sleep(0)
        others = [asyncio.create_task(questions.pull(KEY, record)) for _ in range(9)]
        await asyncio.sleep(0)
        first.cancel()
        others.pop().cancel()
        await asyncio.sleep(0)
        gate.set()
        assert [(await other).record for other in others] == [record] * 8
        assert asked == [None, record] and questions.shared == 8
        assert not questions._asking and not questions._next

    asyncio.run(run())


def test_an_answer_is_for_those_who_asked_before_it_was_given() -> None:
    """The session ends after the store has answered the first question and before that arrives; the second asks after the end."""
    alive, _ = Record.create(now_ms=0, idle_ms=10, deadline_ms=100).write(7, {"a": b"1"}, now_ms=0)
    held = [alive]
    arrives = asyncio.Event()

    async def ask(key: bytes, have: Record | None) -> Pulled:
        del key, have
        answer = held[0]
        await arrives.wait()
        return Pulled(PullStatus.RECORD, answer)

    async def run() -> None:
        questions = Questions(ask)
        before = asyncio.create_task(questions.pull(KEY, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it has been asked by now
        held[0] = alive.end(ENDED, 1)
        after = asyncio.create_task(questions.pull(KEY, None))
        await asyncio.sleep(0)
        arrives.set()
        assert (await before).record is alive
        assert (await after).record == held[0]

    asyncio.run(run())
