"""Traces for a history: with `trace=NAME`, what a request did can be told from every later state of its session.

A change then leaves a field of that name in the same write, whose value says which writes it builds on. No two requests
use one name, so a field with a trace keeps the stamp of its write for good, and whoever reads the session, from wherever,
knows which writes are in it, those included whose answer nobody got. Answers then tell how the session stood before the
change and stands after it: its version, its heads, and the stamps of traces.

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


async def traced(change: Change, session: Session, given: Mapping[str, str]) -> dict[str, Any]:
    """Make the change, and leave a trace of it if one is asked for; where the session ends, there is nothing to leave.

    Returns:
        What `told` says of the session as it was before; nothing without a trace.

    Raises:
        ValueError: the trace has a name that is none. And whatever the change raises.
    """
    name = given.get("trace", "")
    if not name:
        await change(session, given)
        return {}
    if not name.startswith(PREFIX):
        raise ValueError(f"the name of a trace begins with {PREFIX}, not {name!r}")
    before = told(session)
    await change(session, given)
    if len(session):
        session[name] = before["heads"]
    return before


def told(session: Session) -> dict[str, Any]:
    """How the session stands, and under which stamps its traces were written; `key` is empty where there is none."""
    session.mark_accessed()
    opened = session.opened
    record = opened.record
    fields = {} if record is None else record.fields
    stamps = (
        {} if record is None else {n: record.stamp_of(entry) for n, entry in fields.items() if n.startswith(PREFIX)}
    )
    return {
        "key": "" if record is None else opened.key.hex(),
        "subject": session.subject or "",
        "stale": opened.is_stale,
        "read_only": opened.is_read_only,
        "version": {} if record is None else {f"{writer:x}": counter for writer, counter in record.version.items()},
        "heads": "" if record is None else _text(record.heads),
        "stamps": {name: _text((stamp,)) for name, stamp in stamps.items()},
        "fields": dict(session),
    }


def _text(heads: Heads) -> str:
    """`counter@writer` for each, the writer in hex."""
    return " ".join(f"{stamp.counter}@{stamp.writer:x}" for stamp in heads)
