from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from sessile.lab.child import LINES_KEPT, Child, run_module
from tests.lab.waiting import is_running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

Scenario = "Callable[[Child, list[str]], Awaitable[None]]"


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run `source` as a child's module and a scenario with it; returns the lines of its standard output."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(source: str, scenario: Callable[[Child, list[str]], Awaitable[None]], first_line: bytes = b"") -> list[str]:
        (tmp_path / "part.py").write_text(source)

        async def main() -> list[str]:
            errors: list[str] = []
            output: list[str] = []
            child = await run_module("part", first_line=first_line, on_error=errors.append, on_output=output.append)
            try:
                await asyncio.wait_for(scenario(child, errors), 30)
            finally:
                await child.kill()
            assert not is_running(child.pid)
            return output

        return asyncio.run(main())

    return run


async def said(lines: list[str], line: str) -> None:
    while line not in lines:  # noqa: ASYNC110 - a list tells nobody; the scenario has a deadline
        await asyncio.sleep(0.01)


def test_the_last_words_of_a_child_that_fails_are_kept(play: Callable[..., list[str]]) -> None:
    """A few of its last lines as one, without the marks under a traceback's lines, and how it ended."""

    async def scenario(child: Child, errors: list[str]) -> None:
        await child.ended()
        assert child.how_it_ended() == "ended with status 3"
        assert child.last_words(2) == "two / three"
        assert errors[-4:] == ["one", "two", "^^^^^", "three"]
        assert len(child.last_words(1000).split(" / ")) < LINES_KEPT
        assert not child.is_alive

    source = (
        "import sys\nprint(*range(100), 'one', 'two', ' ^^^^^', '', 'three', sep='\\n', file=sys.stderr)\nsys.exit(3)"
    )
    play(source, scenario)


def test_a_child_gets_its_first_line_and_is_heard(play: Callable[..., list[str]]) -> None:
    """Standard input carries what the command line must not; it stays open while the parent lives."""

    async def scenario(child: Child, errors: list[str]) -> None:
        await child.ended()
        assert child.how_it_ended() == "ended with status 0"
        assert errors == []

    source = (
        "import sys, select\nprint('got', sys.stdin.readline().strip())\n"
        "print('open' if not select.select([0], [], [], 0)[0] else 'closed')\nprint('x' * 3000)"
    )
    output = play(source, scenario, b"a secret")
    assert output[:2] == ["got a secret", "open"]
    assert set(output[2]) == {"x"}
    assert len(output[2]) < 3000


STUBBORN = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(600)"
DOCILE = "import sys, time\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(600)"


def test_a_child_that_does_not_listen_is_killed(play: Callable[..., list[str]]) -> None:
    """Stopping is bounded."""

    async def scenario(child: Child, errors: list[str]) -> None:
        await said(errors, "here")
        await child.stop(0.1)
        assert child.how_it_ended() == "ended by SIGKILL"

    play(STUBBORN, scenario)


ORDERLY = (
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    "print('here', file=sys.stderr, flush=True)\ntime.sleep(600)"
)


def test_a_child_that_listens_ends_by_itself(play: Callable[..., list[str]]) -> None:
    """It is told first, even while it is stopped: it goes on, and ends."""

    async def scenario(child: Child, errors: list[str]) -> None:
        await said(errors, "here")
        child.send(signal.SIGSTOP)
        await child.stop(20)
        assert child.how_it_ended() == "ended with status 7"
        child.send(signal.SIGTERM)  # to nobody, silently

    play(ORDERLY, scenario)


def test_a_terminals_signals_do_not_reach_a_child(play: Callable[..., list[str]]) -> None:
    """It runs in a session of its own: Ctrl-C is for the parent, which ends it in order."""

    async def scenario(child: Child, errors: list[str]) -> None:
        await said(errors, "here")
        assert os.getsid(child.pid) == child.pid != os.getsid(0)

    play(DOCILE, scenario)
