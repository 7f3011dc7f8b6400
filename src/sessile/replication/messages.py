"""Every message that nodes send each other.

A message is a msgpack array: its tag, then its fields. *Sequenced* messages (`Changed`, `Whole`) are counted on both
sides of a link, from 1, and acknowledged cumulatively by `Acked`; one that was not taken is named by a `Denied` that comes
before the `Acked` which covers it. Records travel as they lie at rest, with times on their sender's clock; `now_ms`, set
when the frame is written, makes them durations. Docs: PROTOCOL.md.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from sessile.record import Heads, Version  # noqa: TC001  # msgspec reads the annotations when it makes the decoder

__all__ = [
    "PROTOCOL",
    "Acked",
    "Answered",
    "Beat",
    "Changed",
    "Denied",
    "Differ",
    "Digest",
    "Goodbye",
    "Hello",
    "Listed",
    "MemberInfo",
    "Members",
    "Message",
    "Offered",
    "Pull",
    "Rejoin",
    "Sequenced",
    "Told",
    "TombstonesAsked",
    "TombstonesTold",
    "Touched",
    "Wanted",
    "Whole",
    "Writing",
]

PROTOCOL: Final = 2
"""Nodes that greet with another number hang up."""

Items = tuple[tuple[bytes, bytes], ...]
"""(key, packed record) each."""


class MemberInfo(Struct, array_like=True, frozen=True):
    """A member as the list has it. Of two for one name the higher incarnation counts, then the higher `stage`."""

    name: str
    """Its address, `host:port`."""
    host: str
    """The machine it runs on: copies of a session go to distinct ones first."""
    incarnation: int
    stage: int = 0
    """0 present, 1 leaving, 2 gone for good."""
    serves: str = ""
    """Where its app is reached, `host:port`, for balancers that learn of servers from the cluster; empty: not told."""


class Hello(Struct, array_like=True, frozen=True, tag=1):
    """The first message of each side of a link."""

    protocol: int
    cluster: str
    strategy: str
    """`all-to-all`, `primary-backup:2`, …: nodes of two strategies hang up."""
    me: MemberInfo
    writer: int
    """The tag in the stamps of what the sender writes."""
    is_fresh: bool
    """Whether the sender holds nothing yet."""
    members: tuple[MemberInfo, ...]
    links: tuple[int, ...] = ()
    """Which of `members` the sender is linked to: where two were apart for too long, the smaller side starts over."""
    apart: tuple[int, ...] = ()
    """Which of `members` the sender has not heard for so long that they may not go on as they are."""


class Members(Struct, array_like=True, frozen=True, tag=2):
    """The member list, when it changed."""

    members: tuple[MemberInfo, ...]


class Beat(Struct, array_like=True, frozen=True, tag=3):
    """A sign of life. A node sends it at every beat, even if it has just sent something else: its lease counts from it."""

    view: int
    """A number that changes with the sender's placement, for the curious."""


class Writing(Struct, array_like=True, frozen=True, tag=4):
    """From now on the sender writes under another tag."""

    writer: int


class Changed(Struct, array_like=True, frozen=True, tag=5):
    """One write; a `Delta` with the common case made short. Sequenced.

    `writer` 0 stands for the tag its sender announced. `base` an integer n: the one head (counter - n, same writer).
    """

    key: bytes
    counter: int
    writer: int
    base: int | Heads
    values: dict[str, bytes]
    additions: dict[str, tuple[int, int, int]] | None = None
    """Name → (counter, writer, total) of an `Addition`."""


class Whole(Struct, array_like=True, frozen=True, tag=6):
    """Whole records, to be merged and held. Sequenced."""

    now_ms: int
    items: Items


class Told(Struct, array_like=True, frozen=True, tag=7):
    """Whole records that the receiver lacks in part: to be merged if it holds them. Not sequenced, not acknowledged."""

    now_ms: int
    items: Items


class Acked(Struct, array_like=True, frozen=True, tag=8):
    """All sequenced messages up to this one are held, but for those denied."""

    upto: int


class Denied(Struct, array_like=True, frozen=True, tag=9):
    """One sequenced message was not applied, or only in part.

    `why` 0 its base is missing here, 1 no room, 2 the receiver is leaving, 3 the record is malformed or beyond limits.
    """

    number: int
    key: bytes
    why: int


class Pull(Struct, array_like=True, frozen=True, tag=10):
    """What have you of this session beyond `have`?"""

    ticket: int
    key: bytes
    heads: Heads
    """What the browser has seen."""
    have: Version | None = None
    """The version of the copy the asker holds."""


class Answered(Struct, array_like=True, frozen=True, tag=11):
    """The answer to a `Pull`: `status` 0 you have it all, 1 here is what you lack, 2 nothing here, 3 not sure just now."""

    ticket: int
    status: int
    now_ms: int
    record: bytes
    """With status 0 and 1; with 0 only its times matter."""


class Touched(Struct, array_like=True, frozen=True, tag=12):
    """Sessions that were used: (key, how many ms ago) each."""

    items: tuple[tuple[bytes, int], ...]


class Digest(Struct, array_like=True, frozen=True, tag=13):
    """Repair: eight bytes a bucket over (key, version, state) of all that sender and receiver both should hold."""

    buckets: bytes


class Differ(Struct, array_like=True, frozen=True, tag=14):
    """Repair: in these buckets, one byte each, your digest is not mine."""

    buckets: bytes


class Offered(Struct, array_like=True, frozen=True, tag=15):
    """Repair: what the sender has and the receiver should hold: 16 bytes of key and 8 of digest each."""

    number: int
    entries: bytes


class Wanted(Struct, array_like=True, frozen=True, tag=16):
    """Repair: of this offer, the receiver wants these keys, and holds the others already."""

    number: int
    keys: bytes


class TombstonesAsked(Struct, array_like=True, frozen=True, tag=17):
    """The sender asks which sessions ended: on each new link, and on every link after it was away."""

    number: int = 0
    """The number of the sender's absence. The answer repeats it, so that an answer to an earlier question does not count."""
    ago_ms: int = -1
    """The sender knows every end that is older than this; -1: it asks for all ends."""


class TombstonesTold(Struct, array_like=True, frozen=True, tag=18):
    """Some of the ends that were asked for. `is_last`: the answer is complete with this message."""

    now_ms: int
    items: Items
    is_last: bool
    number: int = 0
    """The number of the question that this answers."""
    marks: bytes = b""
    """Ends without a tombstone, `ends.MARK` each; only in an answer with all ends."""


class Listed(Struct, array_like=True, frozen=True, tag=19):
    """Directory: of the sessions the sender is first holder of, these came and these went."""

    is_all: bool
    """The list begins anew: what the sender listed before is void."""
    came: bytes
    went: bytes


class Rejoin(Struct, array_like=True, frozen=True, tag=20):
    """You were silent for longer than ended sessions are remembered: drop your table and greet again."""


class Goodbye(Struct, array_like=True, frozen=True, tag=21):
    """The sender has handed over and goes for good."""


Message = (
    Hello
    | Members
    | Beat
    | Writing
    | Changed
    | Whole
    | Told
    | Acked
    | Denied
    | Pull
    | Answered
    | Touched
    | Digest
    | Differ
    | Offered
    | Wanted
    | TombstonesAsked
    | TombstonesTold
    | Listed
    | Rejoin
    | Goodbye
)
Sequenced = Changed | Whole
