"""One other member as a node sees it, and what its silence means.

One table says it: a standing, with or without a link, holds for so long without a sign of life; then comes the next one.
Pure: the time is an argument.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from sessile.errors import SettingsError

if TYPE_CHECKING:
    from sessile.replication.messages import MemberInfo

__all__ = [
    "BY_STAGE",
    "HERE",
    "INCARNATION_MAX",
    "NAME_CHARS_MAX",
    "NEVER_MS",
    "Change",
    "Greeting",
    "Member",
    "Stage",
    "Standing",
    "Timings",
    "is_sane",
]

NEVER_MS: Final = 2**63
SUSPECT_AFTER_MIN_MS: Final = 5
"""Below this a lease, and a beat within it, would be shorter than a millisecond."""
NAME_CHARS_MAX: Final = 300
"""Of a member's name or host; a DNS name has at most 253."""
INCARNATION_MAX: Final = 2**53


class Standing(enum.Enum):
    """How a member is."""

    UNKNOWN = "unknown"
    """This node has not met it, or not since it was started again."""
    ALIVE = "alive"
    SUSPECT = "suspect"
    """Silent; it is still a holder."""
    LEAVING = "leaving"
    """Alive, and no holder any more."""
    DEAD = "dead"
    LEFT = "left"


class Stage(enum.IntEnum):
    """The `stage` of a `MemberInfo`."""

    PRESENT = 0
    LEAVING = 1
    GONE = 2


BY_STAGE: Final = {Stage.PRESENT: Standing.ALIVE, Stage.LEAVING: Standing.LEAVING, Stage.GONE: Standing.LEFT}
"""The standing of a member that is heard, by what it says of itself."""
HERE: Final = frozenset({Standing.ALIVE, Standing.SUSPECT, Standing.LEAVING})

_AFTER_SILENCE: Final = {
    # standing, has a link: how long without a sign of life, and what then. DEAD and LEFT have their link hung up.
    (Standing.ALIVE, True): ("suspect_after_ms", Standing.SUSPECT),
    (Standing.SUSPECT, True): ("dead_after_ms", Standing.DEAD),
    (Standing.LEAVING, True): ("dead_after_ms", Standing.DEAD),
    (Standing.LEFT, True): ("dead_after_ms", Standing.LEFT),
    (Standing.ALIVE, False): ("return_ms", Standing.DEAD),
    (Standing.SUSPECT, False): ("return_ms", Standing.DEAD),
    (Standing.LEAVING, False): ("return_ms", Standing.DEAD),
    (Standing.DEAD, False): ("tombstone_keep_ms", Standing.DEAD),  # for certain
    (Standing.LEFT, False): ("tombstone_keep_ms", Standing.UNKNOWN),  # and forgotten
}


class Change(NamedTuple):
    """A member's standing changed."""

    name: str
    before: Standing
    after: Standing


class Greeting(NamedTuple):
    """What follows from a greeting."""

    refusal: str = ""
    """Why the link is not wanted, if so."""
    replaced: int | None = None
    """The link that it replaces, which is not wanted any more."""
    is_restarted: bool = False
    """The member greeted before, in an earlier incarnation: it has nothing of what it had."""
    is_new: bool = False
    """This incarnation of it never greeted before."""
    silent_ms: int = 0
    """For how long this incarnation of it had not been heard since it was first heard of."""
    is_met: bool = False
    """Whether this incarnation of it was ever heard on a link."""
    remedy: str = ""
    """What a person does about a refusal; empty where nothing is wrong."""


