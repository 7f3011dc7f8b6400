"""Which copies are current without asking."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from sessile.record import ENDED, LIVE, REPLACED, ROTATED, Record, Stamp
from sessile.stores.base import Changed, ChannelDown, ChannelUp, Confirmed, Pulse
from sessile.stores.confirmations import Confirmations
from sessile.stores.leases import LEASE_MS, SPARE, USED_MS, Leases
from sessile.table import Table
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"k" * 16
LASTS_MS = 50_000


class Held:
    """A copy of a session with one write, and the leases over its table; the channel is up and was just heard."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.clock_ms: Callable[[], int] = self.clock
        self.lock = threading.Lock()
        self.table = Table(sessions_max=50_000, bytes_max=10**8, rotation_grace_ms=10, tombstone_keep_ms=100)
        self.record = self.hold(KEY)
        self.failovers: list[str] = []
        self.contradicted: list[bytes] = []
        self.confirmations = Confirmations()
        self.leases = Leases(
            self,
            self.confirmations,
            lasts_ms=LASTS_MS,
            failed_over=lambda: self.failovers.append("over"),
            contradicted=self.contradicted.append,
        )
        self.told(ChannelUp("one"))
        self.told(Pulse(0))

    def hold(self, key: bytes) -> Record:
        now_ms = self.clock()
        record = Record.create(now_ms=now_ms, idle_ms=10_000, deadline_ms=now_ms + 100_000)
        record, _ = record.write(7, {"a": b"1"}, now_ms=now_ms)
        self.table.put(key, record)
        return record

    def told(self, event: Changed | ChannelUp | ChannelDown | Pulse | Confirmed) -> None:
        self.leases.told(event)

    def is_leased(self, key: bytes = KEY) -> bool:
        """Whether the copy is leased once it was asked for, with that for an answer."""
        packed = self.table.get(key)
        watch = self.leases.watch(key)
        self.leases.unwatch(key, watch)
        self.leases.judge(key, watch, None if packed is None else Record.unpack(packed))
        return key in self.leases

    def is_sure(self) -> bool:
        return self.leases.is_sure(KEY, self.clock())


@pytest.fixture
def held() -> Held:
    return Held()


def test_silence_means_that_nothing_changed(held: Held) -> None:
    """Word of what the copy has changes nothing; of anything else, of an end, or of a lost channel, ends the lease."""
    heads = held.record.heads
    for event in (
        Changed(KEY, (Stamp(2, 7),), LIVE),
        Changed(KEY, (Stamp(1, 8),), LIVE),
        ChannelDown(),
        ChannelUp("one"),
        Changed(KEY, heads, ENDED),
    ):
        held.told(ChannelUp("one"))
        assert held.is_leased()
        held.told(Changed(KEY, heads, LIVE))
        held.told(Changed(b"o" * 16, (Stamp(9, 9),), ENDED))
        assert KEY in held.leases
        held.told(event)
        assert KEY not in held.leases and len(held.leases) == 0


def test_what_was_told_meanwhile_counts(held: Held) -> None:
    """A change, an end, or a channel that came and went, between the question and its answer."""
    for event in (Changed(KEY, (Stamp(2, 7),), LIVE), ChannelUp("one"), Changed(KEY, held.record.heads, ROTATED)):
        watch = held.leases.watch(KEY)
        held.told(event)
        held.leases.unwatch(KEY, watch)
        held.leases.judge(KEY, watch, held.record)
        assert KEY not in held.leases
        assert watch.is_over == (event == Changed(KEY, held.record.heads, ROTATED))
    held = Held()
    assert held.is_leased()
    held.leases.drop(KEY)
    assert KEY not in held.leases
    held.told(ChannelDown())
    assert not held.is_leased()


def test_silence_must_have_been_heard(held: Held) -> None:
    """A lease counts while the pulse is young, for whoever asks: a process that was stopped, or did not listen, is not sure."""
    assert held.is_leased() and held.is_sure()
    held.clock.advance((LEASE_MS - 1) / 1000)
    assert held.is_sure()
    held.clock.advance(0.001)
    assert not held.is_sure() and KEY in held.leases
    held.told(Pulse(LEASE_MS))
    assert not held.is_sure(), "what was answered now was asked long ago"
    held.told(Pulse(LEASE_MS - 1))
    assert held.is_sure()
    held.told(Pulse(LEASE_MS + 100))
    assert held.is_sure(), "an older answer takes nothing away"
    held.told(ChannelDown())
    held.told(ChannelUp("one"))
    assert held.is_leased() and not held.is_sure(), "what the last link has told says nothing of this one"


