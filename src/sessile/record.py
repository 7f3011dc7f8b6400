"""The replicated state of one session, and how two copies of it become one.

A `Record` is a small CRDT (Shapiro et al., *Conflict-free Replicated Data Types*, SSS 2011). Every field carries the
`Stamp` of the write that gave it its value, a Lamport clock per session (Lamport 1978). Beside the fields stands a version
vector, always causally closed, and the *heads*: those writes which no other write in the record supersedes. Merging is
commutative, associative and idempotent; deltas may come late, repeated and in any order.

A removal leaves nothing behind. An assignment that one copy has, that the other has not, and that the other's version
covers, was removed or replaced there (Bieniusz et al., *An Optimized Conflict-free Replicated Set*, 2012). For that rule
a record keeps every assignment which none that it knows of has replaced: one, and a few after parallel writes to the
same field. The one with the highest stamp is read. `docs/design/0015` says why.

This module knows no clock, no randomness and no IO. Times are whole milliseconds on the clock of whoever holds the
record: they never take part in a version, and they travel only as durations (`shift`). A record is immutable; every
change makes a new one. At rest it is one `bytes` (`pack`), in which a stamp names its writer by its place in the version.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct

from sessile.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "BYTES_MAX",
    "COUNTER_MAX",
    "ENDED",
    "FIELDS_MAX",
    "HELD_BYTES_MAX",
    "LIVE",
    "NEVER",
    "REMOVED",
    "REPLACED",
    "ROTATED",
    "TIME_MAX_MS",
    "TOTAL_MAX",
    "WRITERS_MAX",
    "WRITER_BITS",
    "WRITTEN_BYTES_MAX",
    "WRITTEN_FIELDS_MAX",
    "Assignment",
    "Entry",
    "Heads",
    "Record",
    "Stamp",
    "Version",
    "merge",
]

WRITER_BITS: Final = 48
"""Bits of a writer's random tag; a thousand writers of one session clash once in a billion sessions."""
COUNTER_MAX: Final = 2**53
TIME_MAX_MS: Final = 2**53
TOTAL_MAX: Final = 2**62
"""What one writer's increments of a counter may add up to."""
WRITERS_MAX: Final = 4_096
FIELDS_MAX: Final = 16_384
BYTES_MAX: Final = 2**24 - 2**16
"""The largest record that a server accepts from a peer or a store, even if its own limits are lower. It fits in a frame."""
HELD_BYTES_MAX: Final = BYTES_MAX - 2**16
"""The largest record that a server holds. Every server accepts it, with times on another clock or as one delta."""
WRITTEN_BYTES_MAX: Final = 2 * 2**20
WRITTEN_FIELDS_MAX: Final = FIELDS_MAX // 4
"""The upper bounds of `session_bytes_max` and `fields_max`: three servers that each write as much at the same time still make
a record that all servers accept."""

LIVE: Final = 0
ROTATED: Final = 1
"""Ended because the session got a new id; the fields stay for a moment, to be looked at."""
ENDED: Final = 2
REPLACED: Final = 3
"""Ended, and the browser goes on in another session: rotated a while ago, or logged out by a request that began a new session. A
request with the old id never sets an id cookie, since it may be answered after the browser has got the new id."""

REMOVED: Final = b""
"""In a write: the field is removed. In an entry: nothing but increments. No encoder writes it: a value has at least one byte."""


class Stamp(NamedTuple):
    """The name of one write: compared by counter first, then by writer."""

    counter: int
    writer: int


_new_stamp: Final = tuple.__new__
"""Makes a stamp in C, for the two places on the path of every write."""
NEVER: Final = Stamp(0, 0)
"""The stamp of a name that nobody has assigned: counters start here."""

Version = dict[int, int]
"""Writer → its highest counter in the record."""
Heads = tuple[Stamp, ...]
"""The writes that no other write supersedes, sorted."""


class Assignment(NamedTuple):
    """One assignment to a field that no other write has replaced, and the increments that count from it."""

    writer: int
    """The place of its writer in the record's version."""
    counter: int
    value: bytes
    """`REMOVED` where the first increment of a name began a counter."""
    additions: tuple[tuple[int, int, int], ...]
    """(place of the writer, counter of its last increment, its running sum), one for each writer."""


