"""Many runs, here and in other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.simulation import campaign as campaign_module
from sessile.simulation.campaign import Found, campaign, one
from sessile.simulation.options import draw, parse

if TYPE_CHECKING:
    import pytest


def test_runs_add_up_in_one_process_and_in_several() -> None:
    """The same seeds give the same requests and the same coverage, whoever runs them."""
    told: list[int] = []
    alone = campaign(range(1, 31), jobs=1, progress=lambda done: told.append(done.runs))
    together = campaign(range(1, 31), jobs=2)
    assert told == [25, 30] and alone.runs == together.runs == 30
    assert alone.requests == together.requests > 100
    assert alone.coverage.cells() == together.coverage.cells()
    assert alone.runs_per_s > 0 and not alone.found and not together.found


def test_a_run_that_raises_is_a_finding_and_findings_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what plays it again; after so many there is no need to go on."""

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("the world is broken")

    monkeypatch.setattr(campaign_module, "run", broken)
    done = campaign(range(1, 1_000), jobs=1, found_max=3)
    assert done.runs == campaign_module.PIECE
    found = done.found[0]
    assert "the world is broken" in found.findings[0].problem
    assert found.command == f"sessile simulate --seed 1 --options {draw(1)}"


def test_given_options_replace_drawn_ones() -> None:
    """The seed draws the rest."""
    options, *_ = one(5, "nodes=2,requests=3")
    assert options == parse("nodes=2,requests=3", draw(5))
    assert isinstance(Found(5, options, ()).command, str)
