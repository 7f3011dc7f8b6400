"""Which copies are current without asking."""

from __future__ import annotations

import asyncio

from sessile.record import Record, Stamp
from sessile.stores import leases as module
from sessile.stores.base import Changed, ChannelDown, ChannelUp
from sessile.stores.leases import Leases
from sessile.table import Table

KEY = b"k" * 16


def leases_of() -> tuple[Leases, Table, Record, list[str]]:
    """A copy of a session with one write, and the leases over its table; the channel is up."""
    table = Table(sessions_max=10, bytes_max=10_000, rotation_grace_ms=10, tombstone_keep_ms=100)
    record, _ = Record.create(now_ms=0, idle_ms=10, deadline_ms=100).write(7, {"a": b"1"}, now_ms=0)
    table.put(KEY, record)
    failovers: list[str] = []
    leases = Leases(table, lambda: failovers.append("over"))
    leases.told(ChannelUp("one"))
    return leases, table, record, failovers


def leased(leases: Leases, record: Record) -> bool:
    watch = leases.watch(KEY)
    leases.unwatch(KEY, watch)
    leases.judge(KEY, watch, record)
    return KEY in leases


def test_silence_means_that_nothing_changed() -> None:
    """Word of what the copy has changes nothing; of anything else, of an end, or of a lost channel, ends the lease."""
    leases, _, record, _ = leases_of()
    for event in (
        Changed(KEY, (Stamp(2, 7),), False),
        Changed(KEY, (Stamp(1, 8),), False),
        Changed(KEY, record.heads, True),
        ChannelDown(),
        ChannelUp("one"),
    ):
        leases.told(ChannelUp("one"))
        assert leased(leases, record)
        leases.told(Changed(KEY, record.heads, False))
        leases.told(Changed(b"o" * 16, (Stamp(9, 9),), True))
        assert KEY in leases
        leases.told(event)
        assert KEY not in leases and len(leases) == 0
    assert leases.is_over(KEY)


def test_what_was_told_meanwhile_counts() -> None:
    """A change, or a channel that came and went, between the question and its answer."""
    leases, _, record, _ = leases_of()
    for event in (Changed(KEY, (Stamp(2, 7),), False), ChannelUp("one")):
        watch = leases.watch(KEY)
        leases.told(event)
        leases.unwatch(KEY, watch)
        leases.judge(KEY, watch, record)
        assert KEY not in leases
    assert leased(leases, record)
    leases.drop(KEY)
    assert KEY not in leases
    leases.told(ChannelDown())
    assert not leased(leases, record)


def test_what_is_over_is_never_leased_and_remembered_for_long() -> None:
    """The oldest of very many are forgotten."""
    leases, _, record, _ = leases_of()
    assert not leased(leases, record.end(2, 1))
    assert leases.is_over(KEY)
    for number in range(module.OVER_MAX):
        leases.told(Changed(number.to_bytes(16, "big"), (), True))
    assert not leases.is_over(KEY)


def test_another_primary_is_told() -> None:
    """The first one that answers is none; the same one that comes back is none."""
    leases, _, _, failovers = leases_of()
    leases.told(ChannelUp("one"))
    assert failovers == []
    leases.told(ChannelUp("two"))
    assert failovers == ["over"]


def test_an_echo_is_the_channels_word_of_an_end() -> None:
    """Who waits for the same end waits for the same word; without a channel there is none."""

    async def run() -> None:
        leases, _, _, _ = leases_of()
        echo = leases.echo(KEY)
        assert echo is not None and leases.echo(KEY) is echo
        leases.told(Changed(KEY, (), False))
        assert not echo.done()
        leases.told(Changed(KEY, (), True))
        assert echo.done()
        leases.told(ChannelDown())
        assert leases.echo(KEY) is None

    asyncio.run(run())