def test_a_clock_may_begin_anywhere() -> None:
    """Where nothing was heard nothing is sure, and what was not asked for is not in use, at the clock's first moment too."""
    held = Held()
    held.clock.now_ms = 0
    held.told(ChannelUp("one"))
    assert held.is_leased() and not held.is_sure()
    fresh = Leases(held, held.confirmations, lasts_ms=1, failed_over=lambda: None, contradicted=lambda _: None)
    assert not fresh.is_used()


def test_a_pulse_is_kept_up_while_copies_are_asked_for(held: Held) -> None:
    """An idle server asks the store nothing."""
    for use in (
        lambda: held.leases.is_sure(b"o" * 16, held.clock()),
        lambda: held.told(ChannelUp("one")),
    ):
        held.clock.advance(USED_MS / 1000)
        assert not held.leases.is_used()
        use()
        assert held.leases.is_used()


def test_what_is_over_is_never_leased_and_remembered(held: Held) -> None:
    """However many others end after it; until its deadline, which is no further away than a session may last."""
    held.told(Changed(KEY, (), ENDED))
    assert KEY in held.table.ends and not held.is_leased()
    for number in range(20_000):
        held.told(Changed(number.to_bytes(16, "little"), (), ENDED))
    assert KEY in held.table.ends and (0).to_bytes(16, "little") in held.table.ends
    until_ms = held.table.ends.until_ms(KEY)
    assert until_ms is not None and until_ms - held.clock() >= LASTS_MS


def test_a_copy_of_what_is_over_is_held_no_longer(held: Held) -> None:
    """Until its idle timeout it would take the room of a live session. The copy of a rotated one is asked about."""
    for key, state, left in ((KEY, ENDED, ENDED), (b"r" * 16, REPLACED, REPLACED), (b"o" * 16, ROTATED, LIVE)):
        held.hold(key)
        size = held.table.live_bytes
        held.told(Changed(key, (), state))
        assert held.table.state(key) == left and (held.table.live_bytes < size) is (left != LIVE)


def test_a_rotated_session_is_left_to_those_who_ask(held: Held) -> None:
    """A copy is not served without asking; where none is held nothing is remembered, for the grace is in the store."""
    held.told(Changed(KEY, (), ROTATED))
    held.told(Changed(b"o" * 16, (), ROTATED))
    assert KEY in held.table.ends and b"o" * 16 not in held.table.ends
    assert not held.is_leased()


def test_word_that_contradicts_an_end_is_noticed(held: Held) -> None:
    """A session that is said to live after it ended, by its tombstone or by what is remembered."""
    other = b"o" * 16
    held.told(Changed(KEY, held.record.heads, LIVE))
    assert held.contradicted == []
    held.table.put(KEY, held.record.end(ENDED, held.clock()))
    held.told(Changed(other, (), ENDED))
    for key in (KEY, other):
        held.told(Changed(key, held.record.heads, LIVE))
    assert held.contradicted == [KEY, other]


def test_another_primary_is_told(held: Held) -> None:
    """The first one that answers is none; the same one that comes back is none."""
    held.told(ChannelUp("one"))
    assert held.failovers == []
    held.told(ChannelUp("two"))
    assert held.failovers == ["over"]


def test_whoever_has_heard_of_an_end_is_passed_on(held: Held) -> None:
    """To those that wait for it."""
    with held.confirmations.expecting(KEY) as expected:
        held.told(Confirmed(KEY, b"other"))
        held.told(Confirmed(b"o" * 16, b"third"))
        assert expected.heard == {b"other"}


def test_leases_go_with_their_copies(held: Held) -> None:
    """Thousands of sessions that were used once and ran out of time leave no lease behind."""
    for number in range(4 * SPARE):
        key = number.to_bytes(16, "little")
        held.hold(key)
        assert held.is_leased(key)
        held.table.drop(key)
        assert len(held.leases) <= 2 * (len(held.table) + 1) + SPARE
    held.leases.thin_out()
    assert len(held.leases) == 0
    assert held.is_leased()
    held.leases.thin_out()
    assert len(held.leases) == 1


def test_before_there_is_a_channel_nothing_is_leased() -> None:
    """Nobody would tell of what changes."""
    held = Held()
    leases = Leases(
        held, held.confirmations, lasts_ms=LASTS_MS, failed_over=lambda: None, contradicted=held.contradicted.append
    )
    leases.judge(KEY, leases.watch(KEY), held.record)
    assert KEY not in leases


def test_nothing_is_left_of_what_was_watched(held: Held) -> None:
    """Of several questions for one session as well."""
    watches = [held.leases.watch(KEY) for _ in range(2)]
    for watch in watches:
        held.leases.unwatch(KEY, watch)
    assert not held.leases._watches
