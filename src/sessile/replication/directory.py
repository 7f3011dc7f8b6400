"""`directory=keys`: every node knows the keys of all sessions, though only their holders hold them.

Each node lists the sessions of which it is the first holder and has a copy; what all list together is the directory. When
placement changes, or a copy comes or goes, a node's own list changes and it tells the others. Nothing is looked up by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.errors import WireError
from sessile.record import LIVE
from sessile.replication.messages import Listed
from sessile.replication.replica import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Directory"]

LISTED_KEYS: Final = 4_000
"""Keys in one message."""
LISTED_MAX: Final = 4_000_000
"""Keys that one node may list."""
CHECKED: Final = 500
"""So many of the own keys are held against the table at a time: sessions expire without anybody saying so. A millisecond."""


class Directory:
    """The keys of all sessions, by who lists them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._own: dict[SessionKey, None] = {}
        self._lists: dict[str, set[SessionKey]] = {}
        self._came: dict[SessionKey, None] = {}
        self._went: dict[SessionKey, None] = {}
        self._checking: list[SessionKey] = []
        if context.config.directory:
            context.alarm(context.config.flush_ms, self._flush)

    def __len__(self) -> int:
        return len(set(self))

    def __iter__(self) -> Iterator[SessionKey]:
        yield from self._own
        for listed in self._lists.values():
            yield from listed

    def __contains__(self, key: object) -> bool:
        return key in self._own or any(key in listed for listed in self._lists.values())

    def look(self, key: SessionKey) -> None:
        """A copy came, changed or went here: list it, or no longer."""
        if not self._context.config.directory:
            return
        is_mine = self._context.placement.is_first(key) and self._context.replica.table.state(key) == LIVE
        if is_mine and key not in self._own:
            self._own[key] = None
            self._came[key] = None
            self._went.pop(key, None)
        elif not is_mine and key in self._own:
            del self._own[key]
            self._came.pop(key, None)
            self._went[key] = None

    def view_changed(self) -> None:
        """Others are first holders now: the list is made anew, some keys at a time."""
        if self._context.config.directory:
            self._checking = list({**dict.fromkeys(self._context.replica.table), **self._own})

    def greeted(self, peer: Peer) -> None:
        """A new peer gets the whole list."""
        if self._context.config.directory:
            keys = list(self._own)
            self._send(peer, keys[:LISTED_KEYS], [], is_all=True)
            for at in range(LISTED_KEYS, len(keys), LISTED_KEYS):
                self._send(peer, keys[at : at + LISTED_KEYS], [])

    def gone(self, name: str) -> None:
        """What a node listed is void when it is gone: those who take over list it."""
        self._lists.pop(name, None)

    def take_listed(self, peer: Peer, message: Listed) -> None:
        if len(message.came) % KEY_BYTES or len(message.went) % KEY_BYTES:
            raise WireError("a list is not made of keys")
        listed = set() if message.is_all else self._lists.get(peer.name, set())
        listed.update(_keys(message.came))
        listed.difference_update(_keys(message.went))
        if len(listed) > LISTED_MAX:
            raise WireError(f"{peer.name} lists more than {LISTED_MAX} sessions")
        self._lists[peer.name] = listed

    def _flush(self) -> None:
        """Tell the others what came and went, and look after some of the own keys."""
        context = self._context
        if not self._checking:
            self._checking = list(self._own)
        for key in self._checking[-CHECKED:]:
            self.look(key)
        del self._checking[-CHECKED:]
        came, went = list(self._came), list(self._went)
        self._came, self._went = {}, {}
        for at in range(0, max(len(came), len(went)), LISTED_KEYS):
            for peer in context.peers.values():
                self._send(peer, came[at : at + LISTED_KEYS], went[at : at + LISTED_KEYS])
        context.alarm(context.config.flush_ms, self._flush)

    def _send(self, peer: Peer, came: list[SessionKey], went: list[SessionKey], *, is_all: bool = False) -> None:
        self._context.send(peer, Listed(is_all, b"".join(came), b"".join(went)))


def _keys(joined: bytes) -> list[SessionKey]:
    return [joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES)]
