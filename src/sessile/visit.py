"""What the engine knows of one request, from its cookies to its answer.

Plain state that adapters carry and only the engine reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessile.backend import Change
    from sessile.cookies import Presented
    from sessile.record import Record
    from sessile.token import Identity, SessionKey, Visitor

__all__ = ["Given", "Step", "Visit"]


class Given:
    """The last record that this process wrote of a session, shared by all its requests under way in that session.

    The table may drop its copy during these requests. They continue from this record, so that each write builds on the one
    before, and no stamp is used twice.
    """

    __slots__ = ("__weakref__", "record")

    def __init__(self) -> None:
        self.record: Record | None = None


class Visit:
    """What the engine knows of one request. What most requests never set stands on the class."""

    presented: Presented | None = None
    visitor: Visitor | None = None
    """Who asks, and what the browser's version cookie says it has seen."""
    drawn: Identity | None = None
    """What a new session will be, if there comes one."""
    pulled: Record | None = None
    """What was held here when others were asked, merged with what they gave."""
    is_stale: bool = False
    is_crowded: bool = False
    """Whether the record has more heads than a cookie may name, so that a write must join them."""
    is_current: bool = False
    """Whether the browser has seen this very state, so that there is nothing to tell it."""
    unavailable: str = ""
    """Why the session cannot be told, where that is so."""
    packed: bytes | None = None
    """The table's bytes that the session was opened from."""
    given: Given | None = None
    """What this process wrote to the session since others were asked; the table need not hold it any more."""
    touched_ms: int = 0
    """When the request last counted as a use of the session, beyond its beginning."""
    has_ended: bool = False
    is_created: bool = False

    def __init__(self, cookie_headers: Iterable[bytes], *, is_https: bool) -> None:
        self.cookie_headers = cookie_headers
        self.is_https = is_https


@dataclass(frozen=True, slots=True)
class Step:
    """Something the other holders are to be told of a session before the answer leaves.

    Without a change they have been told, and are waited for. `make` does, when its turn has come, what the change tells of.
    """

    key: SessionKey
    change: Change | None = None
    make: Callable[[], Change] | None = None
    check: Callable[[], None] | None = None
    """Called when the change was pushed; raises SessionEnded where the session has ended meanwhile."""
    undo: Step | None = None
    """What is to be pushed, instead or as well, where `make`, the push or `check` finds that the session has ended."""
