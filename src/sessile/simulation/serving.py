"""One request, as an adapter and a handler make it: open, look, take a while, change things, commit, settle, answer.

The order of calls is that of the ASGI middleware. What the handler saw and did is kept beside what the engine makes of it,
so that the checkers need not believe the engine.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessile.answers import answer_to
from sessile.errors import SessionError
from sessile.simulation.asking import Sleep
from sessile.simulation.history import GONE, LIST, SET, joined

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Protocol

    from sessile.backend import Acknowledged
    from sessile.record import Heads, Record, Version
    from sessile.session import Session
    from sessile.simulation.asking import Pull, Push
    from sessile.simulation.browsers import Jar
    from sessile.simulation.history import End
    from sessile.simulation.process import Process
    from sessile.token import SessionKey
    from sessile.visit import Step

    class Witness(Protocol):
        """Who hears of what requests do."""

        def opened(self, request: Request) -> None:
            """The handler has looked at its session."""

        def committed(self, request: Request, steps: list[Step], before: Version) -> None:
            """What the handler did is in the table."""

        def responded(self, request: Request, status: int, cookies: list[bytes]) -> None:
            """The head of the answer leaves."""

        def finished(self, request: Request) -> None:
            """Nothing more comes of it."""


__all__ = ["Op", "Request", "Verb", "Work"]

UNANSWERED: Final = 0
LONG_MS: Final = 200
BROKEN: Final = 500


class Verb(Enum):
    """What a handler can do."""

    SET = "set"
    COUNT = "count"
    """Read, add one, and assign: parallel ones overwrite each other, as everywhere."""
    INCREMENT = "increment"
    APPEND = "append"
    """Change a list in place."""
    REMOVE = "remove"
    ADD = "add"
    """Add to a set that merges."""
    DISCARD = "discard"
    PUSH = "push"
    """Append to a list that merges."""
    LOGIN = "login"
    ROTATE = "rotate"
    LOGOUT = "logout"


class Op(NamedTuple):
    """One thing that a handler does."""

    verb: Verb
    name: str = ""
    value: Any = None


class Work(NamedTuple):
    """What a handler does: after so long, these things; and after the head has left, those."""

    ops: tuple[Op, ...] = ()
    think_ms: int = 0
    late_ops: tuple[Op, ...] = ()
    late_ms: int = 0

    @property
    def is_long(self) -> bool:
        """Whether it goes on so long after its head that the run does not wait for it."""
        return self.late_ms > LONG_MS

    @property
    def is_repeatable(self) -> bool:
        """Whether a balancer may send it twice."""
        return not (self.ops or self.late_ops)


class Request:
    """One request at one server.

    Args:
        number: unique in its run.
        jar: whose it is.
        header: its Cookie header; empty without one.
        work: what its handler does.
        witness: who hears of it.
    """

    # ruff: noqa: PLR0902  # what there is to know of a request

    def __init__(self, number: int, jar: Jar, header: bytes, work: Work, witness: Witness) -> None:
        self.number = number
        self.jar = jar
        self.header = header
        self.work = work
        self.witness = witness
        self.process: Process | None = None
        self.sent_ms = self.came_ms = self.opened_ms = 0
        self.status = UNANSWERED
        self.is_given_up = False
        """Whether its browser no longer waits."""
        self.is_degraded = False
        """Whether a change was not confirmed in time."""
        self.pushes = 0
        """How often it waited for confirmation."""
        self.session: Session | None = None
        self.key: SessionKey | None = None
        """Of the session that its cookies name."""
        self.is_past = False
        """Whether its browser was told that this session was replaced by another one."""
        self.presented: Heads = ()
        self.record: Record | None = None
        """What the handler looked at; None where there was nothing."""
        self.saw: dict[str, Any] = {}
        self.is_stale = self.is_read_only = False
        self.is_touch = False
        """Whether opening the session reset its idle clock."""
        self.subject: str | None = None
        self.assigned: dict[str, Any] = {}
        """What its handler assigned since the last commit."""
        self.counted: dict[str, int] = {}
        self.items: dict[tuple[str, Any], bool] = {}
        """The items of sets and lists that it added (True) or removed since the last commit; what is added moves to the end."""
        self.cleared: set[str] = set()
        """The fields that it assigned or removed as a whole since then."""
        self.ends = False
        self.rotates = False
        self.based: Version = {}
        """What the handler's changes start from."""
        self.ended: tuple[SessionKey, End] | None = None
        """The session it ended, if it did."""
        self._coroutine: Coroutine[Pull | Push | Sleep, Any, None] | None = None

    def __repr__(self) -> str:
        ops = "+".join(op.verb.value for op in (*self.work.ops, *self.work.late_ops)) or "read"
        return f"<Request {self.number} {ops} at {self.process}>"

    def advance(self, value: Pull | Push | Acknowledged | None) -> Pull | Push | Sleep | None:
        """Go on with what was waited for; returns what is waited for next, None when the request is over."""
        if self._coroutine is None:
            self._coroutine = self._serve()
        try:
            return self._coroutine.send(value)
        except StopIteration:
            self.witness.finished(self)
            return None

    def close(self) -> None:
        """Its process is gone."""
        if self._coroutine is not None:
            self._coroutine.close()

    async def _serve(self) -> None:
        assert self.process is not None, "a request is served by somebody"
        engine = self.process.engine
        try:
            self.session = session = engine.open((self.header,) if self.header else (), is_https=False)
            await engine.prepare(session)
            self._look(session)
            if self.work.think_ms:
                await Sleep(self.work.think_ms)
            await self._change(session, self.work.ops, is_late=False)
            cookies = engine.cookies(session)
        except SessionError as error:
            answer = answer_to(error)
            self.witness.responded(self, BROKEN if answer is None else answer.status, [])
            return
        self.witness.responded(self, 200, cookies)
        if self.work.late_ops:
            await Sleep(self.work.late_ms)
            try:
                await self._change(session, self.work.late_ops, is_late=True)
            except SessionError:
                return  # too late to tell anybody

    def _look(self, session: Session) -> None:
        assert self.process is not None, "as above"
        visitor = session.visit.visitor
        if visitor is not None:
            self.key, self.presented = visitor.identity.key, visitor.seen
            self.is_past = visitor.is_past
        touches = self.process.engine.counts["touches"]
        self.saw = dict(session)
        self.is_touch = self.process.engine.counts["touches"] > touches
        opened = session.opened
        self.record = opened.record
        self.is_stale, self.is_read_only = opened.is_stale, opened.is_read_only
        self.subject = session.subject
        self.opened_ms = self.process.world.schedule.now_ms
        self.witness.opened(self)

    async def _change(self, session: Session, ops: tuple[Op, ...], *, is_late: bool) -> None:
        """Do these things, and see that they are kept."""
        assert self.process is not None, "as above"
        engine = self.process.engine
        self.assigned, self.counted, self.ends, self.rotates = {}, {}, False, False
        self.items, self.cleared = {}, set()
        record = session.opened.record
        self.based = {} if record is None else record.version
        for op in ops:
            self._do(session, op)
        before: Version = {}
        if self.rotates and not self.ends and session.opened.record is not None:
            found, given = engine.table.find(session.opened.key), session.visit.given
            known = (
                session.opened.record,
                None if found is None else found[1],
                None if given is None else given.record,
            )
            before = joined(record.version for record in known if record is not None)
        steps = engine.commit(session, is_late=is_late)
        self.witness.committed(self, steps, before)
        if steps:
            await engine.settle(steps)

    def _do(self, session: Session, op: Op) -> None:
        name = op.name
        match op.verb:
            case Verb.SET:
                session[name] = op.value
                self._assign(name, op.value)
            case Verb.COUNT:
                session[name] = session.get(name, 0) + 1
                self._assign(name, session[name])
            case Verb.INCREMENT:
                total = session.increment(name)
                if name in self.assigned:
                    self.assigned[name] = total
                else:
                    self.counted[name] = self.counted.get(name, 0) + 1
            case Verb.APPEND:
                session.setdefault(name, []).append(op.value)
                self._assign(name, list(session[name]))
            case Verb.REMOVE:
                if name in session:
                    del session[name]
                    self._assign(name, GONE)
            case Verb.ADD | Verb.PUSH | Verb.DISCARD:
                self._do_with_items(session, op)
            case Verb.LOGIN | Verb.ROTATE:
                self._renew(session, op)
            case Verb.LOGOUT:
                session.logout()
                self.assigned, self.counted, self.items, self.rotates = {}, {}, {}, False
                self.cleared = set()
                self.ends = True

    def _renew(self, session: Session, op: Op) -> None:
        """Give the session a new id."""
        if op.verb is Verb.ROTATE:
            session.rotate()
        else:
            if session.subject not in {None, op.value}:  # the session of another user ends
                self._do(session, op._replace(verb=Verb.LOGOUT))
            session.login(op.value)
        self.rotates = True

    def _do_with_items(self, session: Session, op: Op) -> None:
        item = (op.name, op.value)
        if type(session.get(op.name, ())) is not tuple:
            return
        if op.verb is Verb.DISCARD:
            if op.value in session.get(op.name, ()):
                session.discard_from(*item)
                self.items[item] = False
            return
        (session.add_to if op.verb is Verb.ADD else session.append_to)(*item)
        self.assigned[op.name] = SET if op.verb is Verb.ADD else LIST
        self.items.pop(item, None)
        self.items[item] = True

    def _assign(self, name: str, value: Any) -> None:
        self.items = {item: is_added for item, is_added in self.items.items() if item[0] != name}
        self.cleared.add(name)
        self.assigned[name] = value
        self.counted.pop(name, None)
