"""The measurement of what a held session takes."""

from __future__ import annotations

import pytest

from bench import memory
from bench.memory import Memory
from bench.show import memory as promise


def held(resident_bytes: int, *, sessions: int = promise.SESSIONS, returned: int = 200) -> Memory:
    return Memory(sessions, resident_bytes, {"bytes": 200 * sessions}, returned, 200)


def test_sessions_are_held_and_counted() -> None:
    """In a fresh process: all sessions are there, every browser of the sample finds its own, and they take memory."""
    said: list[str] = []
    few = memory.measure(2_000, said.append)
    assert said == ["0 of 2000 sessions held"]
    assert few.sessions == 2_000
    assert few.returned == few.sample == 200
    # A record holds at least the hundred characters, and memory at least the records.
    assert 100 * 2_000 < few.stats["bytes"] < few.resident_bytes


def test_what_is_held_shows_in_the_resident_memory() -> None:
    """A megabyte that is kept is seen, and one that is let go is not."""
    before = memory.resident_bytes()
    kept = [bytes(range(256)) * 4 * number for number in range(100)]
    grown = memory.resident_bytes() - before
    assert grown > 0.9 * sum(map(len, kept))
    del kept
    assert memory.resident_bytes() - before < 0.5 * grown


@pytest.mark.parametrize(
    ("taken", "holds"),
    [
        (held(450 * promise.SESSIONS), True),
        (held(451 * promise.SESSIONS), False),
        (held(100 * promise.SESSIONS, sessions=promise.SESSIONS - 1), False),
        (held(100 * promise.SESSIONS, returned=199), False),
    ],
)
def test_the_verdict_is_the_bounds(monkeypatch: pytest.MonkeyPatch, taken: Memory, holds: bool) -> None:  # noqa: FBT001
    """At most 450 bytes each, with every session held and every browser of the sample served."""
    monkeypatch.setattr(memory, "measure", lambda _sessions, _progress: taken)
    assert promise.run(lambda _: None).holds is holds
