"""One message of each kind, as it is usual, and strategies for any."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from sessile.record import Record, Stamp
from sessile.replication import messages
from sessile.replication.messages import MemberInfo, Message

__all__ = ["KINDS", "USUAL", "any_message"]

KINDS: tuple[type[Message], ...] = typing.get_args(Message)

KEY = bytes(range(16))
WRITER = 2**47 + 1
NOW_MS = 3_600_000
A, B, C = (MemberInfo(f"10.0.0.{number}:7400", f"server-{number}", 1_760_000_000) for number in (1, 2, 3))
HEADS = (Stamp(12, WRITER),)
SMALL = (
    Record.create(now_ms=NOW_MS, idle_ms=1_800_000, deadline_ms=NOW_MS + 43_200_000)
    .write(WRITER, {"user": b"\xa5alice", "cart": b"\x93\x01\x02\x03"}, now_ms=NOW_MS)[0]
    .pack()
)

USUAL: tuple[Message, ...] = (
    messages.Hello(1, "sessile", "primary-backup:2", A, WRITER, True, (A, B, C), (1, 2)),
    messages.Members((A, B, C)),
    messages.Beat(2**32 - 1),
    messages.Writing(WRITER),
    messages.Changed(KEY, 13, 0, 1, {"cart": b"\x93\x01\x02\x03"}),
    messages.Whole(NOW_MS, ((KEY, SMALL),)),
    messages.Told(NOW_MS, ((KEY, SMALL),)),
    messages.Acked(1_000),
    messages.Denied(1_000, KEY, 0),
    messages.Pull(1_000, KEY, HEADS, {WRITER: 12}),
    messages.Answered(1_000, 1, NOW_MS, SMALL),
    messages.Touched(((KEY, 40),)),
    messages.Digest(bytes(8 * 64)),
    messages.Differ(bytes(5)),
    messages.Offered(7, bytes(24 * 10)),
    messages.Wanted(7, bytes(16 * 10)),
    messages.TombstonesAsked(),
    messages.TombstonesTold(NOW_MS, ((KEY, SMALL),), True),
    messages.Listed(False, KEY, b""),
    messages.Rejoin(),
    messages.Goodbye(),
)

_LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
    int: st.integers(-(2**63), 2**64 - 1),
    str: st.text(max_size=12),
    type(None): st.none(),
}


def any_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation that occurs in a message."""
    if annotation in _LEAVES:
        return _LEAVES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {types.UnionType, typing.Union}:
        return st.one_of(*map(any_of, arguments))
    if origin is dict:
        return st.dictionaries(any_of(arguments[0]), any_of(arguments[1]), max_size=3)
    if origin is tuple and arguments[-1] is ...:
        return st.lists(any_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(any_of, arguments))
    names = (
        [field.name for field in msgspec.structs.fields(annotation)] if is_struct(annotation) else annotation._fields
    )
    hints = typing.get_type_hints(annotation)
    return st.builds(annotation, **{name: any_of(hints[name]) for name in names})


def is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def any_message() -> st.SearchStrategy[Message]:
    """A message of any kind with anything in it that its fields allow."""
    return st.one_of(*map(any_of, KINDS))