class Entry(Struct, array_like=True, frozen=True, gc=False):
    """One field: its assignment with the highest stamp and, in `rest`, what else there is of it.

    `writer` is a place in the record's version. `counter` 0 stands in records of early versions for a name that was only
    ever incremented.
    """

    writer: int
    counter: int
    value: bytes
    rest: tuple[tuple[int, int, int | bytes], ...] = ()
    """Increments of the assignment before them: (place, counter, running sum). Other assignments, made in parallel, in the
    order of falling stamps: (place, counter, value)."""

    @classmethod
    def of(cls, assignments: list[Assignment]) -> Entry:
        """A field with these assignments, the one with the highest stamp first."""
        writer, counter, value, additions = assignments[0]
        rest: list[tuple[int, int, int | bytes]] = [*additions]
        for other in assignments[1:]:
            rest.append(other[:3])
            rest += other.additions
        return cls(writer, counter, value, tuple(rest))

    def assignments(self) -> list[Assignment]:
        """Every assignment, the one with the highest stamp first."""
        found = [Assignment(self.writer, self.counter, self.value, ())]
        for place, counter, item in self.rest:
            if isinstance(item, bytes):
                found.append(Assignment(place, counter, item, ()))
            else:
                last = found[-1]
                found[-1] = last._replace(additions=(*last.additions, (place, counter, item)))
        return found

    @property
    def is_present(self) -> bool:
        return self.value != REMOVED or bool(self.rest)

    def read(self) -> tuple[bytes, int]:
        """The value that is read, and what was added to it.

        Of assignments made in parallel that is the one with the highest stamp; an increment that began a counter is none. If
        there are only such, the value is `REMOVED`, and all that was added is added.
        """
        if not self.rest:
            return self.value, 0
        found = self.assignments()
        for each in found:
            if each.value:
                return each.value, sum(total for _, _, total in each.additions)
        return REMOVED, sum(total for each in found for _, _, total in each.additions)

    @property
    def added(self) -> int:
        """What the increments amount to that are read."""
        return self.read()[1]

    def with_added(self, place: int, counter: int, amount: int) -> Entry:
        """The field once the writer at this place has added so much to what is read."""
        found = self.assignments() if self.rest else [Assignment(self.writer, self.counter, self.value, ())]
        at = next((at for at, each in enumerate(found) if each.value), 0)
        mine = next((total for other, _, total in found[at].additions if other == place), 0)
        found[at] = _with_addition(found[at], place, counter, mine + amount)
        return Entry.of(found)

    def with_addition(self, under: int, place: int, counter: int, total: int) -> Entry:
        """The field once the writer at `place` has added so much in all to the assignment number `under`."""
        found = self.assignments()
        found[under] = _with_addition(found[under], place, counter, total)
        return Entry.of(found)

    def without_values(self) -> Entry:
        """The stamps of its assignments alone, for a copy that has their values: a merge takes them from there."""
        rest = tuple((place, counter, REMOVED) for place, counter, item in self.rest if isinstance(item, bytes))
        return Entry(self.writer, self.counter, REMOVED, rest)


def _with_addition(assignment: Assignment, place: int, counter: int, total: int) -> Assignment:
    others = tuple(addition for addition in assignment.additions if addition[0] != place)
    return assignment._replace(additions=(*others, (place, counter, total)))


