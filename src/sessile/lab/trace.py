"""Traces for a history: with `trace=NAME`, what a request did can be told from every later state of its session.

A change then leaves a field of that name in the same write, whose value says which writes it builds on. No two requests
use one name, so a field with a trace keeps the stamp of its write for good, and whoever reads the session, from wherever,
knows which writes are in it, those included whose answer nobody got. Answers tell the version and the stamps of traces.

What is told here looks into the session's record; an application has no use for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sessile.record import Heads
    from sessile.session import Session

__all__ = ["PREFIX", "told", "traced"]

PREFIX: Final = "op-"
"""The names of traces begin so."""

Change = Callable[["Session", Mapping[str, str]], Awaitable[None]]


async def traced(change: Change, session: Session, given: Mapping[str, str]) -> None:
    """Make the change, and leave a trace of it if one is asked for; where the session ends, there is nothing to leave.

    Raises:
        ValueError: the trace has a name that is none. And whatever the change raises.
    """
    name = given.get("trace", "")
    if not name:
        await change(session, given)
        return
    if not name.startswith(PREFIX):
        raise ValueError(f"the name of a trace begins with {PREFIX}, not {name!r}")
    session.mark_accessed()
    record = session.opened.record
    base = () if record is None else record.heads
    await change(session, given)
    if len(session):
        session[name] = _text(base)


def told(session: Session) -> dict[str, Any]:
    """What an answer tells beside the fields: how the session stands, and under which stamps its traces were written."""
    session.mark_accessed()
    opened = session.opened
    record = opened.record
    if record is None:
        return {"read_only": False, "version": {}, "heads": "", "stamps": {}}
    stamps = {name: record.stamp_of(entry) for name, entry in record.fields.items() if name.startswith(PREFIX)}
    return {
        "read_only": opened.is_read_only,
        "version": {f"{writer:x}": counter for writer, counter in record.version.items()},
        "heads": _text(record.heads),
        "stamps": {name: _text((stamp,)) for name, stamp in stamps.items()},
    }


def _text(heads: Heads) -> str:
    """`counter@writer` for each, the writer in hex."""
    return " ".join(f"{stamp.counter}@{stamp.writer:x}" for stamp in heads)
