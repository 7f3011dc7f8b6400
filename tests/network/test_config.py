from __future__ import annotations

from typing import Any

import pytest

from sessile.network.config import node_config
from sessile.replication.config import NodeConfig
from sessile.replication.member import Timings
from tests.loading import ALL_TO_ALL, PRIMARY_BACKUP, SECRET, load


def config_of(url: str, **given: Any) -> NodeConfig:
    """What a node is told under these settings."""
    return node_config(load(url, secret=SECRET, **given), name="a:7400", host="rack1", incarnation=7)


def test_the_defaults_are_those_of_the_replication_core() -> None:
    """`drain_grace` is the balancer's: however short it is, a server that leaves takes the time it needs to hand over."""
    assert config_of(PRIMARY_BACKUP) == NodeConfig(
        name="a:7400", host="rack1", incarnation=7, strategy="primary-backup"
    )
    assert config_of(ALL_TO_ALL, drain_grace=0) == NodeConfig(
        name="a:7400", host="rack1", incarnation=7, strategy="all-to-all"
    )


def test_every_setting_arrives() -> None:
    """Seconds as whole milliseconds, words as flags."""
    config = config_of(
        PRIMARY_BACKUP,
        cluster="shop",
        copies=3,
        directory="keys",
        beat=0.1,
        suspect_after="0.3s",
        dead_after=0.7,
        tombstone_keep="5m",
        ack_timeout="1500ms",
        pull_timeout=0.1,
    )
    timings = Timings(beat_ms=100, suspect_after_ms=300, dead_after_ms=700, return_ms=100, tombstone_keep_ms=300_000)
    assert config == NodeConfig(
        name="a:7400",
        host="rack1",
        incarnation=7,
        cluster="shop",
        strategy="primary-backup",
        copies=3,
        directory=True,
        timings=timings,
        ack_timeout_ms=1_500,
        pull_timeout_ms=100,
        tombstone_keep_ms=300_000,
    )
    assert config.strategy_text == "primary-backup:3"


@pytest.mark.parametrize("given", [("10ms", "11ms", "12ms"), (60, 61, 62), ("1m", "10m", "1h")])
def test_timings_that_the_settings_allow_are_allowed(given: tuple[Any, Any, Any]) -> None:
    """The shortest and the longest."""
    beat, suspect_after, dead_after = given
    timings = config_of(
        ALL_TO_ALL, beat=beat, suspect_after=suspect_after, dead_after=dead_after, tombstone_keep="1d"
    ).timings
    assert 0 < timings.return_ms <= 250 <= timings.tombstone_keep_ms


def test_a_server_alone_has_no_node() -> None:
    """Whoever asks for one under `sticky://` has made a mistake."""
    with pytest.raises(AssertionError, match="only the servers of a cluster"):
        node_config(load(), name="a:7400", host="rack1", incarnation=7)
