"""What every store must keep to the byte, and the laws that hold for whatever it keeps: a part of the conformance suite."""

from __future__ import annotations

import asyncio
import functools

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessile.delta import Addition, Delta, Outcome, apply
from sessile.errors import StoredRecordError
from sessile.record import (
    ENDED,
    FIELDS_MAX,
    HELD_BYTES_MAX,
    LIVE,
    NEVER,
    REMOVED,
    REPLACED,
    ROTATED,
    TOTAL_MAX,
    WRITTEN_BYTES_MAX,
    Entry,
    Record,
    merge,
)
from sessile.stores.base import FetchStatus
from tests.record_model import A, B, C, Network, networks
from tests.stores.rig import GRACE_MS, IDLE_MS, LIFE_MS, Rig, fresh_key, in_place, new, same, write

__all__ = ["ContentConformance"]


def rest_of(after: Record, known: Record) -> Record | None:
    """What a pusher that knows this much must be told: all, where the store holds more."""
    is_more = after.version != known.version or after.state != known.state
    return after if is_more else None


class ContentConformance:
    """What a record may hold, and what becomes of it."""

    @in_place
    async def test_values_are_kept_to_the_byte(self, rig: Rig) -> None:
        """Binary, long, and of every length at which an encoding changes; names of any characters; a removed field."""
        values = {
            "binary": bytes(range(256)),
            **{f"of {size}": b"\xc1" * size for size in (1, 15, 16, 31, 32, 255, 256, 65_535, 65_536, 300_000)},
            "": b"\x00",
            "ключ \x00 \N{SNOWMAN} \U0001f600": b"\r\n$5\r\n",
            "n" * 300: b"\x90",
            "__proto__": b"{}",
        }
        key, record = fresh_key(), new(removed=b"1")
        record = record.write(B, {**values, "removed": REMOVED}, now_ms=0)[0]
        await rig.store.merge(key, record, "one")
        assert same(await rig.held(key), record)
        after, stamp = record.write(C, {name: value + b"!" for name, value in values.items()}, now_ms=0)
        delta = Delta.of(after, key, record, stamp, names=values, counted=())
        assert (await rig.store.apply(delta, "one")).outcome is Outcome.APPLIED
        held = await rig.held(key)
        assert same(held, after) and held.fields["binary"].value == bytes(range(256)) + b"!"
        assert "removed" not in held.fields

    @in_place
    async def test_large_numbers_are_kept(self, rig: Rig) -> None:
        """Tags of 48 bits, counters of 53, sums of 62 and both signs; a sum one higher than another is not the same."""
        writers = [1, 127, 128, 255, 256, 2**16, 2**32, 2**48 - 1]
        key, record = fresh_key(), new(a=b"1")
        for above, writer in zip((0, 126, 200, 255, 60_000, 2**32, 2**40, 2**53 - 3), writers, strict=True):
            record = record.write(
                writer, {}, {"n": (-1) ** writer * (2**61 + writer), "m": above}, now_ms=0, above=above
            )[0]
        await rig.store.merge(key, record, "one")
        assert same(await rig.held(key), record)
        after, delta = write(record, key, 1, {"n": 1})
        assert (await rig.store.apply(delta, "one")).outcome is Outcome.APPLIED
        assert same(await rig.held(key), after)
        total = TOTAL_MAX - 1
        n = after.fields["n"]
        clashing = msgspec.structs.replace(
            after, fields={**after.fields, "n": Entry(n.writer, n.counter, REMOVED, ((1, after.version[1], total),))}
        )
        joined = merge(after, clashing)
        await rig.store.merge(key, clashing, "one")
        assert same(await rig.held(key), joined)

    @in_place
    async def test_a_session_may_have_many_fields_and_writers(self, rig: Rig) -> None:
        """More of both than any small count, so that every length of a list is written and read."""
        key = fresh_key()
        record = new().write(A, {f"field {number}": b"%d" % number for number in range(300)}, now_ms=0)[0]
        for writer in range(1_000, 1_300):
            record = record.write(writer, {f"of {writer}": b"x"}, {"n": 1}, now_ms=0)[0]
        other = record
        for writer in range(5_000, 5_020):
            other = merge(other, record.write(writer, {f"of {writer}": b"y"}, {"n": 2}, now_ms=0)[0])
        await rig.store.merge(key, other, "one")
        held = await rig.held(key)
        assert same(held, other) and len(held.heads) == 20 and held.fields["n"].added == 340
        one_more, delta = write(record, key, 7, {"n": 1}, **{f"field {number}": b"new" for number in range(100)})
        pushed = await rig.store.apply(delta, "one")
        assert pushed.outcome is Outcome.APPLIED and same(pushed.rest, merge(other, one_more))

    @pytest.mark.parametrize("is_whole", [False, True])
    @in_place
    async def test_what_no_server_could_read_is_refused(self, rig: Rig, is_whole: bool) -> None:  # noqa: FBT001
        """Parallel writers, each within its limit, are beyond what travels together: the last is refused, and the rest stays.

        The session can still be ended, and looked at as long as it is rotated only if that is within the limits.
        """
        key, base = fresh_key(), new(a=b"1")
        written = [
            write(base, key, 100 + number, {}, **{f"of {number}": b"x" * WRITTEN_BYTES_MAX})
            for number in range(HELD_BYTES_MAX // WRITTEN_BYTES_MAX + 1)
        ]
        most = functools.reduce(merge, (record for record, _ in written[:-1]))
        await rig.store.merge(key, most, "one")
        last, delta = written[-1]
        with pytest.raises(StoredRecordError, match="larger than any server accepts"):
            await (rig.store.merge(key, last, "one") if is_whole else rig.store.apply(delta, "one"))
        assert same(await rig.held(key), most)
        await rig.store.merge(key, last.end(ROTATED, 0), "one")
        assert (await rig.held(key)).state == ENDED

    @in_place
    async def test_what_has_too_many_fields_is_refused(self, rig: Rig) -> None:
        """The same of fields, which are small."""
        key, base = fresh_key(), new(a=b"1")
        most = {f"field {number}": b"x" for number in range(FIELDS_MAX - 1)}
        await rig.store.merge(key, write(base, key, B, {}, **most)[0], "one")
        other, delta = write(base, key, C, one=b"more")
        for refused in (rig.store.apply(delta, "one"), rig.store.merge(key, other, "one")):
            with pytest.raises(StoredRecordError, match="larger than any server accepts"):
                await refused
        assert len((await rig.held(key)).fields) == FIELDS_MAX

    @in_place
    async def test_counters_follow_the_assignment_they_were_counted_from(self, rig: Rig) -> None:
        """An increment under an assignment that has lost is lost with it, in either order of arrival."""
        for is_assigned_first in (True, False):
            key, base = fresh_key(), new(n=b"\x05")
            await rig.store.merge(key, base, "one")
            added, counts = write(base, key, B, {"n": 7, "fresh": 1})
            assigned, assigns = write(base, key, C, n=b"\x01")
            for delta in (assigns, counts) if is_assigned_first else (counts, assigns):
                await rig.store.apply(delta, "one")
            held = await rig.held(key)
            assert same(held, merge(added, assigned))
            assert (held.fields["n"].value, held.fields["n"].added, held.fields["fresh"].added) == (b"\x01", 0, 1)

    @pytest.mark.parametrize("is_whole", [False, True])
    @in_place
    async def test_a_count_belongs_to_one_assignment(self, rig: Rig, is_whole: bool) -> None:  # noqa: FBT001
        """Two parallel assignments have the same counter: what was added under the lower one is not added to the other."""
        key, base = fresh_key(), new(n=b"\x05")
        low, assigns_low = write(base, key, B, n=b"\x01")
        high, assigns_high = write(base, key, C, n=b"\x02")
        assert low.heads[0].counter == high.heads[0].counter and low.heads < high.heads
        added, counts = write(low, key, 99, {"n": 7})
        await rig.store.merge(key, base, "one")
        if is_whole:
            await rig.store.merge(key, high, "one")
            await rig.store.merge(key, added, "one")
        else:
            for delta in (assigns_low, assigns_high, counts):
                assert (await rig.store.apply(delta, "one")).outcome is Outcome.APPLIED
        held = await rig.held(key)
        assert same(held, merge(high, added)) and (held.fields["n"].value, held.fields["n"].added) == (b"\x02", 0)

    @pytest.mark.parametrize("is_whole", [False, True])
    @in_place
    async def test_a_removal_leaves_nothing_and_a_parallel_write_stays(self, rig: Rig, is_whole: bool) -> None:  # noqa: FBT001
        """Whatever comes first: what the remover had seen is gone, and what it had not seen is there."""
        for is_removed_first in (False, True):
            key, base = fresh_key(), new(a=b"1", b=b"2")
            removed, removes = write(base, key, B, a=REMOVED, b=REMOVED)
            parallel, assigns = write(base, key, C, b=b"3")
            await rig.store.merge(key, base, "one")
            for at in (0, 1) if is_removed_first else (1, 0):
                if is_whole:
                    await rig.store.merge(key, (removed, parallel)[at], "one")
                else:
                    await rig.store.apply((removes, assigns)[at], "one")
            held = await rig.held(key)
            assert same(held, merge(removed, parallel)) and list(held.fields) == ["b"]
            after, delta = write(held, key, A, b=REMOVED)
            await (rig.store.merge(key, after, "one") if is_whole else rig.store.apply(delta, "one"))
            assert same(await rig.held(key), after) and after.fields == {}

    @in_place
    async def test_a_record_of_an_early_version_is_read(self, rig: Rig) -> None:
        """A removed field, and a name that was only counted, which stood under no assignment."""
        key, base = fresh_key(), new(a=b"1")
        early = {"gone": Entry(0, 1, REMOVED), "n": Entry(0, 0, REMOVED, ((0, 1, 5),))}
        record = msgspec.structs.replace(base, fields={**base.fields, **early})
        await rig.store.merge(key, record, "one")
        assert same(await rig.held(key), record)
        after, delta = write(record, key, B, {"n": 2}, gone=b"2")
        assert (await rig.store.apply(delta, "one")).outcome is Outcome.APPLIED
        held = await rig.held(key)
        assert same(held, after) and held.fields["n"].read() == (REMOVED, 7)

    @pytest.mark.parametrize("is_lower_first", [False, True])
    @in_place
    async def test_of_two_assignments_at_once_the_higher_writer_s_stands(self, rig: Rig, is_lower_first: bool) -> None:  # noqa: FBT001
        """In whole records, whichever comes first."""
        key, base = fresh_key(), new(n=b"\x05")
        low, high = (write(base, key, writer, n=value)[0] for writer, value in ((B, b"\x01"), (C, b"\x02")))
        for one in (low, high) if is_lower_first else (high, low):
            await rig.store.merge(key, one, "one")
        held = await rig.held(key)
        assert same(held, merge(low, high)) and held.fields["n"].value == b"\x02"

    @in_place
    async def test_a_write_supersedes_what_it_was_made_on_and_no_more(self, rig: Rig) -> None:
        """The writer of its base has written since: that later write stays a head beside the new one."""
        key, base = fresh_key(), new(a=b"1")
        since, later = write(base, key, A, a=b"later")
        other, delta = write(base, key, B, b=b"other")
        await rig.store.merge(key, base, "one")
        assert (await rig.store.apply(later, "one")).outcome is Outcome.APPLIED
        pushed = await rig.store.apply(delta, "one")
        joined = merge(since, other)
        assert len(joined.heads) == 2 and pushed.outcome is Outcome.APPLIED and same(pushed.rest, joined)
        assert same(await rig.held(key), joined)

    @in_place
    async def test_a_write_on_a_later_write_of_a_writer_needs_the_record(self, rig: Rig) -> None:
        """The store knows the writer of its base, and not the write: nothing is changed until that is there as well."""
        key, base = fresh_key(), new(a=b"1")
        missed, earlier = write(base, key, A, a=b"missed")
        after, delta = write(missed, key, B, b=b"2")
        await rig.store.merge(key, base, "one")
        assert (await rig.store.apply(delta, "one")).outcome is Outcome.NEED
        assert same(await rig.held(key), base)
        for one in (earlier, delta):
            assert (await rig.store.apply(one, "one")).outcome is Outcome.APPLIED
        assert same(await rig.held(key), after)

    @in_place
    async def test_a_rotated_session_that_arrives_late_has_no_fields(self, rig: Rig) -> None:
        """Its grace was over before the store heard of it, however it hears."""
        for is_known in (False, True):
            key, record = fresh_key(), new(a=b"1")
            if is_known:
                await rig.store.merge(key, record, "one")
            await rig.store.merge(key, record.end(ROTATED, -GRACE_MS - 1_000), "one")
            held = await rig.held(key)
            assert (held.state, held.fields) == (REPLACED, {})

    @in_place
    async def test_the_base_of_a_count_may_be_gone(self, rig: Rig) -> None:
        """An increment under an assignment that the store has not is none; a name that nobody assigned may be counted."""
        key, base = fresh_key(), new(a=b"1")
        await rig.store.merge(key, base, "one")
        _, delta = write(base, key, B, {"n": 1})
        odd = msgspec.structs.replace(delta, additions={"a": Addition(*NEVER, 4), "n": Addition(1, C, 4)})
        assert (await rig.store.apply(odd, "one")).outcome is Outcome.APPLIED
        assert same(await rig.held(key), apply(base, odd)[1])

    @in_place
    async def test_clashes_end_the_same_everywhere(self, rig: Rig) -> None:
        """Equal stamps with different bytes, which no protocol brings about: the greater bytes win, also a longer prefix."""
        for one, other in ((b"b", b"aa"), (b"a", b"aa"), (b"\xff", b"\x00" * 300), (b"x" * 40, b"x" * 39 + b"w")):
            for order in ((one, other), (other, one)):
                key = fresh_key()
                for value in order:
                    await rig.store.merge(key, new(a=value), "one")
                assert same(await rig.held(key), new(a=max(one, other)))
        key = fresh_key()
        for subject in ("", "b", "Zoë", "a", "Zoe"):
            await rig.store.merge(key, new(a=b"1", subject=subject), "one")
        assert (await rig.held(key)).subject == "b"

    @settings(suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow])
    @given(networks(), st.data())
    @in_place
    async def test_any_history_is_what_the_rules_make_of_it(
        self, rig: Rig, network: Network, data: st.DataObject
    ) -> None:
        """Writes and whole records in any order, with repeats: outcome, rest and record are those of the rules."""
        key = fresh_key()
        before: Record | None = None
        deltas = [msgspec.structs.replace(Delta.parse(post.data), key=key) for post in network.posts]
        born = Record.create(now_ms=0, idle_ms=IDLE_MS, deadline_ms=LIFE_MS, subject="u")
        wholes = [
            born,
            *(copy.record.shift(-network.now_ms - copy.ahead_ms) for copy in network.replicas if copy.record),
        ]
        either: list[Delta | Record] = [*deltas, *deltas, *wholes]
        steps = st.lists(st.sampled_from(either), min_size=1, max_size=12)
        for step in data.draw(steps):
            after: Record | None
            if isinstance(step, Delta):
                outcome, after = apply(before, step)
                pushed = await rig.store.apply(step, "one")
                assert pushed.outcome is outcome
                if outcome is Outcome.NEED:
                    assert pushed.rest is None
                elif outcome is Outcome.APPLIED and after is not None:
                    is_alone = after.heads == (step.stamp,) and after.state == LIVE
                    assert pushed.rest is None if is_alone else same(pushed.rest, after)
            else:
                after = step if before is None else merge(before, step)
                pushed = await rig.store.merge(key, step, "one")
                assert same(pushed.rest, rest_of(after, step))
                is_new = before is None or (after.version, after.state) != (before.version, before.state)
                assert pushed.outcome is (Outcome.APPLIED if is_new else Outcome.KNOWN)
            before = after
        status, held = await rig.store.fetch(key, None)
        assert status is (FetchStatus.RECORD if before else FetchStatus.NONE) and same(held, before)

    @in_place
    async def test_many_writers_at_once_lose_nothing(self, rig: Rig) -> None:
        """Writes over two stores at the same moment are all there in the end, each field and each increment."""
        key, base, stores = fresh_key(), new(a=b"1"), (rig.store, await rig.another())
        await rig.store.merge(key, base, "one")
        written = [write(base, key, writer, {"n": 1}, **{f"of {writer}": b"x"}) for writer in range(100, 124)]
        half = len(written) // 2
        pushes = [stores[at % 2].apply(delta, "one") for at, (_, delta) in enumerate(written[:half])]
        merges = [stores[at % 2].merge(key, record, "one") for at, (record, _) in enumerate(written[half:])]
        assert all(pushed.outcome is Outcome.APPLIED for pushed in await asyncio.gather(*pushes, *merges))
        held = await rig.held(key)
        assert same(held, functools.reduce(merge, (record for record, _ in written)))
        assert held.fields["n"].added == len(written) == len(held.heads)
