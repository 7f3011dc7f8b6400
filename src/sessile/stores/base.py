"""What a store must do: keep records that servers share, and merge into them atomically.

A store is dumber than a node. It knows no members and no leases, follows the rules of `delta.apply` and `record.merge`, and
never brings an ended session back. Times cross its border as durations: a record that goes in or comes out counts from the
moment of the call (`Record.shift` by minus or plus now); inside, they are on the store's own clock, which all servers share.

Whatever does not work now (refused, hanging, read-only after a failover, out of memory) is one exception, `StoreError`,
raised within the store's timeout. A call that raised it may have been carried out all the same, and may be repeated: every
one of them is idempotent.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

    from sessile.delta import Delta, Outcome
    from sessile.record import Heads, Record, Version
    from sessile.token import SessionKey

__all__ = [
    "Absence",
    "Changed",
    "Channel",
    "ChannelDown",
    "ChannelUp",
    "Confirmed",
    "FetchStatus",
    "Fetched",
    "Pulse",
    "Pushed",
    "Store",
]


class FetchStatus(enum.Enum):
    """What a store says of a session."""

    CURRENT = "current"
    """It holds no more than the version that was named."""
    RECORD = "record"
    NONE = "none"


class Fetched(NamedTuple):
    """The answer to a fetch; `record` comes with `RECORD`, an ended one included, its times as durations."""

    status: FetchStatus
    record: Record | None = None


class Pushed(NamedTuple):
    """What became of a change.

    `rest` is the record as the store holds it now, if that is more than the pusher knows of: parallel writes of other servers,
    or the session's end. `is_acknowledged`: as many replicas as `ack` demands have it. `lessees`, for an end with
    `is_awaited`: the servers that may serve a copy without asking, or None if the store cannot tell.
    """

    outcome: Outcome
    rest: Record | None = None
    is_acknowledged: bool = True
    lessees: tuple[bytes, ...] | None = ()


class Absence(NamedTuple):
    """What a missing session means in this store; see `epoch.py`.

    `may_forget_ends`: the store may drop the end of a session before its deadline. `mark`: a random value that the store keeps
    as long as its data; empty if the store may drop that as well, or drops no ends.
    """

    may_forget_ends: bool = False
    mark: bytes = b""


class ChannelUp(NamedTuple):
    """Changes are told from now on. `primary` names the server that answers: another name means a failover."""

    primary: str


class ChannelDown(NamedTuple):
    """Changes may be missed from now on."""


class Changed(NamedTuple):
    """Somebody changed a session in the store, this process included."""

    key: SessionKey
    heads: Heads
    state: int
    """`LIVE`, `ROTATED`, `ENDED` or `REPLACED`."""


class Pulse(NamedTuple):
    """Everything published up to `ago_ms` ago has been received, and the primary was still the same then."""

    ago_ms: int


class Confirmed(NamedTuple):
    """The server `by` has received the end of this session, and serves no copy of it."""

    key: SessionKey
    by: bytes


Channel = ChannelUp | ChannelDown | Changed | Pulse | Confirmed


class Store(Protocol):
    """Sessions that servers share. Every method but the properties may raise `StoreError`."""

    @property
    def where(self) -> str:
        """For people: what it is and where, without a password."""

    @property
    def is_single(self) -> bool:
        """Whether it is a single point of failure, as far as its URL tells."""

    @property
    def has_channel(self) -> bool:
        """Whether it tells of changes (`listen`)."""

    @property
    def counts(self) -> Counter[str]:
        """What went wrong beside failed calls, by name."""

    async def open(self) -> None:
        """Connect, and see that the store is one that will do."""

    async def close(self) -> None:
        """Close every connection."""

    async def fetch(self, key: SessionKey, have: Version | None) -> Fetched:
        """What it holds of a session beyond `have`, in one trip."""

    async def apply(self, delta: Delta, ack: str) -> Pushed:
        """Take one write by the rule of `delta.apply`, atomically, and tell the channel. With `NEED` nothing was changed."""

    async def merge(self, key: SessionKey, record: Record, ack: str, *, is_awaited: bool = False) -> Pushed:
        """Merge a whole record, atomically, and tell the channel; its times are durations. Never `NEED`.

        An end is kept until the session's own deadline at least. With `is_awaited`, every server that receives it confirms it
        (`Confirmed`), and the answer names the servers whose confirmation to wait for.
        """

    async def absence(self, key: SessionKey | None) -> Absence:
        """What it means that this session is missing; without a key, that any session is."""

    async def touch(self, touches: Mapping[SessionKey, int]) -> None:
        """Sessions that were used so many milliseconds ago. Tells the channel nothing; what is not held is left out."""

    async def listen(self, told: Callable[[Channel], None], is_used: Callable[[], bool] | None = None) -> None:
        """Tell of changes until cancelled, reconnecting by itself; `ChannelUp` comes before the first, and again each time.

        A link that is silent for longer than it may be counts as down: nothing is believed to be told over it.

        Args:
            told: what to call.
            is_used: whether copies are served without asking at present. While it returns True, or if it is None, a `Pulse` is
                reported several times in each lease.
        """

    async def expire(self, at_most: int) -> int:
        """Remove up to so many sessions whose time has come, where the store does not do that itself; returns how many."""
