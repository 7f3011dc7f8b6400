"""What a node is told at its birth: who it is, which strategy it follows, and its limits."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from sessile.replication.membership import Timings

__all__ = ["ALL_TO_ALL", "PRIMARY_BACKUP", "NodeConfig"]

ALL_TO_ALL: Final = "all-to-all"
PRIMARY_BACKUP: Final = "primary-backup"


class NodeConfig(Struct, frozen=True, kw_only=True):
    """Durations are whole milliseconds."""

    name: str
    """The address at which the others reach this node, `host:port`."""
    host: str
    """The machine it runs on: copies of a session go to distinct ones first."""
    serves: str = ""
    """Where its app is reached; told to balancers."""
    incarnation: int = 1
    """Higher at every start than at the one before; the time in seconds will do."""
    cluster: str = "sessile"
    strategy: str = PRIMARY_BACKUP
    copies: int = 2
    """How many hold a session, under primary-backup."""
    directory: bool = False
    """Whether every node knows the keys of all sessions."""
    timings: Timings = Timings()
    ack_timeout_ms: int = 1_000
    pull_timeout_ms: int = 1_000
    """As long as a silent member may still be alive; whoever waits is answered as soon as somebody has what is asked for."""
    hedge_ms: int = 20
    """A holder that has not answered a question for so long is no longer the only one that is asked."""
    second_target_ms: int = 20
    """An acknowledgement that takes so long, and three times as long as usual, is asked of one more member."""
    tombstone_keep_ms: int = 600_000
    reach_back_ms: int = 30_000
    """A node that may have missed ends is also told of those from this long before: see `overlap_ms`."""
    negative_keep_ms: int = 10_000
    """So long it is remembered that nobody has a session."""
    repair_every_ms: int = 10_000
    """How often copies are compared though nothing happened."""
    flush_ms: int = 50
    """The interval at which changes of the directory are sent."""
    drain_ms: int = 10_000
    """A node that leaves hands over for so long at the most."""
    queue_bytes_max: int = 4 * 2**20
    """What may be outstanding to one peer before changes are left to repair."""
    repair_window_bytes: int = 256 * 2**10
    """What repair may have outstanding to one peer."""
    kept_bytes_max: int = 4 * 2**20
    """What a node keeps of sessions that others hold, to ask only for what it lacks."""

    @property
    def end_timeout_ms(self) -> int:
        """The shortest time an end waits for confirmations: then a member that just stopped is suspect, and its lease over."""
        return self.timings.suspect_after_ms + 2 * self.timings.beat_ms

    @property
    def overlap_ms(self) -> int:
        """How long before an absence the ends of an answer begin.

        One may have been on its way when the absence began, or only at another member, from which two passes of repair bring it.
        """
        return max(self.reach_back_ms, 2 * self.ack_timeout_ms)

    @property
    def strategy_text(self) -> str:
        """As nodes compare it when they greet."""
        return self.strategy if self.strategy == ALL_TO_ALL else f"{self.strategy}:{self.copies}"

    @property
    def copies_or_all(self) -> int | None:
        """As placement wants it."""
        return None if self.strategy == ALL_TO_ALL else self.copies
