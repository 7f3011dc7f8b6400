"""From settings, which people write, to what a node is told at its birth: seconds become milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.clock import whole_ms
from sessile.replication.config import NodeConfig
from sessile.replication.member import Timings

if TYPE_CHECKING:
    from sessile.settings import Settings

__all__ = ["node_config"]

RETURN_MS: Final = Timings().return_ms
"""A closed link is waited for so long, and no longer than a beat takes: nobody who lives is without one for longer."""


def node_config(settings: Settings, name: str, host: str, incarnation: int) -> NodeConfig:
    """What a node is told.

    Args:
        settings: of a cluster.
        name: the address at which the others reach the node, `host:port`.
        host: the machine it runs on.
        incarnation: higher at every start than at the one before.
    """
    assert settings.is_cluster, "only the servers of a cluster have nodes"
    beat_ms, tombstone_keep_ms = whole_ms(settings.beat), whole_ms(settings.tombstone_keep)
    return NodeConfig(
        name=name,
        host=host,
        serves=settings.serves,
        incarnation=incarnation,
        cluster=settings.cluster,
        strategy=settings.scheme,
        copies=settings.copies,
        directory=settings.directory == "keys",
        timings=Timings(
            beat_ms=beat_ms,
            suspect_after_ms=whole_ms(settings.suspect_after),
            dead_after_ms=whole_ms(settings.dead_after),
            return_ms=min(beat_ms, RETURN_MS),
            tombstone_keep_ms=tombstone_keep_ms,
        ),
        ack_timeout_ms=whole_ms(settings.ack_timeout),
        pull_timeout_ms=whole_ms(settings.pull_timeout),
        tombstone_keep_ms=tombstone_keep_ms,
    )
