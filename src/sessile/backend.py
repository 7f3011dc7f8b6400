"""What the engine asks of the other holders of a session, whoever they are.

A strategy is an answer to "who holds this session?"; a `Backend` is that answer at work: peers, a store, an agent on
this host, or nobody. Every answer is a value: a holder that does not answer is a result, not an exception.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sessile.delta import Delta

if TYPE_CHECKING:
    from sessile.record import Heads, Record
    from sessile.token import SessionKey

__all__ = ["Acknowledged", "Backend", "Change", "Ended", "PullStatus", "Pulled", "Whole"]


class PullStatus(enum.Enum):
    """What the other holders said."""

    CURRENT = "current"
    """The copy that was named is the newest they know of."""
    RECORD = "record"
    """Here is what is newer; it is to be merged."""
    NONE = "none"
    """Everybody who may hold it was asked, and nobody does."""
    UNREACHABLE = "unreachable"
    """Too few of those who may hold it answered in time."""
    STARVED = "starved"
    """They may have answered, and this process had too little time to hear it: no copy may be served."""


class Pulled(NamedTuple):
    """The answer to a pull; `record` comes with `RECORD`, an ended one included."""

    status: PullStatus
    record: Record | None = None


class Whole(NamedTuple):
    """A record as a whole, to be merged by whoever gets it: a session's birth."""

    key: SessionKey
    record: Record


class Ended(NamedTuple):
    """The end of a session, for every member: its record, `ROTATED`, `ENDED` or `REPLACED`."""

    key: SessionKey
    record: Record


Change = Delta | Whole | Ended


class Acknowledged(enum.Enum):
    """Whether as many holders as `ack` demands have the change, and with it all that it builds on."""

    YES = "yes"
    NO = "no"


class Backend(Protocol):
    """The other holders. Whatever does not wait answers from what this process knows, in microseconds."""

    @property
    def is_running(self) -> bool:
        """Whether the other holders may be asked; if not, somebody calls `start`."""

    async def start(self) -> None:
        """Get into touch with them, on the running loop; whoever calls meanwhile waits for the same. Raises SettingsError."""

    def start_in_thread(self) -> None:
        """The same for a program without an event loop; questions of threads then wait in them."""

    async def stop(self) -> None:
        """Leave them in good order: nothing that only this process holds is lost."""

    def holds(self, key: SessionKey) -> bool:
        """Whether this process is a holder of the session."""

    def is_sure(self, key: SessionKey, now_ms: int) -> bool:
        """Whether a copy in this server's table may be served without asking a holder or the store.

        Any thread may call it. It returns False after the process was stopped, or while its loop does not run.

        Args:
            key: the session's key.
            now_ms: the time on the engine's clock.
        """

    def is_trusting(self) -> bool:
        """Whether copies held here may be served where nobody else can be asked.

        They may not while this process, just back from a pause, may have missed the end of sessions.
        """

    def status(self) -> dict[str, Any]:
        """How it is with the other holders, as plain values for people and logs."""

    def is_first_holder(self, key: SessionKey) -> bool:
        """Whether this process is the one that serves the session with the fewest messages."""

    def is_settled(self, key: SessionKey) -> bool:
        """Whether nothing that this process wrote to the session still waits for confirmation."""

    def is_confirmed(self, key: SessionKey) -> bool:
        """Whether somebody else is known to hold everything that this process wrote to the session."""

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        """Let the other holders know, some time, that the session was used."""

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        """Ask for a record that covers `heads`, naming the copy that is held; bounded by `pull_timeout`."""

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        """Tell the other holders, and wait as `ack` (`none`, `one`, `all`) says; bounded by `ack_timeout`.

        An end is waited for whatever `ack` says: until every process that may serve the session knows of it.

        With or without a change it waits for everything that this process wrote to the session so far.

        Raises:
            SessionUnavailable: nobody can tell whether an end has come.
            SessionConflict: the other holder had the last word, and the session was over: nothing of the change was kept.
        """
