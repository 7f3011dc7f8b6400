"""Questions to other members for the newest state of a session, and the answers to theirs.

Holders are asked first, one at a time unless one takes long. Then all other peers are asked, first the writers that the
browser's heads name. A question ends when the answers cover those heads, or when no member is left to ask. The result is NONE
only if every member that is not confirmed dead has answered NONE and these are a majority. It is remembered for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

from sessile.backend import Pulled, PullStatus
from sessile.errors import WireError
from sessile.record import LIVE, Record, merge
from sessile.replication.events import Answer
from sessile.replication.messages import Answered, Pull
from sessile.replication.replica import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.record import Heads
    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["CURRENT", "NONE", "NOT_SURE", "RECORD", "Pulls"]

CURRENT: Final = 0
RECORD: Final = 1
NONE: Final = 2
NOT_SURE: Final = 3
"""The status of an answer."""
NEGATIVES_MAX: Final = 10_000
"""At most this many keys of sessions that no member has are remembered."""
ENTERED_MS: Final = 10
"""After this time, the engine has entered the answer into its table."""
WAITING_MAX: Final = 10_000
"""At most this many questions are under way. Further ones are answered UNREACHABLE at once."""


class _Question:
    """One question under way, with the tickets that wait for it."""

    __slots__ = ("answered", "asked", "gained", "have", "heads", "key", "tickets", "until_ms")

    def __init__(self, key: SessionKey, heads: Heads, have: Record | None) -> None:
        self.key = key
        self.heads = heads
        self.have = have
        """The copy that was held, merged with the answers."""
        self.gained = False
        """Whether an answer added anything."""
        self.tickets: list[int] = []
        self.asked: list[str] = []
        self.answered: dict[str, int] = {}
        self.until_ms = 0
        """The time at which the tickets are answered with what is known by then."""


class Pulls:
    """The questions of this node, and its answers to those of others."""

    def __init__(
        self,
        context: Context,
        *,
        adopt: Callable[[SessionKey, Record], None],
        look: Callable[[SessionKey], None],
        ended: Callable[[SessionKey], None],
    ) -> None:
        self._context = context
        self._ended = ended
        """Called with the key of a session whose end came in an answer; the engine remembers the end itself."""
        self._adopt = adopt
        """Called with a kept copy that turns out to be the last one, so that it is held."""
        self._look = look
        """Called when the engine may have entered an answer into the table."""
        self._questions: dict[int, _Question] = {}
        self._by_key: dict[SessionKey, dict[Heads, int]] = {}
        self._numbers = 0
        self._negatives: OrderedDict[SessionKey, tuple[Heads, int]] = OrderedDict()
        """Key of a session that no member had → the heads that were asked for, and until when the answer is kept."""
        self._kept: OrderedDict[SessionKey, bytes] = OrderedDict()
        self._kept_bytes = 0
        self.is_trusting = True
        """Whether this node vouches for its copies. False while it may have missed ends of sessions."""

    def __len__(self) -> int:
        return len(self._questions)

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self, ticket: int, key: SessionKey, heads: Heads) -> None:
        """Answer the ticket with the newest state that can be had, within `pull_timeout`."""
        context = self._context
        denied, until_ms = self._negatives.get(key, ((), 0))
        # Other heads were written since: somebody who could not be asked then had the session.
        if until_ms > context.now_ms and heads == denied and context.replica.table.get(key) is None:
            context.counts["negatives"] += 1
            context.do(Answer(ticket, Pulled(PullStatus.NONE)))
            return
        number = self._by_key.get(key, {}).get(heads)
        if number is not None:
            self._join(number, ticket)
            return
        if len(self._questions) >= WAITING_MAX:
            context.counts["overflows"] += 1
            context.do(Answer(ticket, Pulled(PullStatus.UNREACHABLE)))
            return
        self._numbers += 1
        number = self._numbers
        question = _Question(key, heads, self._best(key))
        question.tickets.append(ticket)
        self._questions[number] = question
        self._by_key.setdefault(key, {})[heads] = number
        self._allow_time(number)
        self._go_on(number)

    def _join(self, number: int, ticket: int) -> None:
        """Add a ticket to a question under way. Members that answered NONE are asked again: they may have it by now."""
        question = self._questions[number]
        question.tickets.append(ticket)
        for name in [name for name, status in question.answered.items() if status == NONE]:
            if name in self._context.peers:
                del question.answered[name]
                question.asked.remove(name)
                self._send(number, question, name)

    def _allow_time(self, number: int) -> None:
        """Start the timeout of a question: `pull_timeout` from now."""
        context = self._context
        self._questions[number].until_ms = context.now_ms + context.config.pull_timeout_ms
        context.alarm(context.config.pull_timeout_ms, lambda: self._time_out(number))

    def _best(self, key: SessionKey) -> Record | None:
        """The record held here, or a tombstone if its end is remembered, or the record kept from earlier questions."""
        context = self._context
        held = context.replica.get(key) or context.replica.table.remembered(key, context.now_ms)
        if held is not None:
            self.forget(key)
            return held
        return self._best_unheld(key)

    def _best_unheld(self, key: SessionKey) -> Record | None:
        """What is known of a session that is not held here: kept from earlier questions, or the answers to those under way."""
        kept = self._kept.get(key)
        best = None if kept is None else Record.unpack(kept)
        for number in self._by_key.get(key, {}).values():
            have = self._questions[number].have
            if have is not None:
                best = have if best is None else merge(best, have)
        return best

    def _go_on(self, number: int) -> None:
        """Finish the question if the answers allow it. Otherwise ask the next member, unless an answer is outstanding."""
        question = self._questions[number]
        context = self._context
        held = context.replica.get(question.key)
        if held is not None and (question.have is None or not held.same_state(question.have)):
            question.have = held if question.have is None else merge(question.have, held)  # it arrived by another way
            question.gained = True
        have = question.have
        if have is not None and have.state != LIVE:  # an end is final
            self._finish(number, Pulled(PullStatus.RECORD, have))
            return
        is_sure = self.is_trusting and held is not None and context.placement.is_holder(question.key)
        has_news = is_sure or CURRENT in question.answered.values() or RECORD in question.answered.values()
        # Before it has settled in, this node may not have heard of an end yet, so all members are asked.
        may_have_ended = not context.is_settled_in
        if has_news and not may_have_ended and have is not None and have.covers(question.heads) and question.gained:
            self._finish(number, self._found(question))
            return
        waiting = [name for name in question.asked if name not in question.answered and name in context.peers]
        if waiting:
            return
        asked = self._ask_next(number, question)
        if not asked and not context.membership.has_missing(context.now_ms):
            self._finish(number, self._conclude(question))

    def _ask_next(self, number: int, question: _Question) -> bool:
        """Ask one more holder or, if none is left, all other peers. Returns whether any was asked."""
        context = self._context
        holders = [name for name in context.placement.others(question.key) if self._may_ask(question, name)]
        if holders:
            targets = holders[:1]
        else:
            writers = {writer for _, writer in question.heads}
            rest = [name for name in context.peers if self._may_ask(question, name)]
            rest.sort(key=lambda name: context.peers[name].writer not in writers)
            targets = rest
        for name in targets:
            self._send(number, question, name)
        if targets:
            context.alarm(context.config.hedge_ms, lambda: self._hedge(number))
        return bool(targets)

    def _hedge(self, number: int) -> None:
        question = self._questions.get(number)
        if question is not None and self._ask_next(number, question):
            self._context.counts["hedged"] += 1

    def _may_ask(self, question: _Question, name: str) -> bool:
        return name not in question.asked and name in self._context.peers

    def _send(self, number: int, question: _Question, name: str) -> None:
        context = self._context
        question.asked.append(name)
        have = None if question.have is None else question.have.version
        context.counts["questions"] += 1
        context.send(context.peers[name], Pull(number, question.key, question.heads, have))

    def take_answered(self, peer: Peer, message: Answered) -> None:
        """Take an answer; one that comes too late is ignored. Raises WireError for an unknown status."""
        question = self._questions.get(message.ticket)
        if question is None or peer.name not in question.asked or peer.name in question.answered:
            return
        if message.status not in {CURRENT, RECORD, NONE, NOT_SURE}:
            raise WireError(f"an answer has no status {message.status}")
        status = message.status
        if status in {CURRENT, RECORD}:
            record = self._context.replica.read(message.record, self._context.now_ms - message.now_ms)
            if record is None:  # counts as NOT_SURE
                self._context.refuse(
                    "refused", f"{peer.name} answered with a malformed or oversized record", question.key
                )
                status = NOT_SURE
            else:
                question.have = record if question.have is None else merge(question.have, record)
                question.gained = True
        question.answered[peer.name] = status
        self._go_on(message.ticket)

    def arrived(self, key: SessionKey) -> None:
        """The copy held here has changed: forget what was kept or remembered of it, and continue its questions."""
        self.forget(key)
        for number in list(self._by_key.get(key, {}).values()):
            self._go_on(number)

    def was_away(self) -> None:
        """This node's own loop was late. Its copies may be old, and peers get more time to answer."""
        self.is_trusting = False
        for number in self._questions:
            self._allow_time(number)

    def link_lost(self, name: str) -> None:
        """Questions sent over the lost link may not have arrived: the member is asked again over the next one."""
        for question in self._questions.values():
            if name in question.asked and name not in question.answered:
                question.asked.remove(name)

    def peers_changed(self) -> None:
        """A link came or went: continue every question."""
        self._negatives.clear()
        for number in list(self._questions):
            self._go_on(number)

    def _conclude(self, question: _Question) -> Pulled:
        """The result if no member is left to ask, and no answer covers what the browser has seen."""
        context = self._context
        statuses = question.answered.values()
        if CURRENT in statuses or RECORD in statuses:
            return self._found(question)
        have = question.have
        is_complete = context.membership.is_complete() and all(
            question.answered.get(name) == NONE for name in context.peers
        )
        if have is not None:
            # The copy is live, or the question would be over. It is the newest, unless a member could not be asked.
            if not is_complete:
                return Pulled(PullStatus.UNREACHABLE)
            if context.replica.table.get(question.key) is None:
                context.alarm(0, partial(self._adopt, question.key, have))  # once this question is answered
            return Pulled(PullStatus.RECORD, have)
        if is_complete and context.membership.has_quorum():
            self._remember_none(question)
            return Pulled(PullStatus.NONE)
        return Pulled(PullStatus.UNREACHABLE)

    def _found(self, question: _Question) -> Pulled:
        assert question.have is not None, "somebody answered with a record, or that ours is current"
        self._keep(question.key, question.have)
        return Pulled(PullStatus.RECORD if question.gained else PullStatus.CURRENT, question.have)

    def _time_out(self, number: int) -> None:
        question = self._questions.get(number)
        if question is not None and question.until_ms <= self._context.now_ms:
            self._context.counts["pull_timeouts"] += 1
            self._finish(number, self._conclude(question))

    def _finish(self, number: int, pulled: Pulled) -> None:
        question = self._questions.pop(number)
        numbers = self._by_key[question.key]
        del numbers[question.heads]
        if not numbers:
            del self._by_key[question.key]
        self._context.counts[f"pulled_{pulled.status.value}"] += 1
        for ticket in question.tickets:
            self._context.do(Answer(ticket, pulled))
        if pulled.record is not None and pulled.record.state != LIVE:
            self.forget(question.key)
            self._ended(question.key)
        if pulled.record is not None and self._context.config.directory:
            self._context.alarm(ENTERED_MS, partial(self._look, question.key))

    # -- what is remembered ------------------------------------------------------------------------------------------

    def _remember_none(self, question: _Question) -> None:
        context = self._context
        self._negatives[question.key] = question.heads, context.now_ms + context.config.negative_keep_ms
        self._negatives.move_to_end(question.key)
        if len(self._negatives) > NEGATIVES_MAX:
            self._negatives.popitem(last=False)

    def _keep(self, key: SessionKey, record: Record) -> None:
        """Keep a copy of a session that others hold, so that the next question need only ask for what is new."""
        context = self._context
        table = context.replica.table
        if (
            record.state != LIVE
            or table.get(key) is not None
            or table.has_ended(key)
            or context.placement.is_holder(key)
        ):
            return
        self.forget(key)
        packed = record.pack()
        self._kept[key] = packed
        self._kept_bytes += len(packed)
        while self._kept_bytes > context.config.kept_bytes_max:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def touch(self, key: SessionKey, touched_ms: int) -> None:
        """Note a use of the session in its kept copy, in case this becomes the last copy."""
        packed = self._kept.get(key)
        if packed is not None:
            self._kept[key] = touched = Record.unpack(packed).touch(touched_ms).pack()
            self._kept_bytes += len(touched) - len(packed)

    def forget(self, key: SessionKey) -> None:
        """Forget what was kept or remembered of a session: it is held here now, or is over."""
        packed = self._kept.pop(key, None)
        if packed is not None:
            self._kept_bytes -= len(packed)
        self._negatives.pop(key, None)

    def clear(self) -> None:
        """Forget everything that was kept here, and answer all questions UNREACHABLE."""
        self._kept.clear()
        self._kept_bytes = 0
        self._negatives.clear()
        for number in list(self._questions):
            self._finish(number, Pulled(PullStatus.UNREACHABLE))

    def drop(self, key: SessionKey) -> None:
        """Stop holding the session, but keep its state for later questions."""
        record = self._context.replica.get(key)
        self._context.replica.table.drop(key)
        assert record is not None, "only what is held is dropped"
        self._keep(key, record)

    # -- answering ---------------------------------------------------------------------------------------------------

    def take_pull(self, peer: Peer, message: Pull) -> None:
        """Answer with what this node holds and the asker lacks. Raises WireError for a malformed key."""
        context = self._context
        if len(message.key) != KEY_BYTES:
            raise WireError(f"a question is about a key of {KEY_BYTES} bytes, not {len(message.key)}")
        now_ms = context.now_ms
        record = context.replica.get(message.key) or context.replica.table.remembered(message.key, now_ms)
        if record is None:  # better than nothing: the asker has asked the holders before
            record = self._best_unheld(message.key)
        if record is None:
            status, data = (NONE if self.is_trusting else NOT_SURE), b""
        elif record.state == LIVE and not (self.is_trusting and context.is_settled_in):
            status, data = NOT_SURE, b""
        else:
            have = message.have or {}
            is_current = record.state == LIVE and all(have.get(w, 0) >= c for w, c in record.version.items())
            status = CURRENT if is_current and message.have is not None else RECORD
            data = (record.times() if status == CURRENT else record.since(have)).pack()
        context.counts["answers"] += 1
        context.send(peer, Answered(message.ticket, status, now_ms, data), is_spare=True)
