"""Values to bytes and back, typed, never pickle.

What comes back has the type and the value of what went in. Plain msgpack carries None, bool, float, str, bytes, lists,
dicts with plain keys and ints of 64 bits; all else that is allowed is an extension (the `_Kind` numbers below); what
is neither is refused with its type and its place in the value. Types are compared exactly: a subclass (an IntEnum, an
OrderedDict, a named tuple) is never taken for its base.

Equal values of the same types give the same bytes: sets are sorted by their bytes, dicts keep the order of insertion.
Decoding runs no code of the application (but the `__post_init__` of a registered msgspec Struct), allocates no more
than the bytes pay for, and raises only `DecodeError`.

The packing itself is msgspec's. It would turn tuples, sets and subclasses into something else, and so is shown only
trees of exact plain types.
"""

from __future__ import annotations

import dataclasses
import struct
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Decoder, Encoder, Ext

from sessile.classes import BY_CLASS, BY_NAME, register
from sessile.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["DEPTH_MAX", "IMMUTABLE", "VALUE_BYTES_MAX", "decode", "encode", "is_mutable", "register"]

VALUE_BYTES_MAX: Final = 2**21 - 2**16
"""No value is larger, encoded; an int may have 8 million bits. The setting `value_bytes_max` lies below."""
DEPTH_MAX: Final = 32
"""So many containers may stand one inside the other. A value that contains itself ends here too."""


class _Kind:
    """The msgpack extension types. Numbers are for ever: sessions outlive a deployment."""

    TUPLE: Final = 1
    SET: Final = 2
    FROZENSET: Final = 3
    DICT: Final = 4
    INT: Final = 5
    DECIMAL: Final = 6
    UUID: Final = 7
    DATETIME: Final = 8
    DATE: Final = 9
    TIME: Final = 10
    TIMEDELTA: Final = 11
    OBJECT: Final = 12


_PLAIN: Final = frozenset({NoneType, bool, int, float, str, bytes})
"""What msgpack carries as it is, if ints fit and strings are Unicode."""
_ALWAYS_PLAIN: Final = frozenset({NoneType, bool, float, bytes})
IMMUTABLE: Final = _PLAIN | {Decimal, UUID, datetime, date, time, timedelta}

_pack: Final = Encoder().encode


# -- encoding ------------------------------------------------------------------------------------------------------------


def encode(value: object, *, bytes_max: int = VALUE_BYTES_MAX) -> bytes:
    """The bytes of a value.

    Raises:
        EncodeError: the value, or one inside it, is of a type that would not survive; or it is too deep or too large.
    """
    try:
        data = _pack(value if type(value) in _PLAIN else _Walk(_PLAIN).wrap(value))
    except (UnicodeEncodeError, OverflowError):  # a long int or a lone surrogate somewhere: go again, and look at each
        data = _encode_exactly(value)
    except _Refused as refusal:
        raise EncodeError(str(refusal)) from None
    if len(data) > bytes_max:
        raise EncodeError(f"{type(value).__name__} of {len(data)} bytes, encoded, is over the limit of {bytes_max}")
    return data


def _encode_exactly(value: object) -> bytes:
    try:
        return _pack(_Walk(_ALWAYS_PLAIN).wrap(value))
    except _Refused as refusal:
        raise EncodeError(str(refusal)) from None


