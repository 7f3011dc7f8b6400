"""A dumb model of a session's record: every write is kept as it was made, and each answer is computed from all of them.

A write carries its whole causal past as a set of stamps. Nothing is folded, superseded or thrown away, so that each rule
is one line: a field has the assignments that are in the past of no other assignment or removal of its name, a counter is the
sum of all increments that were made under one, the heads are the writes in nobody's past. It shares no code with
`sessile.record`.

`Network` drives some replicas of one session, each with its real record and its model, and lets messages between them
be late, repeated, lost and out of order. Every record goes through bytes after every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hypothesis import strategies as st

from sessile.delta import Delta, Outcome, apply
from sessile.record import ENDED, LIVE, REMOVED, ROTATED, Record, merge

Mark = tuple[int, int]
"""A write's counter and writer."""
NAMES = ("a", "b", "c")
IDLE_MS, DEADLINE_MS = 60_000, 1_000_000
A, B, C = 11, 22, 33
"""Writers for examples by hand."""


def born(**values: bytes) -> Record:
    """A session with these fields, written by A."""
    record = Record.create(now_ms=1_000, idle_ms=500, deadline_ms=9_000)
    return record.write(A, values, now_ms=1_000)[0] if values else record


def wrote(record: Record, writer: int, increments: dict[str, int] | None = None, **values: bytes) -> Record:
    """The record after one write."""
    return record.write(writer, values, increments, now_ms=record.touched_ms)[0]


class Op(NamedTuple):
    """One write, with everything its writer knew when it made it."""

    mark: Mark
    past: frozenset[Mark]
    assigned: dict[str, bytes]
    added: dict[str, tuple[Mark, int]]
    """Name → the assignment that it counts from, the write itself where it began a counter, and the amount."""


@dataclass(frozen=True)
class Model:
    """What one replica knows."""

    ops: frozenset[int] = frozenset()
    """Places in the network's list of all writes."""
    state: int = LIVE
    touched_ms: int = 0
    ended_ms: int = 0


class Post(NamedTuple):
    """A delta on its way, as bytes."""

    op: int
    data: bytes
    sender: int


@dataclass
class Replica:
    """A holder of the session, or one that has not heard of it."""

    writer: int
    ahead_ms: int
    """What its clock shows more than the network's."""
    record: Record | None = None
    model: Model | None = None

    def both(self) -> tuple[Record, Model]:
        assert self.record is not None and self.model is not None, "nobody told this replica of the session"
        return self.record, self.model


@dataclass(frozen=True)
class Write:
    at: int
    assigned: frozenset[str]
    removed: frozenset[str]
    added: dict[str, int]
    above: int


@dataclass(frozen=True)
class Deliver:
    to: int
    which: int
    is_whole_fetched: bool
    """Whether the receiver, told that it needs the record, gets it; otherwise the message is lost on it."""


@dataclass(frozen=True)
class Merge:
    to: int
    source: int


@dataclass(frozen=True)
class End:
    at: int
    state: int


@dataclass(frozen=True)
class Touch:
    at: int


Step = Write | Deliver | Merge | End | Touch


