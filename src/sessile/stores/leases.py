"""Which copies are current without asking: the store's channel tells of every change, so silence means none.

A copy is leased when it was current at a moment from which on the channel has been up, and has told of nothing that the copy
lacks. While something is asked or pushed the channel may tell of a change that the answer does not know yet; a `Watch`
remembers that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from sessile.forks import dropped_by
from sessile.record import LIVE, Record
from sessile.stores.base import Changed, ChannelDown, ChannelUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.record import Heads
    from sessile.stores.base import Channel
    from sessile.table import Table
    from sessile.token import SessionKey

__all__ = ["Leases", "Watch"]

OVER_MAX: Final = 100_000
"""So many sessions that are over are remembered beside the table's tombstones."""
ECHOES_S: Final = 1.0


class Watch:
    """What the channel told of a session while something was asked or pushed."""

    __slots__ = ("channel", "told")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.told: list[Heads] = []


@dropped_by("Shared", "a child has no lease: the channel tells it of nothing yet")
class Leases:
    """The leases of one server.

    Args:
        table: the copies.
        failed_over: called when another primary of the store tells of changes than before.
    """

    def __init__(self, table: Table, failed_over: Callable[[], None]) -> None:
        self.is_up = False
        """Whether the channel is."""
        self._table = table
        self._failed_over = failed_over
        self._leased: set[SessionKey] = set()
        self._watches: dict[SessionKey, list[Watch]] = {}
        self._echoes: dict[SessionKey, asyncio.Future[None]] = {}
        self._over: OrderedDict[SessionKey, None] = OrderedDict()
        self._channel = 0
        """How often it came up, went down, or the store went away."""
        self._primary = ""

    def __len__(self) -> int:
        return len(self._leased)

    def __contains__(self, key: object) -> bool:
        return key in self._leased

    def is_over(self, key: SessionKey) -> bool:
        """Whether the store has said that this session is over: a copy that is still held is worth nothing."""
        return key in self._over

    def drop(self, key: SessionKey) -> None:
        """Ask for this session next time."""
        self._leased.discard(key)

    def drop_all(self) -> None:
        """Ask for every session next time, and believe no answer that is on its way to be the newest."""
        self._leased.clear()
        self._channel += 1

    # -- while something is on its way -------------------------------------------------------------------------------

    def watch(self, key: SessionKey) -> Watch:
        """Something is asked or pushed now."""
        watch = Watch(self._channel)
        self._watches.setdefault(key, []).append(watch)
        return watch

    def unwatch(self, key: SessionKey, watch: Watch) -> None:
        """It was answered, or not."""
        watches = self._watches[key]
        watches.remove(watch)
        if not watches:
            del self._watches[key]

    def judge(self, key: SessionKey, watch: Watch, record: Record | None) -> None:
        """This record is what the store had while it was watched: lease it, if nothing newer was told meanwhile."""
        if record is not None and record.state != LIVE:
            self._note_over(key)
        is_current = (
            record is not None
            and record.state == LIVE
            and self.is_up
            and watch.channel == self._channel
            and all(record.covers(heads) for heads in watch.told)
        )
        (self._leased.add if is_current else self._leased.discard)(key)

    def echo(self, key: SessionKey) -> asyncio.Future[None] | None:
        """What is there when the channel has told that this session is over; None while there is no channel."""
        if not self.is_up:
            return None
        echo = self._echoes.get(key)
        if echo is None:
            loop = asyncio.get_running_loop()
            echo = self._echoes[key] = loop.create_future()
            loop.call_later(ECHOES_S, self._echoes.pop, key, None)
        return echo

    # -- what the channel tells --------------------------------------------------------------------------------------

    def told(self, event: Channel) -> None:
        """Something of a session, or of the channel itself."""
        match event:
            case Changed():
                self._changed(event)
            case ChannelUp():
                self.drop_all()
                self.is_up = True
                is_other, self._primary = event.primary != self._primary != "", event.primary
                if is_other:
                    self._failed_over()
            case ChannelDown():
                self.drop_all()
                self.is_up = False

    def _changed(self, event: Changed) -> None:
        for watch in self._watches.get(event.key, ()):
            watch.told.append(event.heads)
        if event.is_over:
            self._note_over(event.key)
            echo = self._echoes.pop(event.key, None)
            if echo is not None and not echo.done():
                echo.set_result(None)
        if event.key in self._leased:
            packed = self._table.get(event.key)
            if event.is_over or packed is None or not Record.unpack(packed).covers(event.heads):
                self._leased.discard(event.key)

    def _note_over(self, key: SessionKey) -> None:
        self._over[key] = None
        self._over.move_to_end(key)
        if len(self._over) > OVER_MAX:
            self._over.popitem(last=False)
