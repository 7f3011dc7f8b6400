"""What every store must hold, whatever it is made of: one suite for Redis, Valkey and every SQL database.

A store's own test file gives it as a `Place` and takes the suite over whole::

    class TestRedis(StoreConformance):
        def place(self) -> Place: ...

Each test draws keys that were never used, so the place may be shared. The yardstick is `delta.apply` and `record.merge`:
what the store says after any history is what those two make of it.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sessile.delta import Outcome
from sessile.errors import StoreError
from sessile.record import ENDED, LIVE, REMOVED, REPLACED, ROTATED, Version, merge
from sessile.stores.base import Changed, ChannelDown, Fetched, FetchStatus, Pushed
from tests.record_model import A, B, C
from tests.stores.contents import ContentConformance
from tests.stores.endings import EndsConformance
from tests.stores.rig import IDLE_MS, LIFE_MS, SLOP_MS, Heard, Place, Rig, fresh_key, in_place, new, same, write

__all__ = ["Place", "StoreConformance"]


class StoreConformance(ContentConformance, EndsConformance):
    """Subclass it as `Test…` and say where."""

    def place(self) -> Place:
        raise NotImplementedError

    # -- fetch ---------------------------------------------------------------------------------------------------------

    @in_place
    async def test_what_nobody_stored_is_none(self, rig: Rig) -> None:
        """An unknown session is none, whatever the asker has; a write to it needs the whole record."""
        key = fresh_key()
        assert await rig.store.fetch(key, None) == Fetched(FetchStatus.NONE)
        assert await rig.store.fetch(key, {A: 1}) == Fetched(FetchStatus.NONE)
        _, delta = write(new(a=b"1"), key, B, a=b"2")
        assert await rig.store.apply(delta, "one") == Pushed(Outcome.NEED)
        assert await rig.store.fetch(key, None) == Fetched(FetchStatus.NONE)

    @in_place
    async def test_a_record_comes_back_as_it_went_in(self, rig: Rig) -> None:
        """Fields, version, heads and subject to the byte; times as durations that have grown by the time between."""
        key, record = fresh_key(), new(subject="Zoë", a=b"\x01", b=b"two")
        record = record.touch(0).shift(-5_000)
        record = merge(record, write(record, key, B, n=b"\x00")[0])
        record = write(record, key, C, {"n": -3, "visits": 1})[0]
        pushed = await rig.store.merge(key, record, "one")
        assert pushed == Pushed(Outcome.APPLIED)
        back = await rig.held(key)
        assert same(back, record) and list(back.fields) == list(record.fields)
        assert 0 <= record.touched_ms - back.touched_ms < SLOP_MS
        assert 0 <= record.deadline_ms - back.deadline_ms < SLOP_MS

    @in_place
    async def test_only_what_is_new_is_sent(self, rig: Rig) -> None:
        """Who has all is told so; who has less gets a record that, merged, is what the store holds."""
        key, one = fresh_key(), new(a=b"1", b=b"1")
        two = write(one, key, B, b=b"2")[0]
        await rig.store.merge(key, two, "one")
        assert await rig.store.fetch(key, two.version) == Fetched(FetchStatus.CURRENT)
        assert await rig.store.fetch(key, dict(reversed(two.version.items()))) == Fetched(FetchStatus.CURRENT)
        more: Version = {**two.version, C: 7}
        assert await rig.store.fetch(key, more) == Fetched(FetchStatus.CURRENT)
        for have in (one.version, {}, {A: 1, C: 9}, {B: 2}, {B: 1, A: 1}):
            status, record = await rig.store.fetch(key, have)
            assert status is FetchStatus.RECORD and record is not None
            if have == one.version:
                assert same(merge(one, record), two)

    @in_place
    async def test_an_end_is_news_to_whoever_holds_the_session(self, rig: Rig) -> None:
        """An end moves no version, and still a holder of that very version is told of it."""
        for state in (ROTATED, ENDED, REPLACED):
            key, record = fresh_key(), new(a=b"1")
            await rig.store.merge(key, record, "one")
            await rig.store.merge(key, record.end(state, 0), "one")
            status, ended = await rig.store.fetch(key, record.version)
            assert status is FetchStatus.RECORD and ended is not None
            assert ended.state == state and bool(ended.fields) is (state == ROTATED)
            assert -SLOP_MS < ended.ended_ms <= 0

    # -- apply ---------------------------------------------------------------------------------------------------------

    @in_place
    async def test_a_write_is_applied_once(self, rig: Rig) -> None:
        """A repeated write is known and changes nothing; one whose base is missing is not taken at all."""
        key, one = fresh_key(), new(a=b"1")
        two, to_two = write(one, key, B, a=b"2", b=b"new")
        three, to_three = write(two, key, A, {"n": 5}, a=REMOVED)
        await rig.store.merge(key, one, "one")
        assert await rig.store.apply(to_three, "one") == Pushed(Outcome.NEED)
        assert same(await rig.held(key), one)
        assert await rig.store.apply(to_two, "one") == Pushed(Outcome.APPLIED)
        assert await rig.store.apply(to_two, "one") == Pushed(Outcome.KNOWN)
        assert same(await rig.held(key), two)
        assert await rig.store.apply(to_three, "none") == Pushed(Outcome.APPLIED)
        assert same(await rig.held(key), three)
        again = await rig.store.apply(to_two, "all")
        assert again.outcome is Outcome.KNOWN and same(await rig.held(key), three)
        assert again.rest is not None and same(again.rest, three), "who comes late hears what it missed"

    @in_place
    async def test_parallel_writes_are_all_kept_and_told(self, rig: Rig) -> None:
        """Writers on one base lose nothing; the later one is given what it did not know, the earlier one was not."""
        key, base = fresh_key(), new(a=b"1", b=b"1", n=b"\x05")
        await rig.store.merge(key, base, "one")
        mine, my_delta = write(base, key, B, {"n": 1}, a=b"mine")
        theirs, their_delta = write(base, key, C, {"n": 10}, a=b"theirs", b=b"theirs")
        assert await rig.store.apply(my_delta, "one") == Pushed(Outcome.APPLIED)
        pushed = await rig.store.apply(their_delta, "one")
        joined = merge(mine, theirs)
        assert pushed.outcome is Outcome.APPLIED and same(pushed.rest, joined)
        held = await rig.held(key)
        assert same(held, joined) and held.fields["n"].added == 11 and held.fields["a"].value == b"theirs"
        after, delta = write(joined, key, B, a=b"joined")
        assert await rig.store.apply(delta, "one") == Pushed(Outcome.APPLIED)
        assert same(await rig.held(key), after) and len(after.heads) == 1

    @in_place
    async def test_a_write_is_a_touch(self, rig: Rig) -> None:
        """What was last used long ago counts as used now once it is written to."""
        key, record = fresh_key(), new(idle_ms=IDLE_MS, a=b"1").shift(-30_000)
        await rig.store.merge(key, record, "one")
        assert (await rig.held(key)).touched_ms <= -30_000
        await rig.store.apply(write(record, key, A, a=b"2")[1], "one")
        assert -SLOP_MS < (await rig.held(key)).touched_ms <= 0

    # -- merge ---------------------------------------------------------------------------------------------------------

    @in_place
    async def test_whole_records_merge(self, rig: Rig) -> None:
        """What is merged is joined with what is there; whoever knew less is given the whole, and repeats do nothing."""
        key, base = fresh_key(), new(a=b"1", b=b"1")
        mine, theirs = write(base, key, B, a=b"mine")[0], write(base, key, C, {"n": 2}, b=b"theirs")[0]
        joined = merge(mine, theirs)
        assert await rig.store.merge(key, mine, "one") == Pushed(Outcome.APPLIED)
        pushed = await rig.store.merge(key, theirs, "one")
        assert pushed.outcome is Outcome.APPLIED and same(pushed.rest, joined)
        known = await rig.store.merge(key, base, "one")
        assert known.outcome is Outcome.KNOWN and same(known.rest, joined)
        assert await rig.store.merge(key, joined, "one") == Pushed(Outcome.KNOWN)
        assert same(await rig.held(key), joined)

    @in_place
    async def test_times_merge_to_the_latest_touch_and_the_earliest_limit(self, rig: Rig) -> None:
        """Limits by min and touches by max, whoever comes first."""
        early, late = new(a=b"1").shift(-20_000), new(a=b"1", idle_ms=IDLE_MS * 2, life_ms=LIFE_MS * 2)
        for order in ((early, late), (late, early)):
            key = fresh_key()
            for record in order:
                await rig.store.merge(key, record, "one")
            held = await rig.held(key)
            assert held.idle_ms == IDLE_MS and -SLOP_MS < held.touched_ms <= 0
            assert -SLOP_MS < held.deadline_ms - (LIFE_MS - 20_000) <= 0

    @in_place
    async def test_an_ended_session_stays_ended(self, rig: Rig) -> None:
        """Neither a write, nor a whole record, nor a touch, nor a weaker end brings it back, and the pusher is told."""
        key, record = fresh_key(), new(a=b"1")
        written, delta = write(record, key, B, a=b"2")
        await rig.store.merge(key, record, "one")
        assert await rig.store.merge(key, record.end(ENDED, 0), "one") == Pushed(Outcome.APPLIED)
        pushed = await rig.store.apply(delta, "one")
        assert pushed.outcome is Outcome.APPLIED and pushed.rest is not None
        assert (pushed.rest.state, pushed.rest.fields, pushed.rest.covers([delta.stamp])) == (ENDED, {}, True)
        for again in (written, record, record.end(ROTATED, 0)):
            rest = (await rig.store.merge(key, again, "one")).rest
            assert rest is not None and rest.state == ENDED and not rest.fields
        await rig.store.touch({key: 0})
        held = await rig.held(key)
        assert held.state == ENDED and not held.fields and held.covers(written.heads)

    @in_place
    async def test_an_end_may_come_first(self, rig: Rig) -> None:
        """A tombstone of a session that the store never saw is kept, and holds off the session itself."""
        key, record = fresh_key(), new(a=b"1")
        assert await rig.store.merge(key, record.end(ENDED, 0), "one") == Pushed(Outcome.APPLIED)
        pushed = await rig.store.merge(key, record, "one")
        assert pushed.rest is not None and pushed.rest.state == ENDED
        assert (await rig.held(key)).state == ENDED

    @in_place
    async def test_a_rotated_session_may_be_looked_at_for_a_moment(self, rig: Rig) -> None:
        """Its fields are there for `rotation_grace`; afterwards it is known that it was rotated, and nothing else."""
        brief = await rig.another(rotation_grace_ms=300)
        key, record = fresh_key(), new(a=b"1")
        await rig.store.merge(key, record, "one")
        await rig.store.merge(key, record.end(ROTATED, 0), "one")
        held = await rig.held(key)
        assert held.state == ROTATED and same(held, record.end(ROTATED, 0)) and "a" in held.fields
        await rig.place.pass_time(400)
        status, late = await brief.fetch(key, None)
        assert status is FetchStatus.RECORD and late is not None
        assert (late.state, late.fields) == (REPLACED, {})

    # -- time ----------------------------------------------------------------------------------------------------------

    @in_place
    async def test_an_unused_session_goes(self, rig: Rig) -> None:
        """After its idle time and a tenth of it, or at its deadline, the store holds it no longer."""
        idle, old, used = fresh_key(), fresh_key(), fresh_key()
        await rig.store.merge(idle, new(a=b"1", idle_ms=500), "one")
        await rig.store.merge(old, new(a=b"1", life_ms=500), "one")
        await rig.store.merge(used, new(a=b"1"), "one")
        await rig.until_gone(idle)
        await rig.until_gone(old)
        await rig.held(used)

    @in_place
    async def test_what_is_used_stays(self, rig: Rig) -> None:
        """A touch moves the end on; an older one than is known, or one of an unknown session, does nothing."""
        key, unknown = fresh_key(), fresh_key()
        await rig.store.merge(key, new(a=b"1").shift(-30_000), "one")
        await rig.store.touch({key: 50_000, unknown: 0})
        assert -30_000 - SLOP_MS < (await rig.held(key)).touched_ms <= -30_000
        await rig.store.touch({key: 10_000})
        held = await rig.held(key)
        assert -10_000 - SLOP_MS < held.touched_ms <= -10_000 and held.state == LIVE
        assert (await rig.store.fetch(unknown, None)).status is FetchStatus.NONE
        await rig.store.touch({})

    @in_place
    async def test_a_touch_saves_a_session_about_to_go(self, rig: Rig) -> None:
        """The store drops a touched session by its new time, not by the old one."""
        kept, lost = fresh_key(), fresh_key()
        for key in (kept, lost):
            await rig.store.merge(key, new(a=b"1").shift(-IDLE_MS + 1_500), "one")
        await rig.store.touch({kept: 0})
        await rig.place.pass_time(1_500 + IDLE_MS // 100)
        assert -SLOP_MS < (await rig.held(kept)).touched_ms < 0

    @in_place
    async def test_a_touch_puts_off_no_deadline(self, rig: Rig) -> None:
        """A session that is used all the time ends when it must."""
        key = fresh_key()
        await rig.store.merge(key, new(life_ms=600, a=b"1").shift(-100), "one")
        await rig.store.touch({key: 0})
        await rig.place.pass_time(600)
        await rig.until_gone(key)

    @in_place
    async def test_a_touch_of_what_is_over_is_none(self, rig: Rig) -> None:
        """The end is remembered for as long as without it."""
        key, record = fresh_key(), new(idle_ms=300, a=b"1").shift(-100)
        await rig.store.merge(key, record.end(ENDED, 0), "one")
        await rig.store.touch({key: 0})
        await rig.place.pass_time(500)
        assert (await rig.held(key)).state == ENDED

    @in_place
    async def test_a_tombstone_is_kept_and_then_forgotten(self, rig: Rig) -> None:
        """It outlives the session's own limits, and goes `tombstone_keep` after its deadline."""
        brief = await rig.another(tombstone_keep_ms=1_000, rotation_grace_ms=0)
        long, short = fresh_key(), fresh_key()
        for key, store in ((long, rig.store), (short, brief)):
            record = new(a=b"1", idle_ms=100, life_ms=100)
            await store.merge(key, record.end(ENDED, 0), "one")
        assert (await rig.held(short)).state == ENDED
        await rig.until_gone(short)
        assert (await rig.held(long)).state == ENDED

    @pytest.mark.parametrize("state", [ROTATED, ENDED, REPLACED])
    @in_place
    async def test_an_end_outlives_every_copy_that_can_contradict_it(self, rig: Rig, state: int) -> None:
        """Until the session's own deadline a copy may come from anywhere: however short `tombstone_keep`, it is over."""
        brief = await rig.another(tombstone_keep_ms=1, rotation_grace_ms=1)
        over = REPLACED if state == ROTATED else state
        key, record = fresh_key(), new(a=b"1")
        written, delta = write(record, key, B, a=b"2")
        await brief.merge(key, record, "one")
        await brief.merge(key, record.end(state, 0), "one")
        for _ in range(3):
            await rig.place.pass_time(50)
            await brief.expire(1_000)
            status, held = await brief.fetch(key, record.version)
            assert status is FetchStatus.RECORD and held is not None and (held.state, held.fields) == (over, {})
        for rest in ((await brief.apply(delta, "one")).rest, (await brief.merge(key, written, "one")).rest):
            assert rest is not None and (rest.state, rest.fields) == (over, {})
        await rig.place.pass_time(50)
        assert (await brief.expire(1_000)) == 0 and (await rig.held(key)).state == over

    @in_place
    async def test_many_are_touched_at_once(self, rig: Rig) -> None:
        """One call, whatever their number."""
        keys = [fresh_key() for _ in range(60)]
        await asyncio.gather(*(rig.store.merge(key, new(a=b"1").shift(-30_000), "one") for key in keys))
        await rig.store.touch(dict.fromkeys(keys, 0))
        for key in keys:
            assert (await rig.held(key)).touched_ms > -30_000

    # -- the channel ---------------------------------------------------------------------------------------------------

    @in_place
    async def test_changes_are_told(self, rig: Rig) -> None:
        """To every store that listens, with heads and end; nothing that changed nothing, and no touch."""
        other = await rig.another()
        if not rig.store.has_channel:
            pytest.skip("this store tells of no changes")
        key, record = fresh_key(), new(a=b"1")
        written, delta = write(record, key, B, a=b"2")
        parallel = write(record, key, C, a=b"3")[1]
        async with Heard().listening(rig.store) as here, Heard().listening(other) as there:
            await rig.store.apply(delta, "one")
            await rig.store.merge(key, record, "one")
            await other.apply(delta, "one")
            await other.apply(delta, "one")
            await other.touch({key: 0})
            await rig.store.merge(key, written, "one")
            await other.apply(parallel, "one")
            await rig.store.merge(key, written.end(ROTATED, 0), "one")
            await rig.store.merge(key, written.end(ENDED, 0), "one")
            heads = (*written.heads, parallel.stamp) if written.heads[0] < parallel.stamp else ()
            expected = [
                Changed(key, record.heads, LIVE),
                Changed(key, written.heads, LIVE),
                Changed(key, heads, LIVE),
                Changed(key, heads, ROTATED),
                Changed(key, heads, ENDED),
            ]
            for heard in (here, there):
                await heard.until(lambda heard=heard: len(set(heard.changes)) >= len(expected))  # type: ignore[misc]
                told = [change for change in heard.changes if change.key == key]
                assert list(dict.fromkeys(told)) == expected, "a cluster tells each as often as it has primaries"
                assert all(type(stamp) is type(record.heads[0]) for change in heard.changes for stamp in change.heads)
            assert not any(isinstance(message, ChannelDown) for message in (*here.all, *there.all))
            assert here.all[0] == there.all[0], "both name the same primary"

    # -- what goes wrong -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "data", [b"", b"garbage", b"\x99", b"\xff" * 200, b"\x99\x00" + b"\xcf" * 70, b"{}", b"\x80"]
    )
    @in_place
    async def test_garbage_in_the_store_harms_nobody(self, rig: Rig, data: bytes) -> None:
        """Bytes that are no record count as none, or as a failure of the store; never as a session, never as a crash."""
        key, record = fresh_key(), new(a=b"1")
        await rig.place.plant(key, data)
        delta = write(record, key, B, a=b"2")[1]
        with contextlib.suppress(StoreError):
            assert (await rig.store.fetch(key, None)).status is FetchStatus.NONE
        with contextlib.suppress(StoreError):
            assert (await rig.store.fetch(key, record.version)).status is FetchStatus.NONE
        with contextlib.suppress(StoreError):
            assert (await rig.store.apply(delta, "one")).outcome is Outcome.NEED
        with contextlib.suppress(StoreError):
            await rig.store.touch({key: 0})
        with contextlib.suppress(StoreError):
            await rig.store.merge(key, record, "one")
            assert same(await rig.held(key), record)

    @in_place
    async def test_damaged_records_harm_nobody(self, rig: Rig) -> None:
        """A record cut short at any place is none, or is refused, or is itself a record."""
        record = write(new(a=b"1", b=b"22", subject="u"), b"k" * 16, B, {"n": 3})[0].shift(10**12)
        packed = record.pack()
        for length in range(0, len(packed), 3):
            key = fresh_key()
            await rig.place.plant(key, packed[:length])
            with contextlib.suppress(StoreError):
                assert (await rig.store.fetch(key, None)).status is FetchStatus.NONE
            with contextlib.suppress(StoreError):
                await rig.store.merge(key, record, "one")

    @pytest.mark.parametrize("ack", ["none", "one", "all"])
    @in_place
    async def test_a_store_alone_acknowledges(self, rig: Rig, ack: str) -> None:
        """With nobody to copy to, what the store has taken is as safe as it will be."""
        key, record = fresh_key(), new(a=b"1")
        assert (await rig.store.merge(key, record, ack)).is_acknowledged
        assert (await rig.store.apply(write(record, key, B, a=b"2")[1], ack)).is_acknowledged

    @in_place
    async def test_a_closed_store_answers_nothing(self, rig: Rig) -> None:
        """What comes after `close` is a StoreError at once; a second `close` does nothing; `open` opens it again."""
        store = await rig.another()
        key = fresh_key()
        await store.close()
        await store.close()
        with pytest.raises(StoreError):
            await store.fetch(key, None)
        with pytest.raises(StoreError):
            await store.merge(key, new(a=b"1"), "one")
        await store.open()
        assert (await store.fetch(key, None)).status is FetchStatus.NONE

    def test_it_says_what_it_is(self) -> None:
        """One line for people."""
        store = self.place().store()
        assert store.where and "\n" not in store.where
        assert isinstance(store.is_single, bool) and isinstance(store.has_channel, bool)
