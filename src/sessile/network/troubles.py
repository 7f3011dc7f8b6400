"""What of a cluster a person must be told, and when: one warning for each state, a reminder at long intervals, and the end.

Theory of operation. Somebody to whom a link is wanted is a *subject*, by its address. Each look compares the subjects that have
no link with those of the look before. A failure that does not heal by waiting (another secret, another strategy) is told at once;
a member that died, too; one that was never met, after a while, since servers are started one after the other. The same kind of
failure is told once until it is over. What many subjects have in common is one line.

Pure: the time is an argument, and lines are the result. What strangers can make this remember is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sessile.replication.membership import Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sessile.replication.membership import Unlinked

__all__ = ["ALONE_MS", "REMIND_MS", "UNMET_MS", "Failure", "Troubles"]

T = TypeVar("T")
UNMET_MS: Final = 10_000
"""A member that was never met is told of after this time: others may be starting still."""
ALONE_MS: Final = 10_000
"""The same for a server that has no link to any of those it is to have."""
REMIND_MS: Final = 3_600_000
FRESH_MS: Final = 30_000
"""A node that is no member and was refused is tried again by its own side within seconds; after this time it is gone."""
LISTED: Final = 8
"""At most this many addresses are named in a line."""
STRANGERS_MAX: Final = 8
"""Lines about strangers within `REMIND_MS`: whoever reaches the port can cause one, under as many names as they like."""
SUBJECTS_MAX: Final = 2_048
_CERTAIN: Final = frozenset({"secret", "certificate", "tls", "unwelcome"})
"""Kinds of failures that waiting does not mend."""
_NO_ANSWER: Final = "there was no answer yet"
_UNKNOWN: Final = "see whether its process and its machine run, and whether this server reaches its port"


class Failure(NamedTuple):
    """Why there is no link."""

    kind: str
    problem: str
    remedy: str


class _Trouble:
    """One subject without a link."""

    __slots__ = ("remind_ms", "since_ms", "told")

    def __init__(self, now_ms: int) -> None:
        self.since_ms = now_ms
        self.told: set[str] = set()
        """The kinds of failures of which somebody was told."""
        self.remind_ms = 0


class _Line(NamedTuple):
    """What several subjects have in common."""

    how: str
    """What is so, with a place for their addresses."""
    failure: Failure


class Troubles:
    """The troubles of one node with others."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}
        """Address or name → why the last attempt failed."""
        self._troubles: dict[str, _Trouble] = {}
        self._unwelcome: dict[str, tuple[int, Failure]] = {}
        """Name of a node that greeted and was refused → when it did so last, and why."""
        self._strangers: dict[str, int] = {}
        """What was said of strangers → when."""
        self._alone_since_ms: int | None = None
        self._alone_told_ms: int | None = None

    # -- what happened -----------------------------------------------------------------------------------------------

    def failed(self, address: str, failure: Failure) -> None:
        """No link came of a dial."""
        _put(self._failures, address, failure)

    def refused(self, name: str, reason: str, remedy: str, now_ms: int) -> None:
        """A node greeted, and is none of ours."""
        failure = Failure("unwelcome", reason, remedy)
        _put(self._failures, name, failure)
        _put(self._unwelcome, name, (now_ms, failure))

    def is_news(self, about: str, now_ms: int) -> bool:
        """Whether this is to be told of now: not twice within `REMIND_MS`, nor more than so many different things."""
        said = self._strangers = {one: at for one, at in self._strangers.items() if now_ms < at + REMIND_MS}
        if about in said or len(said) >= STRANGERS_MAX:
            return False
        said[about] = now_ms
        return True

    # -- what is so --------------------------------------------------------------------------------------------------

    def problem_of(self, address: str) -> str:
        """Why there is no link to this address, as far as it is known, and the remedy; any thread may ask."""
        failure = self._failures.get(address)
        return _NO_ANSWER if failure is None else f"{failure.problem}; {failure.remedy}"

    def look(self, unlinked: Sequence[Unlinked], linked: Collection[str], named: int, now_ms: int) -> list[str]:
        """What is to be told now, one line each.

        Args:
            unlinked: to whom there is no link, and should be.
            linked: addresses and names of those to whom there is one.
            named: how many others discovery names.
            now_ms: the time.
        """
        self._unwelcome = {
            name: (at_ms, failure)
            for name, (at_ms, failure) in self._unwelcome.items()
            if now_ms < at_ms + FRESH_MS and name not in linked
        }
        present = {one.address: one for one in unlinked}
        strangers = [name for name in self._unwelcome if name not in present]
        lines = self._ended({*present, *strangers}, linked)
        self._failures = {at: it for at, it in self._failures.items() if at in present or at in self._unwelcome}
        due: dict[tuple[_Line, str], list[str]] = {}
        for one in unlinked:
            line = self._due(one, now_ms)
            if line is not None:
                due.setdefault((line, one.address if one.standing is Standing.DEAD else ""), []).append(one.address)
        for name in strangers:
            line = self._due_stranger(name, now_ms)
            if line is not None:
                due.setdefault((line, name), []).append(name)
        lines += [f"{how.format(_list(who))}: {it.problem}; {it.remedy}" for ((how, it), _), who in due.items()]
        lines += self._alone(present, linked, named, now_ms)
        return lines

    def _ended(self, present: Collection[str], linked: Collection[str]) -> list[str]:
        """Subjects that have a link again, and those that are nobody any more."""
        well = []
        for address in [one for one in self._troubles if one not in present]:
            trouble = self._troubles.pop(address)
            if trouble.told and address in linked:
                well.append(address)
        return [f"linked to {_list(well)}: all is well there"] if well else []

    def _trouble(self, address: str, now_ms: int) -> _Trouble:
        trouble = self._troubles.get(address)
        if trouble is None:
            trouble = self._troubles[address] = _Trouble(now_ms)
        return trouble

    def _due(self, one: Unlinked, now_ms: int) -> _Line | None:
        trouble = self._trouble(one.address, now_ms)
        failure = self._failures.get(one.address)
        for_s = (now_ms - trouble.since_ms) // 1_000
        if failure is not None and failure.kind in _CERTAIN:
            how, kind = "no link to {}", failure.kind
        elif one.standing is Standing.DEAD:
            how, kind = "{} is dead, and others go on with its sessions", "dead"
        elif one.is_met or now_ms < trouble.since_ms + UNMET_MS:
            return None
        else:
            how, kind = f"did not meet {{}} in {UNMET_MS // 1_000} s", "unmet"
        failure = failure or Failure("silent", "it gives no sign of life", _UNKNOWN)
        is_lasting = one.is_named or not one.is_met  # a member that died may be gone for good, unless it is still named
        return self._once(trouble, kind, _Line(how, failure), now_ms, is_lasting=is_lasting, for_s=for_s)

    def _due_stranger(self, name: str, now_ms: int) -> _Line | None:
        """A node that greeted and is neither named nor known."""
        trouble = self._trouble(name, now_ms)
        _, failure = self._unwelcome[name]
        if not trouble.told and not self.is_news(f"unwelcome {name}", now_ms):
            return None
        return self._once(trouble, failure.kind, _Line("{} is refused", failure), now_ms, is_lasting=False, for_s=0)

    def _once(
        self, trouble: _Trouble, kind: str, line: _Line, now_ms: int, *, is_lasting: bool, for_s: int
    ) -> _Line | None:
        """The line, where its kind is new or it is time for a reminder."""
        if kind not in trouble.told:
            trouble.told.add(kind)
        elif is_lasting and now_ms >= trouble.remind_ms:
            line = line._replace(how=f"since {for_s // 60} minutes: {line.how}")
        else:
            return None
        trouble.remind_ms = now_ms + REMIND_MS
        return line

    def _alone(self, present: Iterable[str], linked: Collection[str], named: int, now_ms: int) -> list[str]:
        """A server that serves alone what others should know of."""
        if linked or not named:
            was_told = self._alone_told_ms is not None
            self._alone_since_ms = self._alone_told_ms = None
            return [f"alone no more: linked to {_list(sorted(linked))}"] if was_told and linked else []
        if self._alone_since_ms is None:
            self._alone_since_ms = now_ms
        for_ms = now_ms - self._alone_since_ms
        is_due = now_ms >= self._alone_told_ms + REMIND_MS if self._alone_told_ms is not None else for_ms >= ALONE_MS
        if not is_due:
            return []
        self._alone_told_ms = now_ms
        why = {it.problem if (it := self._failures.get(address)) else _NO_ANSWER: None for address in present}
        alone_s, problems = for_ms // 1_000, "; ".join(list(why)[:LISTED]) or "the others have left"
        told = (
            f"alone among {named + 1} named members for {alone_s} s: sessions made here are known here only ({problems}); see "
            "that secret=, members= and me= are right on every server, and that servers reach each other's ports"
        )
        return [told]


def _put(kept: dict[str, T], key: str, value: T) -> None:
    """Keep it as the newest, of a bounded number."""
    kept.pop(key, None)
    while len(kept) >= SUBJECTS_MAX:
        del kept[next(iter(kept))]
    kept[key] = value


def _list(addresses: Sequence[str]) -> str:
    more = f" and {len(addresses) - LISTED} more" if len(addresses) > LISTED else ""
    return ", ".join(addresses[:LISTED]) + more
