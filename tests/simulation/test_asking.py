"""The engine's questions, handed to whoever drives its coroutines."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.backend import Acknowledged
from sessile.replication.events import ChangePushed, PullAsked
from sessile.simulation.asking import Pull, Push, Sleep


def test_awaiting_hands_out_the_question_and_takes_its_answer() -> None:
    """The driver sees the very object, and what it sends back is what `await` gives."""

    async def ask() -> Any:
        await Sleep(3)
        return await Push(b"k", None, "one")

    coroutine = ask()
    slept = coroutine.send(None)
    assert isinstance(slept, Sleep) and slept.delay_ms == 3
    asked = coroutine.send(None)
    assert isinstance(asked, Push)
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(Acknowledged.YES)
    assert stopped.value.value is Acknowledged.YES


def test_questions_become_inputs_of_the_node() -> None:
    """With the ticket under which they are answered."""
    assert Pull(b"k", ()).as_input(7) == PullAsked(7, b"k", ())
    assert Push(b"k", None, "all").as_input(8) == ChangePushed(8, b"k", None, "all")
