"""What each strategy promises and costs, as data.

Documentation, command line, dashboard, lab and checkers read these objects and nothing else, so that none of them can
promise what another does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["STICKY", "STRATEGIES", "Guarantees"]


@dataclass(frozen=True, slots=True)
class Guarantees:
    """One strategy: who holds a session, and what follows from it."""

    name: str
    schemes: tuple[str, ...]
    """The URL schemes that select it."""
    url: str
    """How it is asked for."""
    holders: str
    """Who holds a session."""
    copies: str
    crashes_survived: str
    """How many servers may die at once without a session being lost."""
    messages_per_write: str
    trips_per_read: str
    """Network trips of a request that only reads."""
    routing: str
    """What it asks of the balancer."""
    partition: str
    """What happens while servers cannot reach each other."""
    suits: str
    is_available: bool = False
    """Whether this version has it."""


STICKY: Final = Guarantees(
    name="sticky",
    schemes=("sticky",),
    url="sticky://",
    holders="the server that made it",
    copies="1",
    crashes_survived="0: a server takes its sessions with it",
    messages_per_write="0",
    trips_per_read="0",
    routing="affinity: a user's requests go to one server",
    partition="nothing: servers do not talk",
    suits="one server, a test, or sessions that may be lost",
    is_available=True,
)

STRATEGIES: Final = (
    STICKY,
    Guarantees(
        name="all-to-all",
        schemes=("all-to-all",),
        url="all-to-all://?members=a,b,c",
        holders="every server",
        copies="N",
        crashes_survived="N - 1, of what was acknowledged",
        messages_per_write="N - 1",
        trips_per_read="0",
        routing="none: any server answers",
        partition="both sides serve, and merge when it heals; an end takes effect on the other side then",
        suits="up to about four servers",
        is_available=True,
    ),
    Guarantees(
        name="primary-backup",
        schemes=("primary-backup",),
        url="primary-backup://?members=a,b,c&copies=2",
        holders="the first `copies` servers in rendezvous order of its key",
        copies="2, or as many as asked for",
        crashes_survived="copies - 1, of what was acknowledged",
        messages_per_write="copies - 1, one more from a server that holds no copy",
        trips_per_read="0 at a holder, 1 elsewhere",
        routing="none; affinity spares trips",
        partition="as all-to-all, among the holders that are reachable",
        suits="up to some dozens of servers",
        is_available=True,
    ),
    Guarantees(
        name="store",
        schemes=(
            *("redis", "rediss", "redis+sentinel", "redis+cluster"),
            *("valkey", "valkeys", "valkey+sentinel", "valkey+cluster"),
            *("sqlite", "postgresql", "mysql"),
        ),
        url="redis://…, postgresql://…, sqlite:///…",
        holders="a store of its own, replicated by its own means",
        copies="the store's",
        crashes_survived="every server; of the store, what its replication survives",
        messages_per_write="1",
        trips_per_read="0 under a lease, else 1",
        routing="none: any server answers",
        partition="servers cut off from the store go on from what they hold",
        suits="many services, hundreds of servers, sessions that outlive every server",
        is_available=True,
    ),
)
