"""What a node is told, and what it wants done: the whole border between the protocol and the world.

Inputs are in the past tense, effects in the imperative. A *link* is an ordered, reliable connection to one other node,
named by a number that its runtime gives; a *ticket* is a number under which somebody waits for an answer. Times are whole
milliseconds on the node's own clock, which never goes back and counts suspended time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from sessile.backend import Acknowledged, Change, Pulled
    from sessile.record import Heads
    from sessile.token import SessionKey

__all__ = [
    "AddressesFound",
    "Answer",
    "ChangePushed",
    "Dial",
    "DialFailed",
    "DrawWriter",
    "Effect",
    "FramesReceived",
    "HangUp",
    "Input",
    "LinkDown",
    "LinkUp",
    "Note",
    "PullAsked",
    "Send",
    "SessionTouched",
    "StopAsked",
    "Woken",
]


# -- inputs --------------------------------------------------------------------------------------------------------------


class AddressesFound(Struct, frozen=True, gc=False):
    """Discovery names the members to talk to, `host:port` each; who is no longer named is not dialled any more."""

    addresses: tuple[str, ...]


class LinkUp(Struct, frozen=True, gc=False):
    """A link is there. `address` is what was dialled; empty where the other side did."""

    link: int
    address: str = ""


class LinkDown(Struct, frozen=True, gc=False):
    """A link is gone: closed by the other side, broken, or hung up."""

    link: int


class DialFailed(Struct, frozen=True, gc=False):
    """No link to this address. `is_refused`: its host says that nobody listens there, so the process is gone."""

    address: str
    is_refused: bool = False


class FramesReceived(Struct, frozen=True, gc=False):
    """Frames of one link, in order, without their length prefixes; all that one read of a socket brought."""

    link: int
    frames: tuple[bytes, ...]


class PullAsked(Struct, frozen=True, gc=False):
    """The engine wants the newest state of a session, one that covers `heads`. Answered with a `Pulled`."""

    ticket: int
    key: SessionKey
    heads: Heads


class ChangePushed(Struct, frozen=True, gc=False):
    """The engine changed a session in the table and tells the other holders. Answered with an `Acknowledged`.

    `change` None: nothing new; the answer comes when everything this node wrote to `key` so far is acknowledged.
    """

    ticket: int
    key: SessionKey
    change: Change | None
    ack: str = "one"


class SessionTouched(Struct, frozen=True, gc=False):
    """A request used the session and changed nothing; its idle clock was put back in the table."""

    key: SessionKey
    touched_ms: int


class StopAsked(Struct, frozen=True, gc=False):
    """Leave: no longer be a holder, hand over, say goodbye. Answered with an `Acknowledged` when nothing is left here."""

    ticket: int


class Woken(Struct, frozen=True, gc=False):
    """The moment of `next_wakeup` has come."""


Input = (
    AddressesFound
    | LinkUp
    | LinkDown
    | DialFailed
    | FramesReceived
    | PullAsked
    | ChangePushed
    | SessionTouched
    | StopAsked
    | Woken
)


# -- effects -------------------------------------------------------------------------------------------------------------


class Dial(Struct, frozen=True, gc=False):
    """Connect to this address; the outcome comes as `LinkUp` or `DialFailed`."""

    address: str


class HangUp(Struct, frozen=True, gc=False):
    """Close a link, after what was sent on it. `reason` is for the log; the link may be forgotten at once."""

    link: int
    reason: str


class Send(Struct, frozen=True, gc=False):
    """Write one frame, length prefix included, to a link. What one turn sends to a link leaves in one write."""

    link: int
    frame: bytes
    is_spare: bool = False
    """Whether it may be dropped while too much waits to be sent on this link: the peer asks again, or repair sends it."""


class Answer(Struct, frozen=True, gc=False):
    """What somebody waited for: a `Pulled` or an `Acknowledged`."""

    ticket: int
    result: Pulled | Acknowledged


class DrawWriter(Struct, frozen=True, gc=False):
    """The table was dropped with writes of this process in it: its engine must write under a new tag."""


class Note(Struct, frozen=True, gc=False):
    """Something a person may want to read in a log: an event's name and what belongs to it."""

    event: str
    about: dict[str, Any]


Effect = Dial | HangUp | Send | Answer | DrawWriter | Note