class Record(Struct, array_like=True, frozen=True, gc=False):
    """All of one session. Build the first with `Record.create`, the next with `write`, `touch`, `end` or `merge`."""

    state: int
    """`LIVE`, `ROTATED`, `ENDED` or `REPLACED`; only ever grows."""
    idle_ms: int
    """How long the session lives without a touch."""
    deadline_ms: int
    """When it ends in any case."""
    touched_ms: int
    """When it was last touched."""
    ended_ms: int
    """When this holder learned of its end; 0 while it lives."""
    subject: str
    """Whom `login` bound the session to; empty for nobody. Part of its birth: it never changes."""
    version: Version
    head_places: tuple[int, ...]
    """Places in the version of the writers whose last write is a head."""
    fields: dict[str, Entry]

    @classmethod
    def create(cls, *, now_ms: int, idle_ms: int, deadline_ms: int, subject: str = "") -> Record:
        """A session that nobody has written to yet."""
        return cls(LIVE, idle_ms, deadline_ms, now_ms, 0, subject, {}, (), {})

    # -- bytes ---------------------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        """The record as it is kept at rest."""
        return _encode(self)

    @staticmethod
    def unpack(data: bytes) -> Record:
        """A record from bytes that this process packed itself; nothing is checked but the shape."""
        return _decode(data)

    @staticmethod
    def parse(data: bytes) -> Record:
        """A record from bytes of a peer or a store.

        Raises:
            RecordError: they are no record, break its invariants or exceed its limits.
        """
        if len(data) > BYTES_MAX:
            raise RecordError(f"a record of {len(data)} bytes is over the limit of {BYTES_MAX}")
        try:
            record = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RecordError(f"these bytes are no record: {error}") from None
        record.check()
        return record

    def check(self) -> None:
        """Hold the record against its invariants.

        Raises:
            RecordError: one is broken; the message says which.
        """
        if not LIVE <= self.state <= REPLACED:
            raise RecordError(f"a record has no state {self.state}")
        for time_ms in (self.idle_ms, self.deadline_ms, self.touched_ms, self.ended_ms):
            if not -TIME_MAX_MS <= time_ms <= TIME_MAX_MS or (self.state == LIVE and self.ended_ms):
                raise RecordError("a record's times are out of range")
        if self.state >= ENDED and self.fields:
            raise RecordError("an ended record has no fields")
        self._check_version()
        self._check_fields()

    def travels(self, packed_bytes: int) -> bool:
        """Whether every server and store accepts the record; `packed_bytes` is its packed size."""
        return packed_bytes <= HELD_BYTES_MAX and len(self.fields) <= FIELDS_MAX and len(self.version) <= WRITERS_MAX

    def _check_version(self) -> None:
        places, heads = len(self.version), self.head_places
        if places > WRITERS_MAX or len(self.fields) > FIELDS_MAX:
            raise RecordError(f"a record with {places} writers and {len(self.fields)} fields is over its limits")
        for writer, counter in self.version.items():
            if not (0 <= writer < 1 << WRITER_BITS and 0 < counter <= COUNTER_MAX):
                raise RecordError("a record's version is out of range")
        if bool(places) != bool(heads):
            raise RecordError("a record has heads exactly when somebody wrote to it")
        if heads != (0,) and (len(set(heads)) != len(heads) or not all(0 <= p < places for p in heads)):
            raise RecordError("a record's heads are not in its version")

    def _check_fields(self) -> None:
        places, counters = len(self.version), list(self.version.values())
        for name, entry in self.fields.items():
            if not entry.rest and 0 <= entry.writer < places and 0 < entry.counter <= counters[entry.writer]:
                continue  # as good as always
            self._check_entry(name, entry, counters)

    def _check_entry(self, name: str, entry: Entry, counters: list[int]) -> None:
        if any(not isinstance(item, bytes) and abs(item) > TOTAL_MAX for _, _, item in entry.rest):
            raise RecordError(f"field {name!r} has a sum out of range")
        stamps = [(entry.writer, entry.counter)] if entry.counter else []
        stamps += [(place, counter) for place, counter, _ in entry.rest]
        if not stamps or not all(0 <= p < len(counters) and 0 < c <= counters[p] for p, c in stamps):
            raise RecordError(f"the stamps of field {name!r} are not covered by the record's version")
        assignments = entry.assignments()
        if not entry.counter and (entry.value or len(assignments) > 1 or entry.writer):
            raise RecordError(f"field {name!r} has a value that nobody assigned")
        for each in assignments:
            if len({place for place, _, _ in each.additions}) != len(each.additions):
                raise RecordError(f"field {name!r} counts a writer twice")
        tags = list(self.version)
        ranks = [(each.counter, tags[each.writer]) for each in assignments] if entry.counter else []
        if any(one <= other for one, other in pairwise(ranks)):
            raise RecordError(f"the assignments of field {name!r} are not in order")

    # -- what it says --------------------------------------------------------------------------------------------

    @property
    def heads(self) -> Heads:
        """The writes that no other write in the record supersedes, sorted."""
        if len(self.version) == 1:  # as good as always
            ((writer, counter),) = self.version.items()
            return (_new_stamp(Stamp, (counter, writer)),)
        writers = list(self.version.items())
        return tuple(sorted(Stamp(writers[place][1], writers[place][0]) for place in self.head_places))

    @property
    def counter(self) -> int:
        """The highest counter in the record; 0 before the first write."""
        return max(self.version.values()) if self.version else 0

    def covers(self, heads: Iterable[Stamp]) -> bool:
        """Whether every one of these writes, and so all that they build on, is in the record."""
        version = self.version
        for counter, writer in heads:  # noqa: SIM110  # a third of the time of all(...), on every request
            if version.get(writer, 0) < counter:
                return False
        return True

    def has_heads(self, heads: Heads) -> bool:
        """Whether these are the record's heads."""
        if len(self.version) == 1 and len(heads) == 1:  # as good as always
            counter, writer = heads[0]
            return self.version.get(writer) == counter
        return heads == self.heads

    def names(self) -> Iterator[str]:
        """The names of the fields that have a value, in the order of their first appearance."""
        return (name for name, entry in self.fields.items() if entry.value or entry.rest)

    def stamp_of(self, entry: Entry) -> Stamp:
        """The highest stamp among the field's assignments."""
        return Stamp(entry.counter, list(self.version)[entry.writer]) if entry.counter else NEVER

    def expires_ms(self) -> int:
        """When a holder may drop it, unless it is touched meanwhile."""
        return min(self.touched_ms + self.idle_ms, self.deadline_ms)

    def since(self, have: Version) -> Record:
        """The record for somebody whose copy has this version, or a later one: without the values that this copy has.

        The names and stamps of the other fields stay, because a field that is missing is a field that was removed. It is
        only good for being merged with that copy.
        """
        known = [have.get(writer, 0) for writer in self.version]
        fields = {
            name: entry.without_values()
            if 0 < entry.counter <= known[entry.writer] and all(counter <= known[at] for at, counter, _ in entry.rest)
            else entry
            for name, entry in self.fields.items()
        }
        return msgspec.structs.replace(self, fields=fields)

    def times(self) -> Record:
        """The record's times for somebody who lacks nothing of it: merging them changes nothing else."""
        return msgspec.structs.replace(self, version={}, head_places=(), fields={})

    def same_state(self, other: Record) -> bool:
        """Whether both say the same of the session; local times do not count."""
        return _canonical(self) == _canonical(other)

    # -- the next one --------------------------------------------------------------------------------------------

    def write(
        self,
        writer: int,
        values: Mapping[str, bytes],
        increments: Mapping[str, int] | None = None,
        *,
        now_ms: int,
        above: int = 0,
    ) -> tuple[Record, Stamp]:
        """The record after one write by `writer`, and the write's stamp. A write is a touch.

        Args:
            writer: the tag of the process that writes.
            values: name → encoded value, or `REMOVED`.
            increments: name → what to add; a name stands here or in `values`, not in both.
            now_ms: the time on this holder's clock.
            above: the highest counter that the request's token names.
        """
        version = self.version
        counter = version[writer] if len(version) == 1 and writer in version else max(version.values(), default=0)
        counter = 1 + (counter if counter > above else above)  # noqa: FURB136  # max() costs more than all of this
        version = {**version, writer: counter}
        place = 0 if len(version) == 1 else list(version).index(writer)
        fields = dict(self.fields)
        for name, value in values.items():
            if value:
                fields[name] = Entry(place, counter, value)
            else:
                fields.pop(name, None)
        if increments:
            for name, amount in increments.items():
                entry = fields.get(name) or Entry(place, counter, REMOVED)
                fields[name] = entry.with_added(place, counter, amount)
        record = Record(
            self.state,
            self.idle_ms,
            self.deadline_ms,
            now_ms if now_ms > self.touched_ms else self.touched_ms,  # noqa: FURB136  # as above
            self.ended_ms,
            self.subject,
            version,
            (place,),
            fields,
        )
        return record, _new_stamp(Stamp, (counter, writer))

    def touch(self, now_ms: int) -> Record:
        """The record as of a later touch. Changes no version."""
        return msgspec.structs.replace(self, touched_ms=max(self.touched_ms, now_ms))

    def end(self, state: int, now_ms: int) -> Record:
        """The record ended: `ROTATED` keeps the fields to be looked at, the others keep nothing but the version."""
        state = max(state, self.state)
        fields = {} if state >= ENDED else self.fields
        return msgspec.structs.replace(self, state=state, ended_ms=self.ended_ms or now_ms, fields=fields)

    def shift(self, by_ms: int) -> Record:
        """The record on a clock that shows `by_ms` more. By minus now, times become durations; by now, times again."""
        return msgspec.structs.replace(
            self,
            deadline_ms=self.deadline_ms + by_ms,
            touched_ms=self.touched_ms + by_ms,
            ended_ms=self.ended_ms + by_ms if self.state else 0,
        )