class _Refused(Exception):
    """A value that cannot be kept; on its way up, each container adds where it stood."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def __str__(self) -> str:
        path = "".join(reversed(self.steps))
        return f"{path}: {self.reason}" if path else self.reason


class _Walk:
    """One pass over a value: plain parts stay as they are, containers are rebuilt, the rest is wrapped or refused."""

    __slots__ = ("depth", "items_left", "plain")

    def __init__(self, plain: frozenset[type]) -> None:
        self.plain = plain
        self.depth = 0
        self.items_left = VALUE_BYTES_MAX  # each item takes a byte at least

    def wrap(self, value: object) -> object:
        kind = type(value)
        if kind in self.plain:
            return value
        write = _WRITERS.get(kind)
        if write is not None:
            return write(value, self)
        if kind in BY_CLASS:
            return _write_object(value, self)
        raise _Refused(_reason(kind))

    def enter(self, items: int) -> None:
        self.depth += 1
        self.items_left -= items
        if self.depth > DEPTH_MAX:
            raise _Refused(f"more than {DEPTH_MAX} containers one inside the other, or one that contains itself")
        if self.items_left < 0:
            raise _Refused(f"more than {VALUE_BYTES_MAX} items")

    def wrap_all(self, items: Iterable[object], step: Callable[[int], str]) -> list[object]:
        wrapped: list[object] = []
        try:
            for item in items:
                wrapped.append(self.wrap(item))  # noqa: PERF401  # its length says where a refusal was
        except _Refused as refusal:
            refusal.steps.append(step(len(wrapped)))
            raise
        return wrapped


def _reason(kind: type) -> str:
    name = kind.__qualname__
    base = next((base for base in kind.__mro__[1:] if base in _PLAIN or base in _WRITERS), None)
    if dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct):
        remedy = f"register({name}) or store plain data"
    elif issubclass(kind, Enum):
        remedy = "store its .value"
    elif base is not None:
        remedy = f"convert it to {base.__name__}"
    elif issubclass(kind, bytearray | memoryview):
        remedy = "convert it to bytes"
    else:
        remedy = "store plain data, or make it a dataclass and register it"
    return f"object of type {name} cannot be kept in a session; {remedy}"


def _write_list(value: list[object], walk: _Walk) -> object:
    walk.enter(len(value))
    items = value if walk.plain.issuperset(map(type, value)) else walk.wrap_all(value, "[{}]".format)
    walk.depth -= 1
    return items


def _write_tuple(value: tuple[object, ...], walk: _Walk) -> object:
    walk.enter(len(value))
    items = value if walk.plain.issuperset(map(type, value)) else walk.wrap_all(value, "[{}]".format)
    walk.depth -= 1
    return Ext(_Kind.TUPLE, _pack(items))


def _write_set(value: set[object] | frozenset[object], walk: _Walk) -> object:
    walk.enter(len(value))
    items = value if walk.plain.issuperset(map(type, value)) else walk.wrap_all(value, lambda _: "{*}")
    walk.depth -= 1
    return Ext(_Kind.SET if type(value) is set else _Kind.FROZENSET, _pack(sorted(items, key=_pack)))


def _write_dict(value: dict[object, object], walk: _Walk) -> object:
    walk.enter(len(value))
    written: object = value
    if not (walk.plain.issuperset(map(type, value)) and walk.plain.issuperset(map(type, value.values()))):
        names = list(value)
        keys = walk.wrap_all(value, ".keys()[{}]".format)
        items = walk.wrap_all(value.values(), lambda at: f"[{names[at]!r:.40}]")
        # An Ext has no hash, so a dict with such a key becomes two lists.
        is_plain = _PLAIN.issuperset(map(type, keys))
        written = dict(zip(keys, items, strict=True)) if is_plain else Ext(_Kind.DICT, _pack([keys, items]))
    walk.depth -= 1
    return written


def _write_int(value: int, _: _Walk) -> object:
    if -(2**63) <= value < 2**64:
        return value
    return Ext(_Kind.INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _write_str(value: str, _: _Walk) -> object:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Refused("str with a lone surrogate is no Unicode text; store it as bytes") from None
    return value


def _write_decimal(value: Decimal, _: _Walk) -> object:
    return Ext(_Kind.DECIMAL, str(value).upper().encode())  # whether the context's E is e does not matter


def _write_datetime(value: datetime, walk: _Walk) -> object:
    day = (value.year, value.month, value.day)
    return Ext(_Kind.DATETIME, _DAY.pack(*day) + _pack_time(value) + _pack_zone(value.tzinfo, walk))


def _write_time(value: time, walk: _Walk) -> object:
    return Ext(_Kind.TIME, _pack_time(value) + _pack_zone(value.tzinfo, walk))


def _pack_time(value: datetime | time) -> bytes:
    return _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)


def _pack_zone(zone: tzinfo | None, walk: _Walk) -> bytes:
    """Nothing, the key of a zone, an offset in microseconds, or that with a name of its own."""
    if zone is None:
        return b""
    if type(zone) is ZoneInfo and zone.key is not None:
        return _pack(zone.key)
    if type(zone) is not timezone:
        name = type(zone).__qualname__
        raise _Refused(
            f"time zone of type {name} cannot be kept; use zoneinfo.ZoneInfo with a key, or datetime.timezone"
        )
    offset = zone.utcoffset(None)
    offset_us, name = offset // timedelta(microseconds=1), zone.tzname(None)
    return _pack(offset_us if name == timezone(offset).tzname(None) else [offset_us, _write_str(name, walk)])


def _write_object(value: object, walk: _Walk) -> object:
    registered = BY_CLASS[type(value)]
    walk.enter(len(registered.fields))
    try:
        parts = [getattr(value, name) for name in registered.fields]
    except AttributeError as error:
        raise _Refused(f"object of type {type(value).__qualname__} is not complete: {error}") from None
    parts = walk.wrap_all(parts, lambda at: f".{registered.fields[at]}")
    walk.depth -= 1
    return Ext(_Kind.OBJECT, _pack([registered.name, dict(zip(registered.fields, parts, strict=True))]))


_DAY: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_TIMEDELTA: Final = struct.Struct(">iII")

_WRITERS: Final[dict[type, Callable[[Any, _Walk], object]]] = {
    int: _write_int,
    str: _write_str,
    list: _write_list,
    tuple: _write_tuple,
    dict: _write_dict,
    set: _write_set,
    frozenset: _write_set,
    Decimal: _write_decimal,
    UUID: lambda value, _: Ext(_Kind.UUID, value.bytes),
    datetime: _write_datetime,
    date: lambda value, _: Ext(_Kind.DATE, _DAY.pack(value.year, value.month, value.day)),
    time: _write_time,
    timedelta: lambda value, _: Ext(_Kind.TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)),
}


# -- decoding ------------------------------------------------------------------------------------------------------------


def decode(data: bytes, *, bytes_max: int = VALUE_BYTES_MAX) -> object:
    """The value of bytes that `encode` gave.

    Raises:
        DecodeError: the bytes are not from `encode`; or the class of an object is not registered here, or has other
            fields.
    """
    if len(data) > bytes_max:
        raise DecodeError(f"{len(data)} bytes are over the limit of {bytes_max} for one value")
    try:
        value = _DECODERS[0].decode(data)
    except DecodeError:
        raise
    except _BAD_BYTES as error:
        raise DecodeError(f"bytes that are no encoded value ({type(error).__name__})") from error
    # A level takes a byte that could be a header: most values have too few of these to be too deep.
    may_be_deep = type(value) not in IMMUTABLE and len(data.translate(None, _NO_HEADERS)) > DEPTH_MAX
    if may_be_deep and _is_too_deep(value):
        raise DecodeError(f"bytes with more than {DEPTH_MAX} containers one inside the other")
    return value


_BAD_BYTES: Final = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),  # msgspec's errors are ValueErrors
    *(struct.error, RecursionError, OSError, ImportError),  # the last two: what looking for a time zone may meet
)
_HEADERS: Final = (*range(0x80, 0xA0), *range(0xC7, 0xCA), *range(0xD4, 0xD9), *range(0xDC, 0xE0))
_NO_HEADERS: Final = bytes(set(range(256)) - set(_HEADERS))


def _is_too_deep(value: object) -> bool:
    layer = [value]
    for _ in range(DEPTH_MAX):
        layer = [part for outer in layer for part in _parts(outer) if type(part) not in IMMUTABLE]
        if not layer:
            return False
    return True


def _parts(value: Any) -> Iterable[object]:
    """What a container holds."""
    if type(value) is dict:
        return [*value, *value.values()]
    registered = BY_CLASS.get(type(value))
    return value if registered is None else [getattr(value, name) for name in registered.fields]


def _decoder(level: int) -> Decoder[Any]:
    """A decoder for what stands so many extensions deep: each level has its own, so none goes deeper than allowed."""

    def read(code: int, data: memoryview) -> object:
        reader = _READERS.get(code)
        if reader is None:
            raise DecodeError(f"bytes with the unknown extension type {code}")
        return reader(data, level + 1)

    return Decoder(ext_hook=read)


def _unpack(data: memoryview, level: int) -> Any:
    if level > DEPTH_MAX:
        raise DecodeError(f"bytes with more than {DEPTH_MAX} containers one inside the other")
    return _DECODERS[level].decode(data)


def _read_items(data: memoryview, level: int) -> list[object]:
    items = _unpack(data, level)
    if type(items) is not list:
        raise DecodeError(f"bytes with {type(items).__name__} for a list")
    return items


def _read_dict(data: memoryview, level: int) -> object:
    keys, items = _read_items(data, level)
    return dict(zip(keys, items, strict=True))  # type: ignore[call-overload]  # what is no list raises TypeError


def _read_decimal(data: memoryview, _: int) -> object:
    text = str(data, "ascii")
    value = Decimal(text)
    if str(value).upper() != text:  # an untrapped context reads anything as NaN
        raise DecodeError("bytes with a malformed Decimal")
    return value


def _read_datetime(data: memoryview, _: int) -> object:
    return datetime.combine(_read_date(data[:4], 0), _read_time(data[4:], 0))


def _read_date(data: memoryview, _: int) -> date:
    return date(*_DAY.unpack(data))


def _read_time(data: memoryview, _: int) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack(data[:8])
    return time(hour, minute, second, microsecond, _read_zone(data[8:]), fold=fold)


def _read_zone(data: memoryview) -> tzinfo | None:
    if not data:
        return None
    match _DECODERS[DEPTH_MAX].decode(data):
        case str(key):
            return ZoneInfo(key)
        case int(offset_us):
            return timezone(timedelta(microseconds=offset_us))
        case [int(offset_us), str(name)]:
            return timezone(timedelta(microseconds=offset_us), name)
    raise DecodeError("bytes with a malformed time zone")


def _read_object(data: memoryview, level: int) -> object:
    name, parts = _read_items(data, level)
    registered = BY_NAME.get(name) if isinstance(name, str) else None
    if registered is None:
        raise DecodeError(f"object of the class {name!r:.80}, which is not registered in this process")
    if not isinstance(parts, dict):
        raise DecodeError("bytes with a malformed object")
    unknown = [part for part in parts if part not in registered.fields]
    if unknown:
        raise DecodeError(
            f"object of the class {name!r} has the field {unknown[0]!r:.80}, which the class here has not"
        )
    return registered.build(parts)


_READERS: Final[dict[int, Callable[[memoryview, int], object]]] = {
    _Kind.TUPLE: lambda data, level: tuple(_read_items(data, level)),
    _Kind.SET: lambda data, level: set(_read_items(data, level)),
    _Kind.FROZENSET: lambda data, level: frozenset(_read_items(data, level)),
    _Kind.DICT: _read_dict,
    _Kind.INT: lambda data, _: int.from_bytes(data, "big", signed=True),
    _Kind.DECIMAL: _read_decimal,
    _Kind.UUID: lambda data, _: UUID(bytes=bytes(data)),
    _Kind.DATETIME: _read_datetime,
    _Kind.DATE: _read_date,
    _Kind.TIME: _read_time,
    _Kind.TIMEDELTA: lambda data, _: timedelta(*_TIMEDELTA.unpack(data)),
    _Kind.OBJECT: _read_object,
}
_DECODERS: Final = tuple(_decoder(level) for level in range(DEPTH_MAX + 1))


# -- mutability ----------------------------------------------------------------------------------------------------------


def is_mutable(value: object) -> bool:
    """Whether a value could change after it was handed out: any but the immutable types, and what holds only these."""
    kind = type(value)
    if kind in IMMUTABLE:
        return False
    if kind is tuple or kind is frozenset:
        return any(map(is_mutable, value))  # type: ignore[call-overload]  # one of the two
    registered = BY_CLASS.get(kind)
    return registered is None or not registered.is_frozen or any(map(is_mutable, _parts(value)))
