"""The simulator's checkers, at work on a history that was recorded from outside.

They are told of every answer as they are told of every request in the simulator: what was looked at, with which cookies,
and what the browser was given. What they would look up in a process cannot be seen here; what they know of the world
(when was all well with a server) is known from what was done to it. A few things only a record can say are looked at
here: a session that was there is found, an operation happens once, one that was refused does not, and no answer is a 500.
"""

from __future__ import annotations

import secrets
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from bench.history.ledger import ANSWERED, REFUSED, Ledger, heads_of, version_of
from bench.history.operations import Verb
from sessile.settings import Settings
from sessile.simulation.checkers.ends import Ends
from sessile.simulation.checkers.quiet import Quiet
from sessile.simulation.checkers.reads import Reads
from sessile.simulation.checkers.scene import SETTLED_MS, Findings
from sessile.simulation.checkers.writes import Writes
from sessile.simulation.history import is_within
from sessile.simulation.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.history.harm import Harm
    from bench.history.operations import Operation
    from sessile.record import Heads, Version
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request

__all__ = ["Verdict", "judge"]

INCREMENTED: Final = "hits"
"""The only field that is incremented; nobody assigns it."""
UNAVAILABLE: Final = 503
LINKED_MS: Final = 10**12
"""Longer than any history."""
LASTING_MS: Final = 5_000
"""So long after it was acknowledged a change is shown by every server with which all is well, whatever cookies say."""
STATUSES: Final = frozenset({0, ANSWERED, REFUSED, 502, UNAVAILABLE, 504})
"""What may be answered while servers are killed; all but the first two say that something failed."""


class Verdict(NamedTuple):
    """What came of looking at a history."""

    findings: Counter[str]
    """By checker."""
    told: list[str]
    """The first of them, in words."""
    looks: int
    """So many states of sessions were compared with what they must be."""
    sessions: int
    writes: int
    ends: int
    unanswered: int
    """Changes without an answer, or one that leaves open whether they happened,"""
    happened: int
    """and those of them that did."""
    stale: int


class Shown(NamedTuple):
    """As much of a record as is told."""

    version: Version
    heads: Heads


class Place(NamedTuple):
    """A server, as far as it can be told from outside."""

    place: int


class Look:
    """One look at a session, as checkers are told of it: structurally a request of the simulator."""

    def __init__(self, operation: Operation, told: dict[str, Any], server: str) -> None:
        self._operation = operation
        is_there = bool(told["key"])
        self.header = operation.header
        self.key = bytes.fromhex(told["key"]) if is_there else operation.key
        self.record = Shown(version_of(told["version"]), heads_of(told["heads"])) if is_there else None
        self.saw: dict[str, Any] = told["fields"]
        self.subject: str | None = told["subject"]
        self.is_stale: bool = told["stale"]
        self.is_read_only: bool = told["read_only"]
        self.process = Place(int(server[1:]))
        self.opened_ms = self.came_ms = operation.sent_ms
        self.session = SimpleNamespace(accessed=True, opened=SimpleNamespace(record=self.record, key=self.key))

    def __repr__(self) -> str:
        return repr(self._operation)


class Outside:
    """The world as it is known from outside: a `Scene`."""

    def __init__(self, ledger: Ledger, findings: Findings, harm: Harm) -> None:
        self.options = Options()
        self.settings = Settings.load(secret=secrets.token_bytes(32))
        self.history = ledger.history
        self.findings = findings
        self.now_ms = 0
        self.until_ms = 0
        """When the answer that is looked at was there."""
        self._harm = harm

    def living(self) -> list[Process]:
        """No process can be looked into."""
        return []

    def calm_for_ms(self, place: int) -> int:
        return self._harm.calm_for_ms(f"s{place}", self.now_ms, self.until_ms)

    def smooth_for_ms(self, place: int) -> int:
        return self.calm_for_ms(place)

    def linked_for_ms(self, place: int) -> int:
        """Servers are killed and stopped; the network between them is whole all the time."""
        del place
        return LINKED_MS

    def is_under_way(self) -> bool:
        """What is on its way cannot be seen from outside; it is waited for before all is taken to be quiet."""
        return False

    def is_small(self, place: int) -> bool:
        """Every server has room for all sessions."""
        del place
        return False

    def is_all_well(self) -> bool:
        servers = {trouble.server for trouble in self._harm.troubles}
        return all(self._harm.calm_for_ms(server, self.now_ms, self.until_ms) >= SETTLED_MS for server in servers)


