"""`sessile simulate`: runs, findings, what plays them again, and exit statuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sessile.cli import main
from sessile.cli.simulate import _Bar
from sessile.simulation.campaign import Campaign
from tests.simulation.planted import planted

if TYPE_CHECKING:
    import pytest


def test_runs_without_findings_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    """A line that says how many, how fast, and that nothing was found."""
    assert main(["simulate", "--runs", "20", "--jobs", "1", "--coverage"]) == 0
    told = capsys.readouterr().out
    assert "20 runs in" in told and "nothing found" in told and "TombstonesTold" in told


def test_findings_fail_and_say_how_to_play_them_again(capsys: pytest.CaptureFixture[str]) -> None:
    """With the smallest options that still fail; as JSON too."""
    with planted("a change is acknowledged before it is applied"):
        assert main(["simulate", "--seed", "1", "--jobs", "1"]) == 1
        assert "sessile simulate --seed 1 --options " in capsys.readouterr().out
        assert main(["simulate", "--seed", "1", "--jobs", "1", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["runs"], data["found"][0]["seed"]) == (1, 1)
    assert data["found"][0]["smallest"] != data["found"][0]["replay"]


def test_a_trace_is_everything_that_happens(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one seed."""
    assert main(["simulate", "--seed", "3", "--trace"]) == 0
    assert "gets Hello" in capsys.readouterr().out


def test_a_mistake_is_told_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line that names it."""
    assert main(["simulate", "--options", "nodes=many"]) == 1
    assert capsys.readouterr().err.strip() == "sessile: nodes=many is no whole number"


def test_progress_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere than on a terminal as lines, on one as a bar; not too often."""
    done = Campaign()
    done.runs, done.seconds = 500, 11.0
    for is_terminal in (False, True):
        bar = _Bar(1_000)
        bar._is_terminal = is_terminal
        bar.show(done)
        bar.show(done)
        bar.end()
        told = capsys.readouterr().err
        assert told.count("500/1000 runs, 45 a second, 11 s to go") == 1
        assert ("#" * 15 in told) is is_terminal
