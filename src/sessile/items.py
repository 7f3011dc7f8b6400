"""Sets and lists that merge: how a collection and its items stand among the fields of a record.

A collection is a field whose value states its kind, `SET` or `LIST`. Each of its items is a field of its own. An item's name
consists of the name of the collection, a NUL, which no other name contains, and a part that identifies the item: in a set, the
value itself; in a list, the batch, which is random for each request that appends, and a number. So items merge, travel and are
removed by the rules for fields. A set is the observed-remove set of Bieniusz et al. (2012), because adding an item is a new
assignment that a parallel removal has not seen.

Every write that adds an item assigns the kind again, so an item never outlives its collection. Items are read in the order of
their stamps; within one write, in the order of their numbers. Pure functions on data.
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
"""First byte of a kind: msgpack's header of a one-byte extension. Few other values begin with it."""
SET: Final = b"\xd4\x20s"
LIST: Final = b"\xd4\x20l"
SEPARATOR: Final = "\0"
_TEXT, _BYTES, _NUMBERED = "s", "b", "l"
"""First letter after the separator, before a str, an encoded value as Latin-1, or a list item's batch and number."""


def is_kind(data: bytes) -> bool:
    """Whether this field value is the kind of a collection."""
    return data in {SET, LIST}


def is_collection(entry: Entry) -> bool:
    """Whether any of the field's parallel assignments is a collection, even if another one is read."""
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
    """The value of an item. In a set, it is part of the item's name.

    Raises:
        DecodeError: this server cannot read it, or the name is malformed.
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
        record: the record that holds them.
        values: the assignments and removals since; their items come last.
        name: the name of the collection.
        kind: `SET` or `LIST`: which items count.
    """
    prefix = name + SEPARATOR
    forms = (prefix + _NUMBERED,) if kind == LIST else (prefix + _TEXT, prefix + _BYTES)
    found: list[tuple[tuple[int, int, int, int, str], bytes]] = []
    if record is not None:
        tags = list(record.version)
        for item, entry in record.fields.items():
            if item.startswith(forms) and item not in values and entry.value:
                # If several servers added the item, the first addition counts.
                first = entry.assignments()[-1] if entry.rest else entry
                rank = (0, first.counter, tags[first.writer], _number(item, first.value), item)
                found.append((rank, entry.value))
    found += [
        ((1, 0, 0, _number(item, data), item), data)
        for item, data in values.items()
        if item.startswith(forms) and data != REMOVED
    ]
    return [(rank[4], data) for rank, data in sorted(found)]


def removed_with(record: Record, values: Mapping[str, bytes]) -> dict[str, bytes]:
    """The removals of items that these assignments entail: those of each collection that is replaced or removed."""
    removed: dict[str, bytes] = {}
    for name, data in values.items():
        entry = record.fields.get(name)
        if entry is not None and not is_kind(data) and is_collection(entry):
            removed |= {item: REMOVED for item in items_of(record.fields, name) if item not in values}
    return removed


def carried(record: Record, changed: Mapping[str, bytes], values: dict[str, bytes]) -> dict[str, bytes]:
    """Assignments for a new record. Items are numbered, so that they keep their order although all get the same stamp.

    Args:
        record: the old record.
        changed: the assignments and removals on top of it.
        values: the old fields with these changes applied, without removed ones.
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
    """The item's number within its write: in a list, part of its name; in a set, its value."""
    try:
        if item.partition(SEPARATOR)[2].startswith(_NUMBERED):
            return int(item.rpartition(".")[2], 16)
        number = codec.decode(data)
    except (ValueError, DecodeError):
        return 0
    return number if type(number) is int else 0
