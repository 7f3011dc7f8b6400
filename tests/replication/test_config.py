"""What a node is told at its birth."""

from __future__ import annotations

import pytest

from sessile.replication.config import ALL_TO_ALL, NodeConfig
from sessile.replication.member import Timings


@pytest.mark.parametrize(
    ("config", "text", "copies"),
    [
        (NodeConfig(name="a:1", host="a", strategy=ALL_TO_ALL, copies=5), "all-to-all", None),
        (NodeConfig(name="a:1", host="a"), "primary-backup:2", 2),
        (NodeConfig(name="a:1", host="a", copies=3), "primary-backup:3", 3),
    ],
)
def test_strategies_are_compared_as_text(config: NodeConfig, text: str, copies: int | None) -> None:
    """Under all-to-all the number of copies says nothing; under primary-backup two numbers are two strategies."""
    assert (config.strategy_text, config.copies_or_all) == (text, copies)


def test_an_end_waits_until_a_silent_member_is_suspect() -> None:
    """And two beats longer: one may be on its way, and the next one late."""
    config = NodeConfig(name="a:1", host="a", timings=Timings(beat_ms=100, suspect_after_ms=700))
    assert config.end_timeout_ms == 900


def test_what_is_not_said_is_as_documented() -> None:
    """Two copies of a session, no directory; and each part is named."""
    config = NodeConfig(name="a:1", host="a")
    assert (config.copies, config.directory, config.incarnation) == (2, False, 1)
    with pytest.raises(TypeError):
        NodeConfig("a:1", "a")  # type: ignore[call-arg]  # that is what is tested
