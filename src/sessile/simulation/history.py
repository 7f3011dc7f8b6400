"""What really happened to every session: the model that answers are held against.

A session's `Chronicle` knows every write with its stamp, what was known when it was made, and what it assigned or added. So
the state that a version stands for follows from the writes it covers, by the rules a reader of the documentation would
give: an assignment stays until one that was made on it replaces or removes it, of those that stay the one with the highest
stamp is read, and on top of it whatever was added to it. Nothing here is taken from a record but its version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sessile.record import Record, Stamp, Version
    from sessile.replication.peer import Peer
    from sessile.simulation.process import Process
    from sessile.token import SessionKey

__all__ = ["GONE", "LIST", "SET", "Chronicle", "End", "History", "Use", "Write", "is_within", "joined"]


class _Word:
    """A value that no handler assigns."""

    def __init__(self, word: str) -> None:
        self._word = word

    def __repr__(self) -> str:
        return self._word


GONE: Final = _Word("GONE")
"""The value of a field that was removed."""
SET: Final = _Word("SET")
LIST: Final = _Word("LIST")
"""The values of a field that `add_to` and `append_to` make."""
BEGAN: Final = _Word("BEGAN")
"""What an increment assigns that finds nothing to add to."""


class Write:
    """One write to a session.

    Args:
        stamp: its name.
        closure: all that was known when it was made, and itself.
        values: what it assigned.
        increments: name → the stamp of the assignment it added to, and how much; its own stamp where it began a counter.
        made_ms: when it was made.
        items: (name, value) → whether it added this item to a set or list, or removed it.
        cleared: name → the version whose items it removed, all of them.
    """

    __slots__ = ("cleared", "closure", "copies", "hits", "increments", "is_lost", "items", "made_ms", "stamp", "values")

    def __init__(
        self,
        stamp: Stamp,
        closure: Version,
        values: dict[str, Any],
        increments: dict[str, tuple[Stamp, int]],
        made_ms: int,
        *,
        items: dict[tuple[str, Any], bool] | None = None,
        cleared: dict[str, Version] | None = None,
    ) -> None:
        self.items = items or {}
        self.cleared = cleared or {}
        self.stamp = stamp
        self.closure = closure
        self.values = values
        self.increments = increments
        self.made_ms = made_ms
        self.copies = 1
        """So many processes hold it for certain, by what was acknowledged."""
        self.hits = 0
        """So many of those that held it have crashed since."""
        self.is_lost = False
        """It went with its last copy, by more crashes than are survived."""

    def __repr__(self) -> str:
        return f"<Write {self.stamp.counter}@{self.stamp.writer:x} {self.values} {self.increments}>"

    def is_in(self, record: Record) -> bool:
        """Whether who holds this record holds the write; an ended session outlives all its writes."""
        return record.state != 0 or record.version.get(self.stamp.writer, 0) >= self.stamp.counter


class End:
    """The end of a session."""

    __slots__ = ("acknowledged_ms", "copies", "hits", "is_lost", "made_ms", "state")

    def __init__(self, state: int, made_ms: int) -> None:
        self.state = state
        self.made_ms = made_ms
        self.acknowledged_ms: int | None = None
        """When all whom the process could reach had it."""
        self.copies = 1
        self.hits = 0
        self.is_lost = False

    def __repr__(self) -> str:
        return f"<End at {self.made_ms}>"

    @staticmethod
    def is_in(record: Record) -> bool:
        return record.state != 0


class Use(NamedTuple):
    """A request opened or made a session, and was answered."""

    at_ms: int
    process: Process
    peers: tuple[Peer, ...]
    """The other holders that the process was linked to."""
    told_ms: int
    """A use that was told is no earlier than this; `at_ms`, unless the process took one before for later than it was."""
    is_told: bool = True
    """Whether the process sends word of this use itself, rather than count on that of one shortly before."""


class Chronicle:
    """All that happened to one session."""

    def __init__(self, key: SessionKey, subject: str, born_ms: int) -> None:
        self.key = key
        self.subject = subject
        self.writes: dict[Stamp, Write] = {}
        self.ends: list[End] = []
        self.born_ms = born_ms
        self.uses: list[Use] = []
        """Those by requests that were answered, but what went with the process that alone knew of them."""
        self.revived_ms = -1_000_000
        """When it was used after it had nearly run out of time: word of that may come too late to others."""
        self.cookies: dict[str, str] = {}
        """Those that open it, as they were last given out."""

    def __repr__(self) -> str:
        return f"<Chronicle {self.key.hex()[:8]}, {len(self.writes)} writes, {self.ends}>"

    @property
    def used_ms(self) -> int:
        """When a request that was answered last opened or made it."""
        return max((use.at_ms for use in self.uses), default=self.born_ms)

    @property
    def header(self) -> bytes:
        """A Cookie header that opens it."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode()

    @property
    def end(self) -> End | None:
        """The first end that has not been lost."""
        return next((end for end in self.ends if not end.is_lost), None)

    def closure(self, heads: Iterable[Stamp]) -> Version:
        """All that these writes build on, and they themselves; a write nobody made raises KeyError."""
        return joined(self.writes[head].closure for head in heads)

    def covered(self, version: Version) -> list[Write]:
        """The writes that a version stands for."""
        return [write for stamp, write in self.writes.items() if version.get(stamp.writer, 0) >= stamp.counter]

    def standing(self, version: Version) -> dict[str, dict[Stamp, Any]]:
        """Name → the assignments that a version covers and that none replaces or removes which was made on them.

        A counter that began is `BEGAN`. The one that is read comes last.
        """
        names: dict[str, dict[Stamp, Any]] = {}
        for write in sorted(self.covered(version), key=lambda write: write.stamp):
            for name, value in write.values.items():
                closure = write.closure
                stay = {
                    stamp: each
                    for stamp, each in names.get(name, {}).items()
                    if stamp.counter > closure.get(stamp.writer, 0)
                }
                names[name] = stay if value is GONE else {**stay, write.stamp: value}
            for name, (under, _) in write.increments.items():
                if under == write.stamp:
                    names[name] = {**names.get(name, {}), under: BEGAN}
        for name, found in names.items():
            names[name] = dict(sorted(found.items(), key=lambda item: (item[1] is not BEGAN, item[0])))
        return names

    def items(self, version: Version, cleared: Mapping[str, Version] | None = None) -> dict[str, list[Any]]:
        """Name → the items that a version covers and that no write removed or added anew which had received them.

        Args:
            version: the version.
            cleared: name → a version whose items are left out.
        """
        found: dict[tuple[str, Any], dict[Stamp, int]] = {}

        def remove(item: tuple[str, Any], known: Version) -> None:
            found[item] = {
                stamp: at for stamp, at in found.get(item, {}).items() if stamp.counter > known.get(stamp.writer, 0)
            }

        for write in sorted(self.covered(version), key=lambda write: write.stamp):
            for name, known in write.cleared.items():
                for item in [item for item in found if item[0] == name]:
                    remove(item, known)
            for at, (item, is_added) in enumerate(write.items.items()):
                remove(item, write.closure)
                if is_added:
                    found[item][write.stamp] = at
        for name, known in (cleared or {}).items():
            for item in [item for item in found if item[0] == name]:
                remove(item, known)
        firsts = sorted((min(stamps.items()), item) for item, stamps in found.items() if stamps)
        names: dict[str, list[Any]] = {}
        for _, (name, value) in firsts:
            names.setdefault(name, []).append(value)
        return names

    def counted_from(self, version: Version, name: str, stamp: Stamp) -> Stamp:
        """What the write `stamp`, which knew this much, adds to when it increments: itself, where there is nothing."""
        return next(reversed(self.standing(version).get(name, {})), stamp)

    def state(self, version: Version) -> dict[str, Any]:
        """What a handler must see in a session of this version."""
        standing = self.standing(version)
        items = self.items(version)
        state: dict[str, Any] = {}
        read: dict[str, set[Stamp]] = {}
        for name, found in standing.items():
            if found:
                stamp, value = next(reversed(found.items()))
                state[name] = 0 if value is BEGAN else value
                if value is SET or value is LIST:
                    state[name] = tuple(items.get(name, ()))
                read[name] = set(found) if value is BEGAN else {stamp}
        for write in self.covered(version):
            for name, (under, amount) in write.increments.items():
                if under in read.get(name, ()):
                    state[name] += amount
        return state


class Shown(NamedTuple):
    """What an answer told of when it gave out a version cookie."""

    key: SessionKey
    version: Version


class History:
    """Every session's chronicle, and what every cookie stands for."""

    def __init__(self) -> None:
        self.chronicles: dict[SessionKey, Chronicle] = {}
        self.shown: dict[str, Shown] = {}
        """Version cookie → what the browser has seen with it."""


def joined(versions: Iterable[Version]) -> Version:
    """The least version that covers all of these."""
    result: Version = {}
    for version in versions:
        for writer, counter in version.items():
            if counter > result.get(writer, 0):
                result[writer] = counter
    return result


def is_within(version: Version, other: Version) -> bool:
    """Whether `other` covers all that `version` stands for."""
    return all(other.get(writer, 0) >= counter for writer, counter in version.items())
