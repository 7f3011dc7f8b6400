"""The table as a cache: what the others hold as well may go."""

from __future__ import annotations

import pytest

from sessile.errors import SessionLimit
from sessile.table import EVICTION_LOOKS, SCHEDULED_SPARE
from tests.table_model import IDLE_MS, SLOT_MS, hold_sums, key, live, make, sweep_out


def test_a_cache_lets_go_of_what_was_not_used_lately() -> None:
    """Entered first, and not decoded since; what may not go stays, and without anything that may there is no room."""
    table = make(sessions_max=4)
    kept: set[bytes] = set()
    table.may_evict = lambda one: one not in kept
    keys = [key(number) for number in range(6)]
    for each in keys[:4]:
        table.put(each, live())
        table._hot.clear()
    kept.add(keys[0])
    table.find(keys[1])
    table.put(keys[4], live())
    assert set(table) == {keys[0], keys[1], keys[3], keys[4]} and table.evicted == 1
    kept.update(table)
    with pytest.raises(SessionLimit):
        table.put(keys[5], live())


@pytest.mark.parametrize("held", [1, 2, 63, 64, 65, 200, 1_000])
def test_a_cache_in_which_everything_is_in_use_makes_room_all_the_same(held: int) -> None:
    """However many there are: a copy that goes costs one trip, a refused session a user."""
    table = make(sessions_max=held)
    table.may_evict = lambda one: True
    for number in range(held + 10):
        table.put(key(number), live())
    assert (len(table), table.evicted) == (held, 10)


def test_what_made_room_is_not_remembered_until_its_time_would_have_come() -> None:
    """However many go through: a server's memory is bounded by what it holds."""
    table = make(sessions_max=100)
    table.may_evict = lambda one: True
    for number in range(20_000):
        table.put(key(number), live(number))
        table.put(key(number % 7), live(number))  # some come back again and again
    hold_sums(table)
    assert len(table) == 100 and len(table._round) <= 100
    assert table._scheduled <= 2 * 100 + SCHEDULED_SPARE + 1
    sweep_out(table, 20_000 + IDLE_MS + SLOT_MS)
    assert (len(table), table.expired) == (0, 100)


def test_copies_are_looked_at_each_in_its_turn() -> None:
    """What expired or was dropped meanwhile is no obstacle."""
    table = make(sessions_max=300)
    table.may_evict = lambda one: True
    for number in range(301):
        table.put(key(number), live())
    for each in list(table)[:-1]:
        table.drop(each)
    for number in range(1_000, 1_299):
        table.put(key(number), live())
    for number in range(2_000, 2_010):
        table.put(key(number), live())
    assert len(table) == 300


def test_what_is_in_use_is_spared_for_a_bounded_number_of_looks() -> None:
    """Where all copies are in use, the first one that is looked at after these goes."""
    table = make(sessions_max=EVICTION_LOOKS + 4)
    table.may_evict = lambda one: True
    for number in range(EVICTION_LOOKS + 5):
        table.put(key(number), live())
    assert table.get(key(EVICTION_LOOKS)) is None and len(table) == EVICTION_LOOKS + 4