def merge(one: Record, other: Record, clashes: list[str] | None = None) -> Record:
    """The join of two copies of one session.

    Args:
        one: a copy.
        other: another copy of the same session, its times on the same clock.
        clashes: collects the names of fields for which equal stamps carry different bytes, which no two writers that
            follow the protocol can bring about; the greater bytes win, so that copies agree all the same.
    """
    version = dict(one.version)
    for writer, counter in other.version.items():
        if counter > version.get(writer, 0):
            version[writer] = counter
    places = {writer: place for place, writer in enumerate(version)}
    moved = [places[writer] for writer in other.version]
    state = max(one.state, other.state)
    fields = {} if state >= ENDED else _joined_fields(one, other, version, moved, clashes)
    return Record(
        state,
        min(one.idle_ms, other.idle_ms),
        min(one.deadline_ms, other.deadline_ms),
        max(one.touched_ms, other.touched_ms),
        max(one.ended_ms, other.ended_ms),
        max(one.subject, other.subject),
        version,
        _joined_heads(one, other, places),
        fields,
    )


def _joined_fields(
    one: Record, other: Record, version: Version, moved: list[int], clashes: list[str] | None
) -> dict[str, Entry]:
    """The fields of two copies; `moved` gives the places in the merged version of the other copy's writers."""
    writers = list(version)
    we_know, they_know = ([copy.version.get(writer, 0) for writer in writers] for copy in (one, other))
    fields: dict[str, Entry] = {}
    for name, ours in one.fields.items():
        theirs = other.fields.get(name)
        if theirs is None:
            kept = _unknown(ours, they_know)
        else:
            kept = _join(ours, _moved(theirs, moved), we_know, they_know, writers, name, clashes)
        if kept is not None:
            fields[name] = kept
    for name, theirs in other.fields.items():
        if name not in one.fields:
            kept = _unknown(_moved(theirs, moved), we_know)
            if kept is not None:
                fields[name] = kept
    return fields


