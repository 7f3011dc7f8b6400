"""Bugs that are planted into the real code one at a time, to show that the checkers find them.

Each is a mistake that somebody could make, or an economy that seems sound: its docstring is what that somebody would say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from msgspec.structs import replace

import tests.simulation.planted_away  # noqa: F401  # what it plants is entered into the list
from sessile import codec
from sessile import delta as delta_module
from sessile import items as items_module
from sessile import record as record_module
from sessile.backend import Acknowledged, Ended, Pulled, PullStatus
from sessile.engine import Engine
from sessile.record import LIVE, ROTATED, Entry, Record
from sessile.replication import replica as replica_module
from sessile.replication.context import Context
from sessile.replication.events import Answer
from sessile.replication.intake import NEED, Intake
from sessile.replication.links import Links
from sessile.replication.membership import Membership
from sessile.replication.node import Node
from sessile.replication.placement import Placement
from sessile.replication.pulls import NONE, Pulls
from sessile.replication.pushes import Pushes
from sessile.replication.repair import Repair
from sessile.replication.replica import Replica
from sessile.session import Session
from sessile.simulation.campaign import one
from tests.simulation.planting import PLANTED, merging, method, planting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sessile.replication.peer import Peer

__all__ = ["PLANTED", "hunt", "planted"]


def planted(name: str) -> AbstractContextManager[None]:
    """The bug of this name, in place for as long as it is entered."""
    return PLANTED[name]()


def hunt(name: str, *, first: int, at_most: int, checker: str = "", options: str = "") -> tuple[int, int, str]:
    """Run seeds with the bug in place until something is found.

    Args:
        name: of the bug.
        first: the first seed.
        at_most: so many runs are made.
        checker: whose findings count; of all of them without it.
        options: replaces drawn options, as in `options.parse`.

    Returns:
        How many runs it took, the seed, and what was found; zero runs where nothing was.
    """
    with planted(name):
        for runs in range(1, at_most + 1):
            seed = first + runs - 1
            for finding in one(seed, options)[1]:
                if checker in {"", finding.checker}:
                    return runs, seed, f"{finding.checker}: {finding.problem}"
    return 0, 0, ""


# -- changes ---------------------------------------------------------------------------------------------------------------


@planting("the base of a delta is not looked at")
def _() -> Iterator[None]:
    """A delta is applied whether or not the record it builds on is there: the rest will come."""

    def make(apply: Any) -> Any:
        def careless(record: Record | None, delta: Any, now_ms: int = 0) -> Any:
            if record is None:
                record = Record.create(now_ms=now_ms, idle_ms=1_800_000, deadline_ms=now_ms + 43_200_000)
            if not record.covers(delta.base):
                version = dict(record.version)
                for counter, writer in delta.base:
                    version[writer] = max(counter, version.get(writer, 0))
                record = replace(record, version=version)
            return apply(record, delta, now_ms)

        return careless

    with method(replica_module, "apply", make):
        yield


@planting("a merge takes what arrived last")
def _() -> Iterator[None]:
    """Of two assignments the one that came last is the newer."""

    def make(join: Any) -> Any:
        def latest(ours: Entry, theirs: Entry, *rest: Any) -> Entry | None:
            joined: Entry | None = join(ours, theirs, *rest)
            return joined if joined is None or len(joined.assignments()) == 1 else replace(theirs, rest=())

        return latest

    with method(record_module, "_join", make):
        yield


@planting("of parallel assignments only the later is kept")
def _() -> Iterator[None]:
    """The higher stamp wins, so the other one is not needed any more."""

    def make(join: Any) -> Any:
        def highest(*copies: Any) -> Entry | None:
            joined: Entry | None = join(*copies)
            return joined if joined is None or not joined.value else Entry.of(joined.assignments()[:1])

        return highest

    with method(record_module, "_join", make):
        yield


@planting("what one copy has not, it has not received yet")
def _() -> Iterator[None]:
    """A merge is the union of both copies."""
    with method(record_module, "_unknown", lambda _: lambda entry, known: entry):
        yield


@planting("a removal removes whatever is there")
def _() -> Iterator[None]:
    """A write of an empty value, whatever assignments its receiver has meanwhile."""

    def make(kept: Any) -> Any:
        del kept
        return lambda entry, record, known: []

    with method(delta_module, "_kept", make):
        yield


@planting("a delta names the heads alone")
def _() -> Iterator[None]:
    """What a write was made on follows from the heads."""
    with method(delta_module, "_with_replaced", lambda _: lambda base, *rest: base):
        yield


@planting("an answer leaves out what did not change")
def _() -> Iterator[None]:
    """The asker has it."""

    def make(since: Any) -> Any:
        def news(self: Record, have: Any) -> Record:
            answer: Record = since(self, have)
            return replace(answer, fields={name: entry for name, entry in answer.fields.items() if entry.is_present})

        return news

    with method(Record, "since", make):
        yield


# -- sets and lists --------------------------------------------------------------------------------------------------------


@planting("adding what is in a set changes nothing")
def _() -> Iterator[None]:
    """It is there."""

    def make(add_to: Any) -> Any:
        def economical(self: Session, name: str, value: Any) -> None:
            if value not in self.get(name, ()):
                add_to(self, name, value)

        return economical

    with method(Session, "add_to", make):
        yield


@planting("a removal of a set removes the items that its request saw")
def _() -> Iterator[None]:
    """What the handler did is what is stored."""
    with method(items_module, "removed_with", lambda _: lambda record, values: {}):
        yield


@planting("every server numbers what it appends")
def _() -> Iterator[None]:
    """The first item of a request is number 0, the next one number 1."""
    with method(Engine, "draw_batch", lambda _: lambda self: "0"):
        yield


@planting("a new id takes over the items as they are")
def _() -> Iterator[None]:
    """They are fields like any other."""
    with method(items_module, "carried", lambda _: lambda record, changed, values: values):
        yield


@planting("items have the order of their names")
def _() -> Iterator[None]:
    """Sorted, they are the same everywhere, and moved by nothing."""

    def make(ordered: Any) -> Any:
        return lambda *given: sorted(ordered(*given))

    with method(items_module, "ordered", make):
        yield


# -- counters --------------------------------------------------------------------------------------------------------------


@planting("a merge keeps the increments of one writer")
def _() -> Iterator[None]:
    """The one who counted last has seen the others' increments."""

    def make(merge: Any) -> Any:
        def single(one: Record, other: Record, clashes: Any = None) -> Record:
            merged: Record = merge(one, other, clashes)
            fields = {name: replace(entry, rest=entry.rest[:1]) for name, entry in merged.fields.items()}
            return replace(merged, fields=fields)

        return single

    with merging(make):
        yield


