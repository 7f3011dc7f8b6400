"""The checker `bounds` times questions and weighs what is given out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.replication.pulls import Pulls
from sessile.simulation.campaign import campaign
from sessile.simulation.serving import Work
from tests.simulation.scenes import calm_world

if TYPE_CHECKING:
    import pytest


def test_a_question_that_takes_too_long_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its timeout a question to a server that is cut off waits longer than it may."""
    monkeypatch.setattr(Pulls, "_time_out", lambda *_: None)
    done = campaign(range(1, 120), jobs=1, options="faults=partitions+one-way,routing=random", found_max=1)
    assert any(finding.checker in {"bounds", "quiet"} for found in done.found for finding in found.findings)


def test_a_large_cookie_is_noticed() -> None:
    """One that no browser need keep."""
    world = calm_world()
    bounds = next(checker for checker in world.checkers if checker.name == "bounds")
    bounds.responded(world.traffic._make(world.traffic.jars[0], b"", Work()), 200, [b"x" * 5_000])
    assert "5000 bytes" in world.findings.found[0].problem
