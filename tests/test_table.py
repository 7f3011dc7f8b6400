"""What a server holds: within its limits, counted to the byte, and gone when its time has come."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile import table as table_module
from sessile.ends import MARGIN_MS, SHARDS
from sessile.errors import SessionEnded, SessionLimit
from sessile.record import ENDED, LIVE, REPLACED, ROTATED
from sessile.table import ENTRY_BYTES, GROWTH, HOT_MAX, HOT_RECORD_BYTES_MAX, TOMBSTONES_SHARE
from tests.table_model import (
    ABSOLUTE_MS,
    GRACE_MS,
    IDLE_MS,
    KEEP_MS,
    SLOT_MS,
    Model,
    Step,
    due_ms,
    held,
    hold_sums,
    key,
    live,
    make,
    steps,
    sweep_out,
)

# -- against a dumb model --------------------------------------------------------------------------------------------------


@given(steps, st.integers(1, 3), st.sampled_from([0, table_module.SCHEDULED_SPARE]))
def test_the_table_does_what_a_dictionary_and_a_look_at_every_entry_would(
    steps: list[Step], at_most: int, spare: int
) -> None:
    """Whatever happens in whatever order: every figure is exact, nothing goes early, and everything due goes."""
    with patch.object(table_module, "SCHEDULED_SPARE", spare):
        _play(steps, at_most)


def _play(steps: list[Step], at_most: int) -> None:
    model = Model()
    for step in steps:
        model.take(step)
    for _ in range(100):
        model.sweep(at_most)
        moments = [due_ms(record) for record in model.records.values() if due_ms(record) > model.now_ms]
        model.now_ms = max(min(moments, default=0), model.now_ms + SLOT_MS)
    assert not model.records, "everything due is gone after enough sweeps"
    assert model.table.held_bytes == 0
    sweep_out(model.table, model.now_ms + ABSOLUTE_MS)
    assert not model.table._wheel and not model.table._due, "a table that holds nothing remembers nothing"


# -- the life of an entry --------------------------------------------------------------------------------------------------


def test_a_session_nobody_touches_goes_after_its_idle_timeout() -> None:
    """It stays until the moment it is due and is gone a second after."""
    table = make()
    table.put(key(1), live(500))
    assert not table.sweep(500 + IDLE_MS - 1) and len(table) == 1
    assert not table.sweep(500 + IDLE_MS + SLOT_MS) and len(table) == 0
    assert table.expired == 1


def test_where_word_of_a_touch_may_be_on_its_way_a_session_is_held_longer() -> None:
    """By a part of its idle timeout, never beyond its deadline; a tombstone is due when it was."""
    table = make(idle_slack=0.1)
    record = live()
    assert table.due_ms(record) == IDLE_MS + IDLE_MS // 10
    assert table.due_ms(record.touch(ABSOLUTE_MS - IDLE_MS)) == ABSOLUTE_MS
    assert table.due_ms(record.touch(ABSOLUTE_MS - IDLE_MS - IDLE_MS // 20)) == ABSOLUTE_MS
    assert table.due_ms(record.end(ROTATED, 5)) == 5 + GRACE_MS
    assert table.due_ms(record.end(ENDED, 5)) == 5 + KEEP_MS


def test_it_is_told_of_a_session_that_runs_out() -> None:
    """Just before it goes, with what it held; nobody is told of tombstones, or of what somebody drops."""
    table, told = make(), []
    table.on_expired = lambda gone, record: told.append((gone, record, table.get(gone) is not None))
    for number, record in enumerate((live(), live(), live().end(ENDED, 0))):
        table.put(key(number), record)
    table.drop(key(0))
    sweep_out(table, KEEP_MS + SLOT_MS)
    assert (told, len(table)) == ([(key(1), live(), True)], 0)


def test_a_touched_session_moves_on() -> None:
    """A touch is found when the first moment has passed; the deadline holds whatever is touched."""
    table = make()
    table.put(key(1), live())
    for now_ms in range(0, ABSOLUTE_MS, IDLE_MS // 3):
        table.put(key(1), held(table, 1).touch(now_ms), is_touch=True)
        sweep_out(table, now_ms)
    assert len(table) == 1
    sweep_out(table, ABSOLUTE_MS + SLOT_MS)
    assert len(table) == 0


def test_a_rotated_session_ends_and_is_forgotten() -> None:
    """Its fields go after the grace, the tombstone when it was kept long enough since the rotation; neither expired."""
    table = make()
    table.put(key(1), live())
    table.put(key(1), held(table, 1).end(ROTATED, 4_000))
    assert (table.sessions, table.tombstones) == (0, 1)
    sweep_out(table, 4_000 + GRACE_MS - 1)
    assert held(table, 1).state == ROTATED and held(table, 1).fields
    sweep_out(table, 4_000 + GRACE_MS + SLOT_MS)
    assert held(table, 1).state == REPLACED and not held(table, 1).fields
    hold_sums(table)
    sweep_out(table, 4_000 + KEEP_MS - 1)
    assert (len(table), table.tombstones) == (1, 1)
    sweep_out(table, 4_000 + KEEP_MS + SLOT_MS)
    assert (len(table), table.tombstones, table.expired, table.held_bytes) == (0, 0, 0, 0)


def test_the_end_of_a_rotation_is_known_for_longer_than_it_may_be_looked_at() -> None:
    """It stays what it is until nobody can take it for a logout; a logout that comes meanwhile is one."""
    table = make(rotated_keep_ms=2 * GRACE_MS)
    table.put(key(1), live())
    rotated = held(table, 1).end(ROTATED, 4_000)
    table.put(key(1), rotated)
    assert table.is_in_grace(rotated, 4_000 + GRACE_MS - 1) and not table.is_in_grace(rotated, 4_000 + GRACE_MS)
    sweep_out(table, 4_000 + 2 * GRACE_MS - 1)
    assert held(table, 1).state == ROTATED
    sweep_out(table, 4_000 + 2 * GRACE_MS + SLOT_MS)
    assert held(table, 1).state == REPLACED
    assert make(rotated_keep_ms=GRACE_MS - 1).due_ms(rotated) == 4_000 + GRACE_MS


def test_due_ms_says_when_each_state_is_over() -> None:
    """A living session expires, a rotated one loses its fields, an ended one is forgotten."""
    table = make()
    record = live(500)
    assert table.due_ms(record) == 500 + IDLE_MS
    assert table.due_ms(record.touch(ABSOLUTE_MS)) == 500 + ABSOLUTE_MS
    assert table.due_ms(record.end(ROTATED, 700)) == 700 + GRACE_MS
    assert table.due_ms(record.end(ENDED, 700)) == 700 + KEEP_MS


def test_what_was_dropped_may_come_back() -> None:
    """A key that was dropped can be put again; its old moment does not end the new session early."""
    table = make()
    table.put(key(1), live())
    table.drop(key(1))
    table.drop(key(1))
    assert table.get(key(1)) is None and table.held_bytes == 0
    table.put(key(1), live(20_000))
    sweep_out(table, IDLE_MS + 2 * SLOT_MS)
    assert len(table) == 1
    sweep_out(table, 20_000 + IDLE_MS + SLOT_MS)
    assert (len(table), table.expired) == (0, 1)


# -- the decoded form --------------------------------------------------------------------------------------------------------


def test_a_hot_record_is_decoded_once() -> None:
    """What was put or found is found again as the same object, until something else is put or it is dropped."""
    table = make()
    assert table.find(key(1)) is None and table.state(key(1)) is None
    record = live()
    packed = table.put(key(1), record)
    found = table.find(key(1))
    assert found == (packed, record) and found[0] is packed and table.find(key(1)) is found
    table.put(key(1), record.touch(99), is_touch=True)
    again = table.find(key(1))
    assert again is not None and again[0] is table.get(key(1)) and again[1].touched_ms == 99
    table.drop(key(1))
    assert table.find(key(1)) is None


def test_what_is_put_need_not_be_decoded() -> None:
    """Also where the decoded form of what was held before had made room for others."""
    table = make()
    table.put(key(1), live())
    table._hot.clear()
    record = live(value_bytes=9)
    table.put(key(1), record)
    found = table.find(key(1))
    assert found is not None and found[1] is record


@pytest.mark.parametrize(("more", "is_hot"), [(0, True), (1, False)])
def test_how_large_a_record_may_be_that_is_kept_decoded(more: int, *, is_hot: bool) -> None:
    """Its packed size decides, whether it is new, written to, or looked at."""
    size = len(live(value_bytes=HOT_RECORD_BYTES_MAX // 2).pack()) - HOT_RECORD_BYTES_MAX // 2
    record = live(value_bytes=HOT_RECORD_BYTES_MAX - size + more)
    assert len(record.pack()) == HOT_RECORD_BYTES_MAX + more
    table = make()
    for _ in range(2):
        table.put(key(1), record)
        assert (key(1) in table._hot) is is_hot
    table._hot.clear()
    table.find(key(1))
    assert (key(1) in table._hot) is is_hot


def test_a_stale_decoded_form_is_not_believed() -> None:
    """A look without the lock may leave an older form behind; the bytes of now decide."""
    table = make()
    table.put(key(1), live())
    old = table.find(key(1))
    table.put(key(1), live(value_bytes=9))
    assert old is not None
    table._keep_hot(key(1), old)
    assert table.find(key(1)) == (table.get(key(1)), live(value_bytes=9))


def test_decoded_forms_are_bounded() -> None:
    """So many small records are kept decoded and no more, and a large one, or one that grew large, is not."""
    table = make(sessions_max=10_000, bytes_max=10**9)
    for number in range(3 * HOT_MAX):
        table.put(key(number), live())
        table.find(key(number // 2))
        assert len(table._hot) <= HOT_MAX
    for number in range(3 * HOT_MAX):
        table.put(key(number), live(value_bytes=6))
        assert len(table._hot) <= HOT_MAX
    big = live(value_bytes=HOT_RECORD_BYTES_MAX)
    table.put(key(3 * HOT_MAX), big)
    last = 3 * HOT_MAX - 1
    assert key(last) in table._hot
    table.put(key(last), big)
    for number in (last, 3 * HOT_MAX):
        assert table.find(key(number)) == (big.pack(), big)
        assert key(number) not in table._hot
    table.put(key(7), live())
    table.drop(key(7))
    assert key(7) not in table._hot, "what is dropped does not linger"


# -- bounded work ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_most", [1, 3, 10, 11])
def test_a_sweep_looks_at_no_more_than_it_may(at_most: int) -> None:
    """Ten due records take as many sweeps as the bound says, and the last one says that nothing is left."""
    table = make()
    for number in range(10):
        table.put(key(number), live())
    left = 10
    while left:
        is_more = table.sweep(IDLE_MS + SLOT_MS, at_most=at_most)
        left = max(0, left - at_most)
        assert len(table) == left and is_more == bool(left)


def test_nothing_is_looked_at_before_its_time() -> None:
    """Where nothing is due, a sweep has nothing to look at."""
    table = make()
    table.put(key(1), live(500))
    assert not any(table.sweep(now_ms, at_most=0) for now_ms in range(0, IDLE_MS + 500, 500))
    assert table.sweep(IDLE_MS + SLOT_MS, at_most=0)


def test_what_is_due_at_this_very_moment_goes() -> None:
    """A session that was touched meanwhile goes with the look that finds its new time over."""
    table = make()
    table.put(key(1), live())
    table.put(key(1), live().touch(SLOT_MS), is_touch=True)
    sweep_out(table, IDLE_MS + SLOT_MS)
    assert (len(table), table.expired) == (0, 1)


def test_moving_on_counts_as_a_look() -> None:
    """Records that were touched meanwhile are work too: they are taken up in turns, and none goes."""
    table = make()
    for number in range(10):
        table.put(key(number), live())
        table.put(key(number), held(table, number).touch(IDLE_MS), is_touch=True)
    assert [table.sweep(IDLE_MS + SLOT_MS, at_most=4) for _ in range(4)] == [True, True, False, False]
    assert len(table) == 10


def test_a_long_jump_of_the_clock_is_cheap() -> None:
    """After a suspension of any length the work is what is held, not the seconds that passed."""
    table = make()
    table.put(key(1), live())
    table.sweep(0)
    for now_ms in (10**15, 10**17):  # a list of those seconds would not fit into any memory
        assert not table.sweep(now_ms)
        table.put(key(1), live(now_ms))
        assert len(table) == 1
    sweep_out(table, 10**17 + IDLE_MS + SLOT_MS)
    assert (len(table), table.expired) == (0, 3)


def test_a_first_sweep_far_from_zero_is_cheap() -> None:
    """The clock's zero may be anywhere; a table without entries has nothing to do at any time."""
    for table in (make(), make()):
        assert not table.sweep(10**17)
        table.put(key(1), live(10**17))
        assert sweep_out(table, 10**17 + IDLE_MS + SLOT_MS) == 1
        assert len(table) == 0