@planting("counters are folded")
def _() -> Iterator[None]:
    """A counter whose sum is known is an integer: one entry instead of one for each writer."""

    def make(merge: Any) -> Any:
        def folded(one: Record, other: Record, clashes: Any = None) -> Record:
            merged: Record = merge(one, other, clashes)
            fields = dict(merged.fields)
            for name, entry in merged.fields.items():
                data, added = entry.read()
                additions = [(counter, place) for place, counter, item in entry.rest if not isinstance(item, bytes)]
                if len(additions) > 1:
                    base: Any = codec.decode(data) if data else 0
                    counter, place = max(additions)
                    fields[name] = type(entry)(place, counter, codec.encode(base + added))
            return replace(merged, fields=fields)

        return folded

    with merging(make):
        yield


@planting("two processes give the same stamps")
def _() -> Iterator[None]:
    """A cluster has one tag: counters alone tell writes apart."""
    with patch.object(Engine, "writer", property(lambda _: 7)):
        yield


@planting("a stamp is given twice")
def _() -> Iterator[None]:
    """A process draws its tag once and keeps it, whatever leaves its table."""

    class Tag:
        """Holds the first tag that is drawn."""

        def __get__(self, engine: Engine | None, owner: object = None) -> int:
            return 0 if engine is None else int(vars(engine).get("_tag", 0))

        def __set__(self, engine: Engine, writer: int) -> None:
            if writer:
                vars(engine)["_tag"] = writer

    with patch.object(Engine, "_writer", Tag(), create=True):
        yield


# -- acknowledgements ------------------------------------------------------------------------------------------------------