class _All(Findings):
    """Findings that are counted, however many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def add(self, checker: str, at_ms: int, problem: str) -> None:
        self.counts[checker] += 1
        super().add(checker, at_ms, problem)


class _Judge:
    """One pass over a history."""

    def __init__(self, operations: Sequence[Operation], harm: Harm) -> None:
        self.findings = _All()
        self.ledger = Ledger(operations, lambda problem, at_ms: self.findings.add("writes", at_ms, problem))
        self.looks = self.stale = 0
        self._scene = scene = Outside(self.ledger, self.findings, harm)
        self._writes, self._reads, self._quiet = Writes(scene), Reads(scene), Quiet(scene)
        self._ends = Ends(scene)

    def be_quiet(self) -> None:
        """From here on everything that is known to have happened must be seen everywhere."""
        self._quiet.is_quiet()

    def look_at(self, operation: Operation) -> None:
        """Let every checker hear of one operation."""
        self._scene.now_ms, self._scene.until_ms = operation.sent_ms, operation.answered_ms
        told = operation.told
        if operation.status not in STATUSES:
            self._find("answers", f"{operation} is no answer to that: {told}")
        if operation.status == REFUSED:
            self._refused(operation)
        if operation.status != ANSWERED or told is None:
            return
        before = self._look(operation, told["before"], told["server"])
        self._present(operation, before)
        last = self._look(operation, told["after"], told["server"]) if "after" in told else before
        cookies = [b"%b=%b" % pair for pair in operation.given.items() if pair[1]]
        self._writes.responded(last, ANSWERED, cookies)
        self._reads.responded(last, ANSWERED, cookies)

    def _look(self, operation: Operation, told: dict[str, Any], server: str) -> Request:
        look = cast("Request", Look(operation, told, server))
        self.looks += look.record is not None
        self.stale += look.is_stale
        self._reads.opened(look)
        self._quiet.opened(look)
        self._ends.opened(look)
        if look.record is not None and not look.is_read_only:
            self._count(look)
            self._last(operation, look)
        return look

    def _count(self, look: Request) -> None:
        """Increments, once more and by themselves: as many as left a trace, on top of those the session was born with."""
        chronicle = self.ledger.history.chronicles.get(look.key or b"")
        if chronicle is None:
            return
        born = next(iter(chronicle.writes.values())).values
        wanted = born.get(INCREMENTED, 0) + sum(
            self.ledger.verb_of(name) is Verb.INCREMENT for name in look.saw.keys() - born.keys()
        )
        if look.saw.get(INCREMENTED, 0) != wanted:
            self._find("increments", f"{look} is told {look.saw.get(INCREMENTED, 0)} increments of {wanted}")

    def _last(self, operation: Operation, look: Request) -> None:
        """What was acknowledged long before is there, though nobody's cookies may tell of it."""
        chronicle = self.ledger.history.chronicles.get(look.key or b"")
        place = 0 if look.process is None else look.process.place
        if chronicle is None or look.record is None or self._scene.calm_for_ms(place) < SETTLED_MS:
            return
        for write in chronicle.writes.values():
            made_by = self.ledger.made_by[write]
            is_old = made_by.status == ANSWERED and made_by.answered_ms + LASTING_MS < operation.sent_ms
            if is_old and not is_within(write.closure, look.record.version):
                self._find("losses", f"{look} lacks {write}, which was acknowledged at {made_by.answered_ms}")

    def _present(self, operation: Operation, look: Request) -> None:
        """A session that nobody tried to end is found, and it is the one that was asked for."""
        key = operation.key
        if look.record is not None:
            if look.key != key:
                self._find("presence", f"{operation} with the id of {key!r} is shown {look.key!r}")
        elif key is not None and not self._may_have_ended(operation):
            self._find("presence", f"{operation} does not find {self.ledger.history.chronicles.get(key)}")

    def _refused(self, operation: Operation) -> None:
        if not self._may_have_ended(operation):
            self._find("presence", f"{operation} is refused, and nobody ended or renewed the session")

    def _may_have_ended(self, operation: Operation) -> bool:
        """Whether somebody asked for the end of its session before it was answered."""
        chronicle = self.ledger.history.chronicles.get(operation.key or b"")
        return chronicle is not None and any(end.made_ms <= operation.answered_ms for end in chronicle.ends)

    def _find(self, checker: str, problem: str) -> None:
        self.findings.add(checker, self._scene.now_ms, problem)


def judge(operations: Sequence[Operation], last: Sequence[Operation], harm: Harm) -> Verdict:
    """Look at a history.

    Args:
        operations: made while servers came to harm, in the order in which they were over.
        last: reads of every session at every server, when all was well again.
        harm: what was done to the servers.
    """
    judge_ = _Judge([*operations, *last], harm)
    for operation in operations:
        judge_.look_at(operation)
    judge_.be_quiet()
    for operation in last:
        judge_.look_at(operation)
    ledger, chronicles = judge_.ledger, judge_.ledger.history.chronicles.values()
    open_ = [each for each in operations if each.verb is not Verb.READ and each.status not in {ANSWERED, REFUSED}]
    return Verdict(
        findings=judge_.findings.counts,
        told=[f"{each.checker} at {each.at_ms}: {each.problem}" for each in judge_.findings.found],
        looks=judge_.looks,
        sessions=len(chronicles),
        writes=sum(len(chronicle.writes) for chronicle in chronicles),
        ends=len(ledger.ends),
        unanswered=len(open_),
        happened=sum(each.number in ledger.happened for each in open_),
        stale=judge_.stale,
    )
