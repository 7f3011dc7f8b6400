"""What really happened, found out from the record: the simulator's `History`, filled from outside.

Every answer shows traces: which operations are in the session, under which stamps, on which writes each of them builds.
What those operations did is known from what was asked, not from what was told. So an operation whose answer nobody got is
entered as soon as somebody sees it, and never if nobody does; both may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bench.history.operations import Verb
from sessile.record import ENDED, ROTATED, Stamp
from sessile.simulation.history import Chronicle, End, History, Write, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.history.operations import Operation
    from sessile.record import Heads, Version
    from sessile.token import SessionKey

__all__ = ["Ledger", "heads_of", "version_of"]

ANSWERED: Final = 200
REFUSED: Final = 409
"""The session had ended or been renewed: nothing was stored."""


class Ledger:
    """The history that a record stands for.

    Args:
        operations: in the order in which they were over.
        find: told of every contradiction: what was wrong, and when.
    """

    def __init__(self, operations: Iterable[Operation], find: Callable[[str, int], None]) -> None:
        self.history = History()
        self.happened: dict[int, Stamp] = {}
        """Number of an operation → the write that it made, for all that are known to have made one."""
        self.ends: dict[int, End] = {}
        """Number of an operation → the end that it made, for all whose answer says so."""
        self.made_by: dict[Write, Operation] = {}
        self._find = find
        self._asked = {operation.trace: operation for operation in operations}
        for operation in self._asked.values():
            self._enter(operation)

    def verb_of(self, trace: str) -> Verb | None:
        """What was asked for by the operation that leaves this trace."""
        asked = self._asked.get(trace)
        return None if asked is None else asked.verb

    def _enter(self, operation: Operation) -> None:
        """Enter what one answer shows, and what the operation ended."""
        told = operation.told or {}
        before, after = told.get("before"), told.get("after")
        if before is not None:
            self._learn(operation, before)
        if after is not None:
            key = bytes.fromhex(after["key"])
            if key and key not in self.history.chronicles:
                self._bear(operation, key, after, before or {})
            self._learn(operation, after)
            if operation.verb is not Verb.READ and key and operation.trace not in after["stamps"]:
                self._find(f"{operation} left no trace in {after['stamps']}", operation.answered_ms)
        if operation.verb.ends:
            self._end(operation)

    # -- births and ends ---------------------------------------------------------------------------------------------

    def _bear(self, operation: Operation, key: SessionKey, after: dict[str, Any], before: dict[str, Any]) -> None:
        """A session that this operation began, with what was in the one before if it was renewed."""
        values: dict[str, Any] = {}
        old = self.history.chronicles.get(bytes.fromhex(before.get("key", "")))
        if operation.verb is Verb.LOGIN and old is not None and not _is_of_another(old, operation):
            values = old.state(version_of(before["version"]))
        values |= self._assigned(operation, values, before.get("heads", ""))
        if operation.verb is Verb.INCREMENT:
            values[operation.name] = values.get(operation.name, 0) + 1
        subject = operation.value if operation.verb is Verb.LOGIN else ""
        chronicle = self.history.chronicles[key] = Chronicle(key, subject, operation.sent_ms)
        stamps = heads_of(after["heads"])
        if len(stamps) != 1:
            self._find(f"{operation} began a session with heads {after['heads']}", operation.answered_ms)
        for stamp in stamps:
            closure = {stamp.writer: stamp.counter}
            write = chronicle.writes[stamp] = Write(stamp, closure, values, {}, operation.sent_ms)
            self.made_by[write] = operation
            self.happened[operation.number] = stamp

    def _end(self, operation: Operation) -> None:
        """The end of the session that it came with: for certain, or perhaps."""
        key = operation.key
        chronicle = None if key is None else self.history.chronicles.get(key)
        if chronicle is None or operation.status == REFUSED:
            return
        is_renewed = operation.verb is Verb.LOGIN and not _is_of_another(chronicle, operation)
        end = End(ROTATED if is_renewed else ENDED, operation.sent_ms)
        told = operation.told or {}
        if operation.status == ANSWERED and told.get("before", {}).get("key") == chronicle.key.hex():
            end.acknowledged_ms = operation.answered_ms
            chronicle.ends.insert(0, end)
            self.ends[operation.number] = end
        elif operation.status != ANSWERED:
            chronicle.ends.append(end)

    # -- writes ------------------------------------------------------------------------------------------------------

    def _learn(self, operation: Operation, shown: dict[str, Any]) -> None:
        """Enter every write that is seen for the first time; those it builds on are seen with it."""
        key = bytes.fromhex(shown["key"])
        chronicle = self.history.chronicles.get(key)
        if chronicle is None:
            if key:
                self._find(f"{operation} is shown a session that nobody made", operation.answered_ms)
            return
        traces = [(heads_of(stamp)[0], name) for name, stamp in shown["stamps"].items()]
        for stamp, name in sorted(traces):
            known = chronicle.writes.get(stamp)
            asked = self._asked.get(name)
            if known is not None:
                if name not in known.values:
                    self._find(f"{operation} is shown {name} under the stamp of {known}", operation.answered_ms)
            elif asked is None:
                self._find(f"{operation} is shown {name}, which nobody asked for", operation.answered_ms)
            else:
                self._write(chronicle, stamp, asked, str(shown["fields"].get(name)), operation)

    def _write(self, chronicle: Chronicle, stamp: Stamp, asked: Operation, base_text: str, seen_by: Operation) -> None:
        """One operation is known to have happened."""
        if asked.number in self.happened:
            self._find(f"{asked} was executed as {self.happened[asked.number]} and as {stamp}", seen_by.answered_ms)
        if asked.status == REFUSED:
            self._find(f"{asked} was refused and is stored", seen_by.answered_ms)
        self.happened[asked.number] = stamp
        try:
            base = chronicle.closure(heads_of(base_text))
        except KeyError:
            self._find(
                f"{asked} builds on {base_text}, some of which nobody wrote, in {chronicle}", seen_by.answered_ms
            )
            return
        values = self._assigned(asked, chronicle.state(base), base_text)
        increments = {}
        if asked.verb is Verb.INCREMENT:
            under = chronicle.counted_from(base, asked.name, stamp)
            increments = {asked.name: (under, 1)}
        closure = joined((base, {stamp.writer: stamp.counter}))
        write = chronicle.writes[stamp] = Write(stamp, closure, values, increments, asked.sent_ms)
        self.made_by[write] = asked

    @staticmethod
    def _assigned(asked: Operation, state: dict[str, Any], base_text: str) -> dict[str, Any]:
        """What an operation assigns, its trace included."""
        values: dict[str, Any] = {asked.trace: base_text}
        match asked.verb:
            case Verb.SET:
                values[asked.name] = asked.value
            case Verb.COUNT:
                values[asked.name] = state.get(asked.name, 0) + 1
            case Verb.LOGIN:
                values["user"] = asked.value
        return values


def _is_of_another(chronicle: Chronicle, login: Operation) -> bool:
    """Whether a login meets the session of another user, which ends; the new one starts empty."""
    return chronicle.subject not in {"", login.value}


def heads_of(text: str) -> Heads:
    """The stamps of a text like `7@a1b2 9@c3`."""
    pairs = (part.partition("@") for part in text.split())
    return tuple(Stamp(int(counter), int(writer, 16)) for counter, _, writer in pairs)


def version_of(told: dict[str, int]) -> Version:
    """A version as it is told."""
    return {int(writer, 16): counter for writer, counter in told.items()}