@planting("a change is acknowledged before it is applied")
def _() -> Iterator[None]:
    """What arrived is as good as applied, which can wait a moment."""

    def make(take: Any) -> Any:
        def later(self: Intake, peer: Peer, message: Any) -> None:
            peer.received += 1
            number = peer.received

            def apply() -> None:
                received, peer.received = peer.received, number - 1
                take(self, peer, message)
                peer.received = received

            self._context.alarm(5, apply)

        return later

    with method(Intake, "take_changed", make), method(Intake, "take_whole", make):
        yield


@planting("a denied change counts as held")
def _() -> Iterator[None]:
    """Who denies a change for want of its base is sent the record at once: as good as held."""

    def make(denied: Any) -> Any:
        def hasty(self: Pushes, push: Any, name: str, why: int) -> None:
            denied(self, push, name, why)
            if why == NEED:
                self._held(push, name)

        return hasty

    with method(Pushes, "_denied", make):
        yield


@planting("the answer leaves before anybody acknowledged")
def _() -> Iterator[None]:
    """The holders will have it in a millisecond."""

    def make(push: Any) -> Any:
        def eager(self: Pushes, ticket: int, key: bytes, change: Any, ack: str) -> None:
            push(self, ticket, key, change, "none" if ack == "one" else ack)

        return eager

    with method(Pushes, "push", make):
        yield


@planting("a node that leaves acknowledges")
def _() -> Iterator[None]:
    """It is there, after all, and what it handed over once need not be handed over again."""

    def make(take: Any) -> Any:
        def polite(self: Intake, peer: Peer, message: Any) -> None:
            leaving, self._context.is_leaving = self._context.is_leaving, False
            try:
                take(self, peer, message)
            finally:
                self._context.is_leaving = leaving

        return polite

    def go(_: Any) -> Any:
        def at_once(self: Node, until_ms: int) -> None:
            del until_ms
            assert self._stopping is not None, "a node goes when it was asked to"
            self._context.do(Answer(self._stopping, Acknowledged.YES))

        return at_once

    with method(Intake, "take_changed", make), method(Intake, "take_whole", make), method(Node, "_go", go):
        yield


# -- ends ------------------------------------------------------------------------------------------------------------------


@planting("an end goes to the holders only")
def _() -> Iterator[None]:
    """An end is a change like any other."""

    def make(_: Any) -> Any:
        return lambda self, push: self._context.placement.others(push.key)

    with method(Pushes, "_targets", make):
        yield


@planting("an end is answered before it is told")
def _() -> Iterator[None]:
    """Who logs out does not wait for anything."""

    def make(push: Any) -> Any:
        def quick(self: Pushes, ticket: int, key: bytes, change: Any, ack: str) -> None:
            if isinstance(change, Ended):
                self._context.do(Answer(ticket, Acknowledged.YES))
                self._context.alarm(20, lambda: push(self, -1, key, change, "none"))
                return
            push(self, ticket, key, change, ack)

        return quick

    def unasked(end: Any) -> Any:
        def skip(self: Any, effect: Any) -> None:
            if not (isinstance(effect, Answer) and effect.ticket == -1):
                end(self, effect)

        return skip

    with method(Pushes, "push", make), method(Context, "do", unasked):
        yield


@planting("a merge undoes an end")
def _() -> Iterator[None]:
    """Who still has a session uses it, so it lives."""

    def make(merge: Any) -> Any:
        def reviving(one: Record, other: Record, clashes: Any = None) -> Record:
            if one.state == LIVE and other.state != LIVE:
                return one
            if other.state == LIVE and one.state != LIVE:
                return other
            merged: Record = merge(one, other, clashes)
            return merged

        return reviving

    with merging(make):
        yield


@planting("repair leaves out tombstones")
def _() -> Iterator[None]:
    """What has ended need not be repaired, nor told of in greetings."""

    def make(visit: Any) -> Any:
        def living(self: Repair, going: Any, key: bytes) -> None:
            if self._context.replica.table.state(key) == LIVE:
                visit(self, going, key)

        return living

    with method(Repair, "_visit", make), patch.object(Replica, "tombstones", lambda self: iter(())):
        yield


@planting("the old id stays alive after a rotation")
def _() -> Iterator[None]:
    """Requests with the old id are still under way: it ends by itself."""

    def make(end: Any) -> Any:
        def spare(self: Engine, opened: Any, state: int, now_ms: int) -> Record:
            if state != ROTATED:
                ended: Record = end(self, opened, state, now_ms)
                return ended
            held = self._held(opened.key) or opened.record
            assert held is not None, "what is rotated was opened"
            return held

        return spare

    with method(Engine, "_end", make):
        yield