def test_a_first_sweep_does_not_hold_up_what_is_due_earlier() -> None:
    """What is put after the first sweep and due before everything that was there goes in its own time."""
    table = make()
    table.put(key(1), live())
    table.sweep(1_000)
    table.put(key(1), held(table, 1).end(ROTATED, 2_000))
    sweep_out(table, 2_000 + GRACE_MS + SLOT_MS)
    assert held(table, 1).state == REPLACED


def test_a_clock_that_stands_still_or_goes_back_does_no_harm() -> None:
    """A record put or swept at an earlier time than the last sweep is not lost from the wheel."""
    table = make()
    table.put(key(1), live())
    table.sweep(50_000)
    table.put(key(2), live())
    table.sweep(10_000)
    table.put(key(3), live(9_000))
    sweep_out(table, 52_000)
    assert len(table) == 0 and table.expired == 3


# -- limits ----------------------------------------------------------------------------------------------------------------


def test_new_sessions_are_refused_at_the_limit() -> None:
    """One line names the setting and the remedy, nothing changes, and who is in may go on and leave."""
    table = make(sessions_max=2)
    table.put(key(1), live())
    table.put(key(2), live())
    with pytest.raises(SessionLimit, match=r"2 sessions; sessions_max is 2: .*idle_timeout") as caught:
        table.put(key(3), live())
    assert "\n" not in str(caught.value)
    assert table.get(key(3)) is None and len(table) == 2
    hold_sums(table)
    table.put(key(1), live(value_bytes=50))
    table.drop(key(2))
    table.put(key(3), live())