def _moved(entry: Entry, places: list[int]) -> Entry:
    """The entry with its writers' places in another version."""
    rest = tuple((places[place], counter, item) for place, counter, item in entry.rest) if entry.rest else ()
    return Entry(places[entry.writer] if entry.counter else 0, entry.counter, entry.value, rest)


def _unknown(entry: Entry, known: list[int]) -> Entry | None:
    """What is left of a field that the other copy has not: it has removed what its version covers."""
    if not entry.rest:
        return entry if entry.counter > known[entry.writer] else None
    kept = [each for each in entry.assignments() if each.counter > known[each.writer]]
    return Entry.of(kept) if kept else None


def _join(  # noqa: PLR0917  # what there is to know of two copies
    ours: Entry,
    theirs: Entry,
    we_know: list[int],
    they_know: list[int],
    writers: list[int],
    name: str,
    clashes: list[str] | None,
) -> Entry | None:
    """One field of two copies, both with places in the merged version; what each knows, by place."""
    if ours == theirs:
        return ours
    is_same = ours.counter == theirs.counter and ours.writer == theirs.writer
    if not (ours.rest or theirs.rest or is_same):  # as good as always
        stays, comes = ours.counter > they_know[ours.writer], theirs.counter > we_know[theirs.writer]
        if stays != comes:
            return ours if stays else theirs
        if not stays:
            return None
    other = {(each.writer, each.counter): each for each in theirs.assignments()}
    kept = []
    for each in ours.assignments():
        same = other.pop((each.writer, each.counter), None)
        if same is not None:
            kept.append(_united(each, same, name, clashes))
        elif each.counter > they_know[each.writer]:
            kept.append(each)
    kept += [each for each in other.values() if each.counter > we_know[each.writer]]
    kept.sort(key=lambda each: (each.counter, writers[each.writer]), reverse=True)
    return Entry.of(kept) if kept else None


def _united(ours: Assignment, theirs: Assignment, name: str, clashes: list[str] | None) -> Assignment:
    """One assignment of two copies, with the increments that either knows of."""
    totals = {place: (counter, total) for place, counter, total in ours.additions}
    is_clash = ours.value != theirs.value and bool(ours.value) and bool(theirs.value)  # without a value: `since`
    for place, counter, total in theirs.additions:
        mine = totals.get(place, (0, 0))
        is_clash = is_clash or (mine[0] == counter and mine[1] != total)
        totals[place] = max(mine, (counter, total))
    if clashes is not None and is_clash:
        clashes.append(name)
    additions = tuple((place, counter, total) for place, (counter, total) in totals.items())
    return ours._replace(value=max(ours.value, theirs.value), additions=additions)


def _joined_heads(one: Record, other: Record, places: dict[int, int]) -> tuple[int, ...]:
    """A head of one copy stays a head when the other copy does not know it, or holds it for a head as well."""
    ours, theirs = set(one.heads), set(other.heads)
    stay = {head for head in ours if head in theirs or other.version.get(head.writer, 0) < head.counter}
    stay |= {head for head in theirs if head in ours or one.version.get(head.writer, 0) < head.counter}
    return tuple(sorted(places[head.writer] for head in stay))


def _canonical(record: Record) -> tuple[object, ...]:
    writers = list(record.version)
    fields = {
        name: [
            (
                Stamp(each.counter, writers[each.writer]) if each.counter else NEVER,
                each.value,
                {(writers[place], counter, total) for place, counter, total in each.additions},
            )
            for each in entry.assignments()
        ]
        for name, entry in record.fields.items()
    }
    return record.state, record.subject, record.version, record.heads, fields


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