class Timings(Struct, frozen=True, kw_only=True):
    """Timeouts of membership, in milliseconds: when a silent member is suspected, declared dead, or cannot come back.

    Raises:
        SettingsError: they are not in order.
    """

    beat_ms: int = 250
    """Every link carries a `Beat` this often, or more often: see `beat_every_ms`."""
    suspect_after_ms: int = 500
    dead_after_ms: int = 1_000
    return_ms: int = 250
    """A member whose link closed is dead after this time; one that was alive, after `suspect_after_ms` at least."""
    tombstone_keep_ms: int = 600_000
    """What a member that is dead for longer has may not come back: it has missed the ends of sessions."""

    def __post_init__(self) -> None:
        if not 0 < self.beat_ms < self.suspect_after_ms < self.dead_after_ms < self.tombstone_keep_ms:
            raise SettingsError(
                f"beat_ms {self.beat_ms}, suspect_after_ms {self.suspect_after_ms}, dead_after_ms {self.dead_after_ms} "
                f"and tombstone_keep_ms {self.tombstone_keep_ms} must each be greater than the one before, and than 0"
            )
        if not 0 < self.return_ms <= self.dead_after_ms:
            raise SettingsError(f"return_ms {self.return_ms} must lie between 1 and dead_after_ms {self.dead_after_ms}")
        if self.suspect_after_ms < SUSPECT_AFTER_MIN_MS:
            raise SettingsError(f"suspect_after_ms {self.suspect_after_ms} must be at least {SUSPECT_AFTER_MIN_MS}")

    @property
    def lease_ms(self) -> int:
        """How long after a beat a node may serve without asking, since every peer still waits for it: see `pulse.py`."""
        return self.suspect_after_ms - max(self.suspect_after_ms // 10, 2)

    @property
    def beat_every_ms(self) -> int:
        """The interval between beats: `beat_ms`, or five ninths of the lease if that is less.

        A node whose beat is later than its lease allows has to ask its peers what ended meanwhile. So a late event loop has at
        least four ninths of the lease, 200 of 450 ms by default.
        """
        return min(self.beat_ms, self.lease_ms * 5 // 9)


class Member:
    """One other member."""

    __slots__ = (
        "address", "greeted", "heard_ms", "info", "is_confirmed", "is_dialler", "is_met", "link", "since_ms", "standing", "up_ms",
        "was_named",
    )  # fmt: skip

    def __init__(self, info: MemberInfo, now_ms: int) -> None:
        self.info = info
        self.standing = Standing.UNKNOWN
        self.is_confirmed = False
        """Dead or gone for certain: what it held does not come back."""
        self.link: int | None = None
        self.is_dialler = False
        """Whether this node dialled the link."""
        self.up_ms = now_ms
        """When the link came up."""
        self.since_ms = now_ms
        """Since when its silence counts: it was heard, its link closed, it was declared dead, or this node was away."""
        self.heard_ms = now_ms
        """When this incarnation was last heard, or else when it was first heard of, however long ago."""
        self.greeted: int | None = None
        """The incarnation in which it last greeted."""
        self.is_met = False
        """Whether this incarnation was ever heard on a link."""
        self.address = info.name
        """Where it is dialled."""
        self.was_named = False
        """Discovery named it at some time."""

    def __repr__(self) -> str:
        return f"<Member {self.info.name}, {self.standing.value}, link {self.link}>"

    def rank(self) -> tuple[int, int]:
        """Of two that the list has for one name, the higher counts."""
        return self.info.incarnation, self.info.stage

    def is_silent(self, now_ms: int, timings: Timings) -> bool:
        return now_ms >= self.since_ms + timings.suspect_after_ms

    def forgive(self, now_ms: int, timings: Timings) -> None:
        """Its silence was this node's own: give it a beat to be heard."""
        if self.standing in HERE:
            allowed_ms = timings.return_ms if self.link is None else timings.suspect_after_ms
            self.since_ms = max(self.since_ms, now_ms + timings.beat_ms - allowed_ms)

    def outlook(self, timings: Timings) -> tuple[int, Standing]:
        """Until when its standing holds without a sign of life, and what comes then."""
        rule = _AFTER_SILENCE.get((self.standing, self.link is not None))
        if rule is None or (self.standing is Standing.DEAD and self.is_confirmed):
            return NEVER_MS, self.standing
        timing, after = rule
        allowed_ms = int(getattr(timings, timing))
        if self.link is None and self.standing is Standing.ALIVE:
            # Its last beat may have left just before the link closed, so its lease (pulse.py) may count from then.
            allowed_ms = max(allowed_ms, timings.suspect_after_ms)
        return self.since_ms + allowed_ms, after


def is_sane(info: MemberInfo) -> bool:
    """Whether a member may be called so: what others make this node hold is bounded."""
    is_short = 0 < len(info.name) <= NAME_CHARS_MAX and max(len(info.host), len(info.serves)) <= NAME_CHARS_MAX
    return is_short and 0 <= info.incarnation < INCARNATION_MAX and info.stage in BY_STAGE
