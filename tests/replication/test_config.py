"""What a node is told at its birth."""

from __future__ import annotations

import pytest

from sessile.replication.config import ALL_TO_ALL, NodeConfig


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
