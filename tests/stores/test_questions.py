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


def test_those_that_come_before_a_question_has_left_share_it() -> None:
    """A browser asks for several things at once: one trip."""
    asked: list[Record | None] = []

    async def ask(key: bytes, have: Record | None) -> Pulled:
        del key
        asked.append(have)
        return Pulled(PullStatus.NONE)

    async def run() -> None:
        questions = Questions(ask)
        answers = await asyncio.gather(*(questions.pull(KEY, None) for _ in range(3)))
        assert [answer.status for answer in answers] == [PullStatus.NONE] * 3
        assert len(asked) == 1 and questions.shared == 2

    asyncio.run(run())


def test_a_session_is_asked_for_once_at_a_time() -> None:
    """The second question leaves when the first was answered, and the third when the second was."""
    under_way, most, gates = 0, 0, [asyncio.Event() for _ in range(3)]
    left: list[int] = []

    async def ask(key: bytes, have: Record | None) -> Pulled:
        nonlocal under_way, most
        del key, have
        under_way += 1
        most = max(most, under_way)
        left.append(len(left))
        await gates[left[-1]].wait()
        under_way -= 1
        return Pulled(PullStatus.NONE)

    async def run() -> None:
        questions = Questions(ask)
        asking: list[asyncio.Task[Pulled]] = []
        for number in range(3):
            asking.append(asyncio.create_task(questions.pull(KEY, None)))
            for _ in range(5):
                await asyncio.sleep(0)
            assert left == [*range(max(number, 1))]
            if number:
                gates[number - 1].set()
            for _ in range(5):
                await asyncio.sleep(0)
            assert left == [*range(number + 1)]
        gates[2].set()
        await asyncio.gather(*asking)
        assert most == 1 and not questions._asking and not questions._next

    asyncio.run(run())


def test_what_is_not_answered_in_time_is_given_up() -> None:
    """By whoever stops: nothing waits for the store any more."""

    async def ask(key: bytes, have: Record | None) -> Pulled:
        del key, have
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        questions = Questions(ask)
        await questions.end(0.01)
        asking = []
        for _ in range(2):
            asking.append(asyncio.create_task(questions.pull(KEY, None)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await questions.end(0.01)
        assert not questions._asking and not questions._next
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * 2

    asyncio.run(run())
