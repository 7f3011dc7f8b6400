"""Sets and lists that merge: how a collection and its items stand among the fields of a record.

A collection is a field whose value says its kind, `SET` or `LIST`. Each of its items is a field of its own. An item's name is the
name of the collection, a NUL, which no other name contains, and then what tells it from other items: the value itself in a
set; in a list, a random batch for each request that appends, and a number. So items merge, travel and are removed by the rules for fields:
a set is the observed-remove set of Bieniusz et al. (2012), because adding an item is a new assignment that a parallel removal
has not seen.

Every write that adds an item assigns the kind anew, so an item never outlives its collection. Items are read in the order of their
stamps, and within one write in the order of their numbers. Pure functions on data.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from sessile import codec
from sessile.errors import DecodeError
from sessile.record import REMOVED, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sessile.record import Record

__all__ = [
    "KIND_BYTE",
    "LIST",
    "SEPARATOR",
    "SET",
    "carried",
    "encoded",
    "is_collection",
    "is_kind",
    "item_of_list",
    "item_of_set",
    "items_of",
    "ordered",
    "removed_with",
    "value_of",
]

KIND_BYTE: Final = 0xD4
"""What a kind begins with: msgpack's header of an extension of one byte. Few values do."""
SET: Final = b"\xd4\x20s"
LIST: Final = b"\xd4\x20l"
SEPARATOR: Final = "\0"
_TEXT, _BYTES, _NUMBERED = "s", "b", "l"
"""What follows the separator: a str, an encoded value as Latin-1, or the batch and the number of an item of a list."""


def is_kind(data: bytes) -> bool:
    """Whether this is the value of a collection."""
    return data in {SET, LIST}


def is_collection(entry: Entry) -> bool:
    """Whether any assignment of the field is a collection, whichever of them is read."""
    return is_kind(entry.value) or any(isinstance(item, bytes) and is_kind(item) for _, _, item in entry.rest)


def item_of_set(name: str, value: object, data: bytes) -> str:
    """The name of an item of a set; `data` is the value, encoded."""
    tail = _TEXT + value if type(value) is str else _BYTES + data.decode("latin-1")
    return f"{name}{SEPARATOR}{tail}"


def item_of_list(name: str, batch: str, number: int) -> str:
    """The name of an item of a list; no two requests that append have the same batch."""
    return f"{name}{SEPARATOR}{_NUMBERED}{batch}.{number:x}"


def items_of(names: Iterator[str] | Mapping[str, Any], name: str) -> list[str]:
    """Those of these names that name items of the collection."""
    prefix = name + SEPARATOR
    return [item for item in names if item.startswith(prefix)]


def value_of(item: str, data: bytes) -> Any:
    """The value of an item: in a set its name tells it.

    Raises:
        DecodeError: it cannot be read here, or no server gives such a name to an item.
    """
    form, tail = item.partition(SEPARATOR)[2][:1], item.partition(SEPARATOR)[2][1:]
    if form == _TEXT:
        return tail
    if form == _BYTES:
        try:
            data = tail.encode("latin-1")
        except UnicodeEncodeError:
            raise DecodeError("an item with a malformed name") from None
    return codec.decode(data)


def encoded(values: tuple[Any, ...]) -> bytes:
    """What the items of a collection are together, one by one: each may be as deep as a field, so a tuple of them is too deep."""
    return b"".join(codec.encode(value, bytes_max=sys.maxsize) for value in values)


def ordered(record: Record | None, values: Mapping[str, bytes], name: str, kind: bytes) -> list[tuple[str, bytes]]:
    """The items of a collection in the order in which they are read, each with its value.

    Args:
        record: where they stand.
        values: what was assigned and removed since; it comes last.
        name: of the collection.
        kind: which items count: `SET` or `LIST`.
    """
    prefix = name + SEPARATOR
    forms = (prefix + _NUMBERED,) if kind == LIST else (prefix + _TEXT, prefix + _BYTES)
    found: list[tuple[tuple[int, int, int, int, str], bytes]] = []
    if record is not None:
        tags = list(record.version)
        for item, entry in record.fields.items():
            if item.startswith(forms) and item not in values and entry.value:
                first = entry.assignments()[-1] if entry.rest else entry  # the first of several servers that added it
                rank = (0, first.counter, tags[first.writer], _number(item, first.value), item)
                found.append((rank, entry.value))
    found += [
        ((1, 0, 0, _number(item, data), item), data)
        for item, data in values.items()
        if item.startswith(forms) and data != REMOVED
    ]
    return [(rank[4], data) for rank, data in sorted(found)]


def removed_with(record: Record, values: Mapping[str, bytes]) -> dict[str, bytes]:
    """The removals that belong to these assignments: of the items of every collection that they replace or remove."""
    removed: dict[str, bytes] = {}
    for name, data in values.items():
        entry = record.fields.get(name)
        if entry is not None and not is_kind(data) and is_collection(entry):
            removed |= {item: REMOVED for item in items_of(record.fields, name) if item not in values}
    return removed


def carried(record: Record, changed: Mapping[str, bytes], values: dict[str, bytes]) -> dict[str, bytes]:
    """Assignments for a new record, numbered so that items keep their order there though all have one stamp.

    Args:
        record: the old record.
        changed: what is assigned or removed on top of it.
        values: both together, without what is removed.
    """
    result = {name: data for name, data in values.items() if SEPARATOR not in name}
    for name, kind in values.items():
        if not is_kind(kind):
            continue
        for number, (item, data) in enumerate(ordered(record, changed, name, kind)):
            if kind == LIST:
                result[item_of_list(name, "", number)] = data
            else:
                result[item] = codec.encode(number)
    return result


def _number(item: str, data: bytes) -> int:
    """Which item of its write this is: in a list its name tells it, in a set its value."""
    try:
        if item.partition(SEPARATOR)[2].startswith(_NUMBERED):
            return int(item.rpartition(".")[2], 16)
        number = codec.decode(data)
    except (ValueError, DecodeError):
        return 0
    return number if type(number) is int else 0
