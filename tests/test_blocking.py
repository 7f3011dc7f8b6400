"""Coroutines for callers that may block."""

from __future__ import annotations

import asyncio

import pytest

from sessile.blocking import run_blocking


def test_what_waits_for_nothing_runs_to_its_end() -> None:
    """Its value is returned and its error raised, and no loop is needed."""

    async def double(number: int) -> int:
        return 2 * number

    async def fail() -> None:
        raise KeyError("told")

    assert run_blocking(double(4)) == 8
    with pytest.raises(KeyError, match="told"):
        run_blocking(fail())


def test_what_waits_on_a_loop_is_refused_and_closed() -> None:
    """Nobody would ever wake it: that is said, and its `finally` has run."""
    steps: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            steps.append("closed")

    with pytest.raises(RuntimeError, match="event loop"):
        run_blocking(wait())
    assert steps == ["closed"]