# -- questions -------------------------------------------------------------------------------------------------------------


@planting("nobody is asked")
def _() -> Iterator[None]:
    """What is not held here does not exist."""

    def make(_: Any) -> Any:
        def deny(self: Pulls, ticket: int, key: bytes, heads: Any) -> None:
            del key, heads
            self._context.do(Answer(ticket, Pulled(PullStatus.NONE)))

        return deny

    with method(Pulls, "ask", make):
        yield


@planting("the first that has nothing is believed")
def _() -> Iterator[None]:
    """One holder that has nothing of a session is enough to say, and to remember, that there is none."""

    def make(go_on: Any) -> Any:
        def quick(self: Pulls, number: int) -> None:
            question = self._questions.get(number)
            if question is not None and NONE in question.answered.values():
                self._remember_none(question)
                self._finish(number, Pulled(PullStatus.NONE))
                return
            go_on(self, number)

        return quick

    with method(Pulls, "_go_on", make):
        yield


@planting("an answer holds less than was asked")
def _() -> Iterator[None]:
    """Who has some of a writer's writes has its fields."""

    def make(since: Any) -> Any:
        def less(self: Record, have: Any) -> Record:
            answer: Record = since(self, have)
            return replace(answer, fields=dict(list(answer.fields.items())[1:]))

        return less

    with method(Record, "since", make):
        yield


@planting("a link is let go before another one has replaced it")
def _() -> Iterator[None]:
    """Two links to one member are one too many: first of all, hang up the one that is not wanted."""

    def make(greeted: Any) -> Any:
        def tidy(self: Links, link: int, frame: bytes) -> None:
            def at_once(*args: Any, **kwargs: Any) -> Any:
                greeting = Membership.greet(self._context.membership, *args, **kwargs)
                if greeting.replaced is not None:
                    self.hang_up(greeting.replaced, "another link replaces it")
                return greeting._replace(replaced=None)

            with patch.object(self._context.membership, "greet", at_once):
                greeted(self, link, frame)

        return tidy

    with method(Links, "greeted", make):
        yield


@planting("the heads are not looked at")
def _() -> Iterator[None]:
    """A holder's copy is good: it hears of every change."""
    with patch.object(Record, "covers", lambda self, heads: True):
        yield


# -- copies ----------------------------------------------------------------------------------------------------------------


@planting("who holds a session depends on who asks")
def _() -> Iterator[None]:
    """Who writes holds: then reading back what one wrote needs no trip."""

    def make(holders: Any) -> Any:
        def mine_first(self: Placement, key: bytes) -> tuple[str, ...]:
            found: tuple[str, ...] = holders(self, key)
            if self.me in found or self.me not in self.names or len(self.names) == 2:
                return found
            return (self.me, *found[:-1])

        return mine_first

    with method(Placement, "holders", make):
        yield


@planting("nothing is repaired")
def _() -> Iterator[None]:
    """Everybody is told of every change: what should differ?"""
    with patch.object(Repair, "start", lambda self, announces=True: None):
        yield


@planting("a copy leaves before the holders have it")
def _() -> Iterator[None]:
    """What is not this node's to hold may go once it has been offered."""

    def make(visit: Any) -> Any:
        def tidy(self: Repair, going: Any, key: bytes) -> None:
            visit(self, going, key)
            if not self._context.placement.is_holder(key) and self._context.replica.table.state(key) == LIVE:
                self._drop(key)

        return tidy

    with method(Repair, "_visit", make):
        yield


@planting("who leaves drops what it handed over")
def _() -> Iterator[None]:
    """What every holder has confirmed need not be held any longer."""

    def make(drop: Any) -> Any:
        def tidy(self: Node, key: bytes) -> None:
            drop(self, key)
            if self.is_leaving:
                self._context.replica.table.drop(key)
                self._context.handed.pop(key, None)

        return tidy

    with method(Node, "_drop", make):
        yield


@planting("times are those of the sender")
def _() -> Iterator[None]:
    """Clocks are synchronised everywhere."""
    with patch.object(Record, "shift", lambda self, by_ms: self):
        yield
