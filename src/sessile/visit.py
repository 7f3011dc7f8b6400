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
    from sessile.token import Identity, Visitor

__all__ = ["Step", "Visit"]


class Visit:
    """What the engine knows of one request. What most requests never set stands on the class."""

    presented: Presented | None = None
    visitor: Visitor | None = None
    """Who asks, and what the browser's version cookie says it has seen."""
    drawn: Identity | None = None
    """What a new session will be, if there comes one."""
    pulled: Record | None = None
    """What other holders gave, where this server holds no copy that covers `seen`."""
    is_stale: bool = False
    is_crowded: bool = False
    """Whether the record has more heads than a cookie may name, so that a write must join them."""
    is_current: bool = False
    """Whether the browser has seen this very state, so that there is nothing to tell it."""
    unavailable: str = ""
    """Why the session cannot be told, where that is so."""
    packed: bytes | None = None
    """The table's bytes that the session was opened from."""
    has_ended: bool = False
    is_created: bool = False

    def __init__(self, cookie_headers: Iterable[bytes], *, is_https: bool) -> None:
        self.cookie_headers = cookie_headers
        self.is_https = is_https


@dataclass(frozen=True, slots=True)
class Step:
    """Something to be told to the other holders, and what to do here once they know."""

    change: Change
    then: Callable[[], None] | None = None