def test_an_offer_is_taken_where_there_is_room() -> None:
    """And else nothing is held and nothing raised."""
    table = make(sessions_max=1)
    for number in (1, 2):
        table.offer(key(number), live())
    assert table.get(key(1)) == live().pack() and table.get(key(2)) is None
    hold_sums(table)


def test_tombstones_always_have_room_and_take_none() -> None:
    """An end is never refused, whatever the limits, and one that is held keeps no new session out."""
    table = make(sessions_max=1, bytes_max=len(live().pack()) + ENTRY_BYTES)
    table.put(key(1), live())
    for number in (2, 3):
        table.put(key(number), live().end(ENDED, 0))
    assert all(table.has_ended(key(number)) for number in (2, 3))
    with pytest.raises(SessionLimit):
        table.put(key(4), live())
    table.put(key(1), held(table, 1).end(ENDED, 0))
    table.put(key(4), live())
    hold_sums(table)


def test_the_oldest_tombstones_become_mere_keys_when_there_are_too_many() -> None:
    """What tombstones take is bounded, and no end is forgotten by it; one that somebody has still to learn of stays."""
    tombstone = live().end(ENDED, 0)
    room = 4 * (len(tombstone.pack()) + ENTRY_BYTES)
    table = make(bytes_max=round(room / TOMBSTONES_SHARE))
    table.may_forget = lambda one: one != key(1)
    for number in range(10):
        table.put(key(number), tombstone)
    assert [one for one in table.ended() if one != key(1)] == [key(number) for number in (7, 8, 9)]
    assert table.state(key(1)) == ENDED and len(table.ends) == 6
    assert all(table.has_ended(key(number)) for number in range(10))
    hold_sums(table)


