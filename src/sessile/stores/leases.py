"""Leases: which copies are known to be current without asking the store, because its channel announces every change.

A copy is leased if it was current at some time, and since then the channel has been up and has announced no change that the
copy lacks. While a question or a push is under way, the channel may announce a change that the answer does not contain yet; a
`Watch` remembers it.

A process that does not read its channel hears of no change. So the channel sends a beat to the store at short intervals. The
*pulse* is the time at which the newest beat that came back was sent: everything published before it has been received. A lease
counts only while the pulse is younger than `LEASE_MS`, whichever thread asks. A process that was stopped, or whose loop did not
run, must ask the store. So an end waits for no server longer than `LEASE_MS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.record import ENDED, LIVE, REPLACED, ROTATED, Record
from sessile.stores.base import Changed, ChannelDown, ChannelUp, Confirmed, Pulse

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Protocol

    from sessile.record import Heads
    from sessile.stores.base import Channel
    from sessile.stores.confirmations import Confirmations
    from sessile.table import Table
    from sessile.token import SessionKey

    class Copies(Protocol):
        """The copies that a server holds: the part of its engine that this package uses."""

        table: Table
        lock: threading.Lock
        """Must be held while the table is used."""
        clock_ms: Callable[[], int]


__all__ = ["LEASE_MS", "Leases", "Watch"]

LEASE_MS: Final = 300
"""A lease counts while the pulse is younger than this. Three beats fit into it, so that a late one costs no trip. A logout waits
no longer than this for a server that does not confirm it."""
USED_MS: Final = 5_000
"""After this time without a request for a copy no beats are sent: an idle server costs no trips, and no end waits for it."""
SPARE: Final = 1_000
"""Leases without a copy are dropped when there are this many more leases than twice the copies."""
_NEVER_MS: Final = -(2**62)


class Watch:
    """The changes of a session that the channel announced while a question or a push was under way."""

    __slots__ = ("channel", "is_over", "told")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.told: list[Heads] = []
        self.is_over = False
        """Whether the channel announced that the session has ended."""


class Leases:
    """The leases of one server.

    Args:
        copies: the copies held here.
        confirmations: receives the confirmations of ends that arrive over the channel.
        lasts_ms: how long an end that the channel announces is remembered; no session lives longer.
        failed_over: called when the channel comes up at another primary than before.
        contradicted: called when the channel announces a write to a session whose end is remembered here.
    """

    def __init__(
        self,
        copies: Copies,
        confirmations: Confirmations,
        *,
        lasts_ms: int,
        failed_over: Callable[[], None],
        contradicted: Callable[[SessionKey], None],
    ) -> None:
        self.is_up = False
        """Whether the channel is up."""
        self._copies = copies
        self._table = copies.table
        self._confirmations = confirmations
        self._lasts_ms = lasts_ms
        self._failed_over = failed_over
        self._contradicted = contradicted
        self._leased: set[SessionKey] = set()
        self._watches: dict[SessionKey, list[Watch]] = {}
        self._channel = 0
        """A number that changes when the channel comes up or goes down, or the store goes away."""
        self._primary = ""
        self._pulse_ms = _NEVER_MS
        self._used_ms = _NEVER_MS

    def __len__(self) -> int:
        return len(self._leased)

    def __contains__(self, key: object) -> bool:
        return key in self._leased

    def is_sure(self, key: SessionKey, now_ms: int) -> bool:
        """Whether the copy is known to be current at this time. Any thread may call this."""
        self._used_ms = now_ms
        return key in self._leased and now_ms - self._pulse_ms < LEASE_MS

    def is_used(self) -> bool:
        """Whether a copy was asked for lately."""
        return self._copies.clock_ms() - self._used_ms < USED_MS

    def drop(self, key: SessionKey) -> None:
        """Drop the lease of this session."""
        self._leased.discard(key)

    def drop_all(self) -> None:
        """Drop every lease. Answers to questions under way give no lease either."""
        self._leased.clear()
        self._channel += 1
        self._pulse_ms = _NEVER_MS

    def thin_out(self) -> None:
        """Drop the leases of copies that are no longer held."""
        if len(self._leased) > len(self._table):
            self._leased = {key for key in list(self._leased) if self._table.get(key) is not None}

    # -- during questions and pushes ---------------------------------------------------------------------------------

    def watch(self, key: SessionKey) -> Watch:
        """Begin to watch a session, before a question or a push."""
        watch = Watch(self._channel)
        self._watches.setdefault(key, []).append(watch)
        return watch

    def unwatch(self, key: SessionKey, watch: Watch) -> None:
        """Stop watching, whether or not the question or push was answered."""
        watches = self._watches[key]
        watches.remove(watch)
        if not watches:
            del self._watches[key]

    def judge(self, key: SessionKey, watch: Watch, record: Record | None) -> None:
        """Lease a record that the store had during the watch, unless a newer change was announced meanwhile."""
        is_current = (
            record is not None
            and record.state == LIVE
            and self.is_up
            and watch.channel == self._channel
            and not watch.is_over
            and all(record.covers(heads) for heads in watch.told)
            and key not in self._table.ends
        )
        if not is_current:
            self._leased.discard(key)
            return
        self._leased.add(key)
        if len(self._leased) > 2 * len(self._table) + SPARE:
            self.thin_out()

    # -- from the channel --------------------------------------------------------------------------------------------

    def told(self, event: Channel) -> None:
        """Handle an event of the channel: about a session, or about the channel itself."""
        match event:
            case Changed():
                self._changed(event)
            case Pulse():
                self._pulse_ms = max(self._pulse_ms, self._copies.clock_ms() - event.ago_ms)
            case Confirmed():
                self._confirmations.told(event.key, event.by)
            case ChannelUp():
                self.drop_all()
                self.is_up = True
                self._used_ms = self._copies.clock_ms()  # requests are likely to come
                is_other, self._primary = event.primary != self._primary != "", event.primary
                if is_other:
                    self._failed_over()
            case ChannelDown():
                self.drop_all()
                self.is_up = False

    def _changed(self, event: Changed) -> None:
        key, is_over = event.key, event.state != LIVE
        for watch in self._watches.get(key, ()):
            watch.told.append(event.heads)
            watch.is_over |= is_over
        packed = self._table.get(key)
        with self._copies.lock:
            is_known = self._table.has_ended(key) or key in self._table.ends
            # A rotation is remembered only with a copy: without one, requests in its grace are answered from the store.
            if is_over and not is_known and (event.state >= ENDED or packed is not None):
                until_ms = self._copies.clock_ms() + self._lasts_ms
                self._table.note_ended(key, until_ms, is_replaced=event.state in {ROTATED, REPLACED})
                if event.state >= ENDED:  # in the grace of a rotation the store's state is asked for
                    self._table.end_remembered((key,), self._copies.clock_ms())
        if is_known and not is_over:
            self._contradicted(key)
        if key in self._leased and (is_over or packed is None or not Record.unpack(packed).covers(event.heads)):
            self._leased.discard(key)
