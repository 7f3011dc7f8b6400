"""A timeout in time that the process had."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessile.stores.patience import STRETCH_MAX, TURNS, Starved, Turns, within

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock goes on by `turn_s` in each turn, whatever the time is."""

    turn_s = 0.0
    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def ran(self, test: Coroutine[None, None, None]) -> None:
        async def body() -> None:
            going = asyncio.create_task(self._go_on())
            await test
            going.cancel()

        try:
            self.run_until_complete(body())
        finally:
            self.close()

    async def _go_on(self) -> None:
        while True:
            self.now_s += self.turn_s
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("late_s", "is_starved", "waited_s"),
    [
        ([0.0], False, 1.0),
        ([0.005], False, 1.1),
        ([0.040], True, STRETCH_MAX),
        ([10.0] + [0.0] * 40, False, 11.05),
        ([0.040, 0.0], False, 2.8),
        ([30.0], True, 5 * 30.05),
    ],
    ids=["idle", "at work", "starved", "stopped once", "starved by half", "stopped again and again"],
)
def test_turns_that_were_late_are_not_the_other_sides(
    late_s: list[float],
    is_starved: bool,  # noqa: FBT001  # a column of the table
    waited_s: float,
) -> None:
    """A second, in turns: by how much each is late, whether anybody can tell who was slow, and when it ends."""
    turns, now_s, number = Turns(1.0, 0.0), 0.0, 0
    while True:
        now_s += turns.step_s + late_s[number % len(late_s)]
        number += 1
        if turns.is_over(now_s):
            break
    assert turns.is_starved is is_starved
    assert now_s == pytest.approx(waited_s, abs=0.1)


@pytest.mark.parametrize(("turn_s", "raised"), [(0.001, TimeoutError), (0.2, Starved)])
def test_what_does_not_end_is_cancelled(turn_s: float, raised: type[TimeoutError]) -> None:
    """By a loop that is on time, after the timeout; by one that never is, after some timeouts, with another error."""
    loop = Loop()
    loop.turn_s = turn_s

    async def test() -> None:
        with pytest.raises(TimeoutError) as over:
            async with within(1.0):
                await asyncio.Event().wait()
        assert type(over.value) is raised
        assert loop.now_s >= (STRETCH_MAX if raised is Starved else 1.0)

    loop.ran(test())


def test_a_starved_process_waits_on() -> None:
    """What takes twice the timeout ends in time where the loop is never on time."""
    loop = Loop()
    loop.turn_s = 0.2

    async def test() -> None:
        async with within(1.0):
            await asyncio.sleep(2.0)

    loop.ran(test())


def test_what_takes_long_to_let_go_is_told_again() -> None:
    """A driver that asks the server to stop first, and waits for that, is cancelled once more."""
    loop = Loop()
    loop.turn_s = 0.001
    told = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append(loop.now_s)
            try:
                await asyncio.Event().wait()
            finally:
                told.append(loop.now_s)

    async def test() -> None:
        with pytest.raises(TimeoutError):
            async with within(1.0, insist_s=0.5):
                await stubborn()
        first_s, second_s = told
        assert second_s - first_s > 0.49

    loop.ran(test())


def test_a_timeout_of_what_is_in_it_is_not_its_own() -> None:
    """It passes as it is, and time is not over."""

    async def test() -> None:
        with pytest.raises(TimeoutError) as over:
            async with within(1.0):
                raise TimeoutError("another")
        assert type(over.value) is TimeoutError and str(over.value) == "another"
        assert TURNS > 1

    Loop().ran(test())