@dataclass
class Network:
    """Replicas of one session, and all that was ever sent between them."""

    replicas: list[Replica]
    now_ms: int = 100_000
    ops: list[Op] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, aheads_ms: list[int]) -> Network:
        """As many replicas as clocks; the first has the session."""
        # The tags do not rise with the replicas' places, so that "the greater writer wins" and "the first" differ.
        replicas = [Replica(writer=(7919 * (at + 3)) % 101 << 40, ahead_ms=ms) for at, ms in enumerate(aheads_ms)]
        network = cls(replicas)
        first = replicas[0]
        deadline_ms = DEADLINE_MS + first.ahead_ms
        first.record = Record.create(
            now_ms=network.now_ms + first.ahead_ms, idle_ms=IDLE_MS, deadline_ms=deadline_ms, subject="u"
        )
        first.model = Model(touched_ms=network.now_ms)
        return network

    def take(self, step: Step) -> None:
        """Let one thing happen."""
        self.now_ms += 10
        match step:
            case Write():
                self.write(self._at(step.at), step)
            case Deliver() if self.posts:
                post = self.posts[step.which % len(self.posts)]
                if self.deliver(self._at(step.to), post) is Outcome.NEED and step.is_whole_fetched:
                    self.join(self._at(step.to), self.replicas[post.sender])
            case Merge():
                self.join(self._at(step.to), self._at(step.source))
            case End():
                self.end(self._at(step.at), step.state)
            case Touch():
                self.touch(self._at(step.at))
            case _:
                pass

    def write(self, replica: Replica, step: Write) -> None:
        if replica.record is None or replica.record.state != LIVE:
            return
        record, model = replica.both()
        known = [self.ops[at] for at in model.ops]
        assigned = {name: b"%d" % len(self.ops) for name in step.assigned}
        assigned |= dict.fromkeys(step.removed - step.assigned, REMOVED)
        added = {name: amount for name, amount in step.added.items() if name not in assigned}
        # Whoever removes what is not there does nothing.
        told = {name: value for name, value in assigned.items() if value or standing(known, name)}
        counter = 1 + max([step.above, *(op.mark[0] for op in known)])
        past = frozenset(op.mark for op in known)
        self.ops.append(
            Op(
                mark=(counter, replica.writer),
                past=past,
                assigned=told,
                added={
                    name: (counted_from(known, name, (counter, replica.writer)), amount)
                    for name, amount in added.items()
                },
            )
        )
        here_ms = self.now_ms + replica.ahead_ms
        written, stamp = record.write(replica.writer, assigned, added, now_ms=here_ms, above=step.above)
        assert stamp == (counter, replica.writer)
        delta = Delta.of(written, b"k" * 16, record, stamp, names=assigned, counted=added)
        self.posts.append(
            Post(len(self.ops) - 1, delta.pack(), self.replicas.index(replica)),
        )
        model = replace(model, ops=model.ops | {len(self.ops) - 1}, touched_ms=max(model.touched_ms, self.now_ms))
        self._keep(replica, written, model)

    def deliver(self, replica: Replica, post: Post) -> Outcome:
        """Hand a delta over, and hold the outcome against what the model says it must be."""
        delta = Delta.parse(post.data)
        outcome, after = apply(replica.record, delta)
        if replica.record is None:
            assert (outcome, after) == (Outcome.NEED, None)
            return outcome
        record, model = replica.both()
        op = self.ops[post.op]
        known = {self.ops[at].mark for at in model.ops}
        if op.mark in known:
            assert outcome is Outcome.KNOWN and after is record
        elif not op.past <= known:
            assert outcome is Outcome.NEED and after is record
        else:
            assert outcome is Outcome.APPLIED and after is not None
            self._keep(replica, after, replace(model, ops=model.ops | {post.op}))
        return outcome

    def join(self, replica: Replica, source: Replica) -> None:
        """Give one replica the whole record of another, its times as durations."""
        if source.record is None:
            return
        theirs, their_model = source.both()
        travelling = Record.parse(theirs.shift(-self.now_ms - source.ahead_ms).pack())
        arrived = travelling.shift(self.now_ms + replica.ahead_ms)
        if replica.record is None:
            self._keep(replica, arrived, their_model)
            return
        record, model = replica.both()
        joined = Model(
            model.ops | their_model.ops,
            max(model.state, their_model.state),
            max(model.touched_ms, their_model.touched_ms),
            max(model.ended_ms, their_model.ended_ms),
        )
        self._keep(replica, merge(record, arrived, self.clashes), joined)

    def end(self, replica: Replica, state: int) -> None:
        if replica.record is None:
            return
        record, model = replica.both()
        ended = replace(model, state=max(state, model.state), ended_ms=model.ended_ms or self.now_ms)
        self._keep(replica, record.end(state, self.now_ms + replica.ahead_ms), ended)

    def touch(self, replica: Replica) -> None:
        if replica.record is None:
            return
        record, model = replica.both()
        touched = record.touch(self.now_ms + replica.ahead_ms)
        assert (touched.version, touched.heads) == (record.version, record.heads)
        self._keep(replica, touched, replace(model, touched_ms=max(model.touched_ms, self.now_ms)))

    def _at(self, place: int) -> Replica:
        return self.replicas[place % len(self.replicas)]

    def _keep(self, replica: Replica, record: Record, model: Model) -> None:
        """Swap the new record in, by way of its bytes, and compare it with the model."""
        before = replica.record
        if before is not None:
            assert all(record.version[writer] >= counter for writer, counter in before.version.items())
            assert record.state >= before.state
        replica.record, replica.model = Record.parse(record.pack()), model
        assert replica.record == record == Record.unpack(record.pack())
        self.compare(replica)

    def compare(self, replica: Replica) -> None:
        """Hold everything that a record says against the model."""
        record, model = replica.both()
        known = [self.ops[at] for at in model.ops]
        marks = {op.mark for op in known}
        assert all(op.past <= marks for op in known), "what a replica knows is causally closed"
        assert record.version == {
            writer: max(c for c, w in marks if w == writer) for writer in {writer for _, writer in marks}
        }
        heads = tuple(sorted(op.mark for op in known if not any(op.mark in other.past for other in known)))
        assert record.heads == heads and record.has_heads(record.heads)
        assert record.counter == max((counter for counter, _ in marks), default=0)
        for op in self.ops:
            assert record.covers([op.mark]) == (op.mark in marks)  # type: ignore[list-item]  # a plain pair is enough
        assert record.state == model.state
        assert said(record) == ({} if model.state == ENDED else expected(known))
        assert list(record.names()) == list(record.fields), "what is removed leaves nothing"
        assert all(record.fields[name].read() == read(told) for name, told in said(record).items())
        ahead_ms = replica.ahead_ms
        assert record.touched_ms - ahead_ms == model.touched_ms
        assert record.expires_ms() - ahead_ms == min(model.touched_ms + IDLE_MS, DEADLINE_MS)
        assert record.ended_ms == (model.ended_ms + ahead_ms if model.state else 0)


