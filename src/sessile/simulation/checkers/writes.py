"""Every write is what its handler did, under a stamp that no other has.

This checker also keeps the history: it must be the first to hear of a commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessile import codec
from sessile.backend import Ended, Whole
from sessile.changes import shown
from sessile.delta import Delta
from sessile.items import LIST as KIND_OF_LIST
from sessile.items import SEPARATOR, value_of
from sessile.items import SET as KIND_OF_SET
from sessile.simulation.asking import Push
from sessile.simulation.checkers.scene import Checker
from sessile.simulation.history import GONE, LIST, SET, Chronicle, End, Shown, Use, Write, joined

if TYPE_CHECKING:
    from sessile.record import Record, Stamp, Version
    from sessile.simulation.asking import Pull
    from sessile.simulation.serving import Request
    from sessile.visit import Step

__all__ = ["Writes"]


class Writes(Checker):
    """Holds what the engine tells other holders against what handlers did, and enters it into the history."""

    name = "writes"

    def committed(self, request: Request, steps: list[Step], before: Version) -> None:
        for step in steps:
            change = step.change
            if isinstance(change, Delta):
                self._written(request, change)
            elif isinstance(change, Whole):
                self._born(request, change, before)
            elif isinstance(change, Ended):
                self._ended(request, change)

    def asked(self, request: Request, question: Pull | Push) -> None:
        """The end of a rotated session is made only when its successor is held."""
        if isinstance(question, Push) and isinstance(question.change, Ended):
            self._ended(request, question.change)

    def responded(self, request: Request, status: int, cookies: list[bytes]) -> None:
        session = request.session
        if status != 200 or session is None or session.opened.record is None:
            return
        chronicle = self.scene.history.chronicles.get(session.opened.key)
        if chronicle is None:
            self.find(f"{request} answers with a session that nobody made")
            return
        if request.opened_ms - chronicle.used_ms > self.scene.options.idle * 8 // 10:
            chronicle.revived_ms = self.scene.now_ms
        self._used(request, chronicle, session.opened.record)
        for cookie in cookies:
            name, _, value = cookie.decode().partition(";")[0].partition("=")
            chronicle.cookies[name] = value
            if name.endswith("_v"):
                self._note_shown(value, Shown(chronicle.key, session.opened.record.version))

    def _used(self, request: Request, chronicle: Chronicle, record: Record) -> None:
        """Enter a use, as of when the session was opened: the answer may have waited long.

        A message says how long ago a use was. If it waited at a stopped process or on its way, the receiver takes the use
        for later than it was; and uses within a tenth of the idle timeout after that are not sent.
        """
        scene, process = self.scene, request.process
        assert process is not None, "who responds is served"
        if process not in scene.living():  # a real one: nobody can look inside
            chronicle.uses.append(Use(request.opened_ms, process, (), request.opened_ms))
            return
        node = process.node
        peers = [node.peers[name] for name in node.placement.others(chronicle.key) if name in node.peers]
        at_ms = told_ms = request.opened_ms
        is_told = request.is_touch or record is not request.record  # a change tells of its use as well
        if not is_told:
            believed_ms = scene.now_ms - (process.clock() - record.touched_ms)
            told = [use.at_ms for use in chronicle.uses if use.is_told and use.at_ms <= believed_ms]
            before_ms = max(told, default=chronicle.born_ms)
            if any(scene.calm_for_ms(each.place) < scene.now_ms - before_ms for each in scene.living()):
                told_ms -= max(0, believed_ms - before_ms)
        chronicle.uses.append(Use(at_ms, process, tuple(peers), told_ms, is_told))

    def _note_shown(self, text: str, shown: Shown) -> None:
        known = self.scene.history.shown.setdefault(text, shown)
        if known != shown:
            self.find(f"one version cookie stands for {known.version} and for {shown.version}")

    def _written(self, request: Request, delta: Delta) -> None:
        chronicle = self.scene.history.chronicles.get(delta.key)
        if chronicle is None or delta.stamp in chronicle.writes:
            self.find(f"{request} writes {delta.stamp} to {chronicle}, which exists already or never was created")
            return
        base = chronicle.closure(delta.base)
        values = {}
        for name, value in request.assigned.items():
            if name in delta.values:
                values[name] = value
                if delta.values[name] != _encoded(value):
                    self.find(f"{request} assigned {name}={value!r}, and {delta.values[name]!r} is told")
            elif all(value != chronicle.state(version).get(name, GONE) for version in (request.based, base)):
                self.find(f"{request} assigned {name}={value!r}, and nothing of it is told")
        if extra := [name for name in delta.values if name not in request.assigned and SEPARATOR not in name]:
            self.find(f"{request} did not assign {extra}, which is told")
        told = sorted(
            (name.partition(SEPARATOR)[0], value_of(name, data))
            for name, data in delta.values.items()
            if SEPARATOR in name and data
        )
        if told != sorted(item for item, is_added in request.items.items() if is_added):
            self.find(f"{request} added {request.items}, and {told} is told")
        if delta.additions.keys() != request.counted.keys():
            self.find(f"{request} counted {request.counted}, and {delta.additions} is told")
        increments = {
            name: (chronicle.counted_from(base, name, delta.stamp), by) for name, by in request.counted.items()
        }
        cleared = {
            name: request.based if _is_collection(request.assigned.get(name)) else base for name in request.cleared
        }
        self._enter(chronicle, delta.stamp, base, values, increments, items=request.items, cleared=cleared)

    def _born(self, request: Request, change: Whole, before: Version) -> None:
        scene = self.scene
        record = change.record
        chronicles = scene.history.chronicles
        if change.key in chronicles:
            self.find(f"{request} makes a session whose key exists")
        assert request.process is not None, "a request that commits runs at a process"
        old = request.key if request.record is None and not request.is_past else None
        if old is not None and request.process.engine.table.is_replaced(old):
            self.find(f"{request} makes a session, though another one replaced the one that its cookies name")
        values: dict[str, Any] = {}
        if request.rotates and not request.ends and request.key is not None and request.record is not None:
            values = chronicles[request.key].state(before)
        for name, by in request.counted.items():
            values[name] = values.get(name, 0) + by
        collections = {name: kind for name, kind in request.assigned.items() if _is_collection(kind)}
        values |= {name: value for name, value in request.assigned.items() if name not in collections}
        values = {name: value for name, value in values.items() if value is not GONE}
        values |= dict.fromkeys(collections, ())
        values |= self._with_items(request, values, before)
        told = shown(record)
        if told != values:
            self.find(f"{request} makes a session with {told}, and {values} was wanted")
        session = request.session
        assert session is not None, "who commits has a session"
        chronicle = chronicles[change.key] = Chronicle(change.key, session.subject or "", scene.now_ms)
        (stamp,) = record.heads
        items = {(name, item): True for name, value in values.items() if type(value) is tuple for item in value}
        values = {name: _kind_of(record, name) if type(value) is tuple else value for name, value in values.items()}
        self._enter(chronicle, stamp, {}, values, {}, items=items)

    def _with_items(self, request: Request, values: dict[str, Any], before: Version) -> dict[str, Any]:
        """What the collections among these values hold in a new session: what they held before, and what was done to them."""
        held: dict[str, list[Any]] = {}
        if before and request.key is not None:
            cleared = dict.fromkeys(request.cleared, request.based)
            held = self.scene.history.chronicles[request.key].items(before, cleared)
        result = {}
        for name, value in values.items():
            if type(value) is tuple:
                done = {item: is_added for (field, item), is_added in request.items.items() if field == name}
                kept = [item for item in held.get(name, ()) if item not in done]
                result[name] = (*kept, *(item for item, is_added in done.items() if is_added))
        return result

    def _enter(
        self,
        chronicle: Chronicle,
        stamp: Stamp,
        base: Version,
        values: dict[str, Any],
        increments: dict[str, tuple[Stamp, int]],
        *,
        items: dict[tuple[str, Any], bool],
        cleared: dict[str, Version] | None = None,
    ) -> None:
        closure = joined((base, {stamp.writer: stamp.counter}))
        chronicle.writes[stamp] = Write(
            stamp, closure, values, increments, self.scene.now_ms, items=dict(items), cleared=cleared
        )

    def _ended(self, request: Request, change: Ended) -> None:
        chronicle = self.scene.history.chronicles[change.key]
        if request.ended is None or request.ended[0] != change.key:
            end = End(change.record.state, self.scene.now_ms)
            request.ended = (change.key, end)
            chronicle.ends.append(end)


def _encoded(value: Any) -> bytes:
    if value is GONE:
        return b""
    if value is SET or value is LIST:
        return KIND_OF_SET if value is SET else KIND_OF_LIST
    return codec.encode(value)


def _kind_of(record: Record, name: str) -> object:
    return SET if record.fields[name].value == KIND_OF_SET else LIST


def _is_collection(value: object) -> bool:
    return value is SET or value is LIST