def test_a_tombstone_that_somebody_has_still_to_learn_of_stays() -> None:
    """However long that takes; then it becomes a mere key as every other."""
    table = make()
    is_told = False
    table.may_forget = lambda _: is_told
    table.put(key(1), live().end(ENDED, 0))
    for now_ms in range(0, 5 * KEEP_MS, KEEP_MS // 2):
        sweep_out(table, now_ms)
    assert table.state(key(1)) == ENDED
    is_told = True
    sweep_out(table, 7 * KEEP_MS)
    assert table.state(key(1)) is None and table.has_ended(key(1))


def test_a_tombstone_that_stays_is_not_looked_at_again_and_again() -> None:
    """Once in the time for which one is held."""
    table = make()
    table.may_forget = lambda _: False
    table.put(key(1), live().end(ENDED, 0))
    sweep_out(table, KEEP_MS + SLOT_MS)
    assert not any(table.sweep(now_ms, at_most=0) for now_ms in range(KEEP_MS + SLOT_MS, 2 * KEEP_MS, SLOT_MS))


def test_tombstones_stay_beyond_their_time_while_somebody_is_out_of_reach() -> None:
    """Until the session's own deadline at the latest, and as long as there is room."""
    table, is_apart = make(), True
    table.keeps_tombstones = lambda: is_apart
    for number in (1, 2):
        table.put(key(number), live().end(ENDED, 0))
    sweep_out(table, KEEP_MS + SLOT_MS)
    assert table.tombstones == 2
    table._bytes_max = 0
    table._bound_tombstones()
    assert table.tombstones == 0 and table.has_ended(key(1))
    table._bytes_max = 10**6
    table.put(key(3), live().end(ENDED, 0))
    sweep_out(table, 2 * KEEP_MS)
    assert table.state(key(3)) == ENDED
    is_apart = False
    sweep_out(table, 4 * KEEP_MS)
    assert table.state(key(3)) is None and table.has_ended(key(3))
    is_apart = True
    table.put(key(4), live().end(ENDED, 0))
    sweep_out(table, ABSOLUTE_MS + KEEP_MS)
    assert table.state(key(4)) is None


@pytest.mark.parametrize(("more_ms", "state"), [(0, None), (1, ENDED)])
def test_a_tombstone_is_held_up_to_its_deadline_at_the_most(more_ms: int, state: int | None) -> None:
    """While somebody is out of reach; no copy lives longer."""
    table = make()
    table.keeps_tombstones = lambda: True
    ended_ms = ABSOLUTE_MS - KEEP_MS - SLOT_MS // 2
    table.put(key(1), live(more_ms).end(ENDED, ended_ms))
    table.sweep(ABSOLUTE_MS)
    assert table.state(key(1)) == state


def test_an_end_outlives_every_copy() -> None:
    """Long after its tombstone has gone, no copy is let in until the session's own deadline; then the end goes too."""
    table = make()
    table.put(key(1), live().end(ENDED, 0))
    sweep_out(table, KEEP_MS + SLOT_MS)
    assert len(table) == 0
    for now_ms in range(KEEP_MS + SLOT_MS, ABSOLUTE_MS, KEEP_MS):
        sweep_out(table, now_ms)
        copy = live().touch(now_ms)
        assert table.has_ended(key(1)) and table.judged(key(1), copy, now_ms) == copy.end(ENDED, now_ms)
        with pytest.raises(SessionEnded):
            table.put(key(1), copy)
    remembered = table.remembered(key(1), ABSOLUTE_MS)
    assert remembered is not None and remembered.state == ENDED and remembered.deadline_ms >= ABSOLUTE_MS
    for _ in range(SHARDS):
        table.sweep(ABSOLUTE_MS + 2 * MARGIN_MS)
    assert not table.has_ended(key(1)) and table.remembered(key(1), ABSOLUTE_MS) is None
    table.put(key(1), live(ABSOLUTE_MS))


def test_an_end_may_be_noted_of_which_no_record_came() -> None:
    """A copy that is held stays for whoever asks what became of it; none is let in anew."""
    table = make()
    table.put(key(1), live())
    table.note_ended(key(1), ABSOLUTE_MS)
    assert table.state(key(1)) == LIVE and key(1) in table.ends and not table.has_ended(key(1))
    assert table.judged(key(1), live(), 0).state == LIVE, "the copy that is held decides"
    table.drop(key(1))
    assert table.has_ended(key(1)) and table.judged(key(1), live(), 0).state == ENDED


def test_what_another_server_remembers_ends_what_is_held() -> None:
    """Every live session among them, and no other; what has ended has ended."""
    table = make()
    for number in range(4):
        table.put(key(number), live())
    table.put(key(3), live().end(ENDED, 5))
    keys = [key(number) for number in range(10)]
    assert table.end_remembered(keys, 90) == [] and table.sessions == 3
    for number in (1, 3, 9):
        table.note_ended(key(number), ABSOLUTE_MS)
    assert table.end_remembered(keys[2:], 90) == [] and table.state(key(1)) == LIVE, "not asked about"
    ended = table.end_remembered(keys, 90)
    assert ended == [(key(1), live().end(ENDED, 90))] and held(table, 1) == ended[0][1]
    assert [table.state(key(number)) for number in range(4)] == [LIVE, ENDED, LIVE, ENDED]
    assert held(table, 3).ended_ms == 5
    hold_sums(table)


def test_new_bytes_are_refused_at_the_limit() -> None:
    """The last byte that fits is let in, the first that does not is refused, and nothing is changed."""
    size = len(live().pack()) + ENTRY_BYTES
    table = make(bytes_max=2 * size)
    table.put(key(1), live())
    with pytest.raises(SessionLimit, match=rf"holds {size} bytes .*bytes_max is {2 * size}: .*idle_timeout"):
        table.put(key(2), live(value_bytes=6))
    assert (len(table), table.held_bytes) == (1, size)
    table.put(key(2), live())
    assert table.held_bytes == 2 * size


def test_held_sessions_may_grow_a_little_further() -> None:
    """A write to a session that is there goes through a quarter beyond the limit; then it is refused as well."""
    size = len(live().pack()) + ENTRY_BYTES
    table = make(bytes_max=size)
    table.put(key(1), live())
    room = int(size * (GROWTH - 1))
    with pytest.raises(SessionLimit):
        table.put(key(1), live(value_bytes=5 + room + 1))
    assert table.held_bytes == size and held(table, 1) == live()
    table.put(key(1), live(value_bytes=5 + room))
    assert table.held_bytes == size + room


def test_touches_ends_and_smaller_records_always_have_room() -> None:
    """At the limit nobody is logged out, or kept in, for want of a byte."""
    size = len(live().pack()) + ENTRY_BYTES
    table = make(bytes_max=int(size / GROWTH))
    table._bytes_max = size
    table.put(key(1), live())
    table._bytes_max = int(size / GROWTH)
    late = live().touch(10**12)
    assert len(late.pack()) > len(live().pack())
    with pytest.raises(SessionLimit):
        table.put(key(1), late)
    table.put(key(1), late, is_touch=True)
    table.put(key(1), live(value_bytes=1))
    table.put(key(1), held(table, 1).end(ENDED, 10**12), is_touch=True)
    hold_sums(table)


def test_over_the_limit_no_byte_is_added_and_any_record_as_small_is_let_in() -> None:
    """What is written over a session is judged by what it adds, to the byte."""
    table = make()
    table.put(key(1), live(value_bytes=9))
    table._bytes_max = 0
    with pytest.raises(SessionLimit):
        table.put(key(1), live(value_bytes=10))
    for value_bytes in (9, 8):
        table.put(key(1), live(value_bytes=value_bytes))


def test_iterating_allows_changes() -> None:
    """The keys as they stood when asked for: dropping while walking is fine."""
    table = make()
    for number in range(5):
        table.put(key(number), live())
    for each in table:
        table.drop(each)
    assert len(table) == 0