def standing(ops: list[Op], name: str) -> list[Op]:
    """The assignments of the name that none of these writes replaces, and where counters began; the highest first."""
    made = [op for op in ops if op.assigned.get(name) or (name in op.added and op.added[name][0] == op.mark)]
    stand = [op for op in made if not any(name in other.assigned and op.mark in other.past for other in ops)]
    return sorted(stand, key=lambda op: op.mark, reverse=True)


def counted_from(ops: list[Op], name: str, mark: Mark) -> Mark:
    """What an increment counts from: what is read, or where a counter began; where there is nothing, from itself."""
    stand = standing(ops, name)
    return next((op.mark for op in [*(op for op in stand if op.assigned.get(name)), *stand]), mark)


Told = tuple[Mark, bytes, int, bool]
"""An assignment, its value, what was added to it, and whether anybody added anything."""


def expected(ops: list[Op]) -> dict[str, list[Told]]:
    """Name → its assignments, the highest first."""
    told: dict[str, list[Told]] = {}
    for name in NAMES:
        for op in standing(ops, name):
            amounts = [each.added[name][1] for each in ops if name in each.added and each.added[name][0] == op.mark]
            value = op.assigned.get(name, REMOVED)
            told.setdefault(name, []).append((op.mark, value, sum(amounts), bool(amounts)))
    return told


def said(record: Record) -> dict[str, list[Told]]:
    """The same as `expected`, as the record tells it."""
    tags = list(record.version)
    return {
        name: [
            ((each.counter, tags[each.writer]), each.value, sum(t for _, _, t in each.additions), bool(each.additions))
            for each in entry.assignments()
        ]
        for name, entry in record.fields.items()
    }


def read(told: list[Told]) -> tuple[bytes, int]:
    """What is read of a field with these assignments."""
    with_value = [each for each in told if each[1]]
    return with_value[0][1:3] if with_value else (REMOVED, sum(amount for _, _, amount, _ in told))


_places = st.integers(0, 4)
_names = st.frozensets(st.sampled_from(NAMES), max_size=2)
_amounts = st.dictionaries(st.sampled_from(NAMES), st.integers(-5, 5), max_size=2)
_writes = st.builds(Write, _places, _names, _names, _amounts, st.sampled_from([0, 0, 0, 3, 40]))
_deliveries = st.builds(Deliver, _places, st.integers(0, 99), st.booleans())
_quiet_steps = st.one_of(_writes, _deliveries, _deliveries, st.builds(Merge, _places, _places))
_ends = st.builds(End, _places, st.sampled_from([ROTATED, ENDED]))
_steps = st.one_of(_quiet_steps, _quiet_steps, _quiet_steps, st.builds(Touch, _places), _ends)


@st.composite
def networks(draw: st.DrawFn, *, may_end: bool = True) -> Network:
    """A network to which up to forty things have happened."""
    network = Network.start(draw(st.lists(st.integers(-50_000, 50_000), min_size=2, max_size=5)))
    count = draw(st.integers(0, 40))  # lists without a length are mostly shorter than five
    for step in draw(st.lists(_steps if may_end else _quiet_steps, min_size=count, max_size=count)):
        network.take(step)
    return network


@st.composite
def copies(draw: st.DrawFn, count: int, *, may_end: bool = True) -> list[Record]:
    """Reachable records of one session, all on one clock."""
    network = draw(networks(may_end=may_end))
    held = [replica.record.shift(-replica.ahead_ms) for replica in network.replicas if replica.record is not None]
    return draw(st.lists(st.sampled_from(held), min_size=count, max_size=count))


MUTATION = st.tuples(st.sampled_from(["flip", "cut", "insert", "drop"]), st.integers(0, 10_000), st.integers(1, 255))


def mutated(data: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    """The bytes after some small damage."""
    for kind, place, byte in mutations:
        at = place % (len(data) + 1)
        if kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + bytes([byte]) + data[at:]
        else:
            changed = bytes([data[at] ^ byte]) if kind == "flip" and at < len(data) else b""
            data = data[:at] + changed + data[at + 1 :]
    return data
