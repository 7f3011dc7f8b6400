"""What Tomcat's managers lose is kept; and the scenarios would notice if it were not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.engine import Engine
from tests.replication.tomcat_defects import SCENARIOS, a_change_arrives_during_a_request

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.__name__)
def test_nothing_is_lost(scenario: Callable[[], str]) -> None:
    """Each scenario ends with everything at every server."""
    assert scenario() == ""


def test_a_scenario_notices_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that forgets what is written to a session that exists is found out."""
    monkeypatch.setattr(Engine, "_write", lambda *_: [])
    assert a_change_arrives_during_a_request() != ""
