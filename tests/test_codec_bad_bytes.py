"""What `sessile.codec` does with bytes that it never wrote: one error, no memory, no end of the process."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessile import codec
from sessile.codec import DEPTH_MAX, decode, encode, is_mutable, register
from sessile.errors import DecodeError
from tests.values import Point, values


def is_value(data: bytes) -> bool:
    """Whether these are bytes of a value; anything raised but DecodeError fails the test."""
    try:
        decode(data)
    except DecodeError:
        return False
    return True


def ext(kind: int, payload: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(kind, payload))


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


KINDS: dict[str, int] = {name: number for name, number in vars(codec._Kind).items() if name.isupper()}
NO_ZONES: list[Any] = ["No/Such", "../etc/passwd", "", "\x00", "x" * 5_000, "America"]
NO_OFFSETS: list[Any] = [[], [1], ["a", 1], 1.5, 2**62, 10**12, [10**12, "x"], {}, None]
NO_OBJECTS: list[Any] = [1, [], ["codec-test-point"], ["codec-test-point", 5], [5, {}], [[], {}]]
BAD = [
    *(b"", b"\xc1", b"\x01\x01", b"\xa1\xff", b"\xa5abc", b"\x92\x01", b"\x81\x01", b"\x81\xa1a"),
    *(b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xffx", b"\xdf\xff\xff\xff\xffx", b"\xc6\xff\xff\xff\xff"),
    *(b"\xc9\xff\xff\xff\xff\x01", ext(99, b""), ext(-1, b"\xff" * 4 + b"x"), ext(0, b"\x01")),
    *(ext(KINDS["TUPLE"], b""), ext(KINDS["TUPLE"], pack(5)), ext(KINDS["TUPLE"], pack([]) + b"\x01")),
    *(ext(KINDS["SET"], pack([[1]])), ext(KINDS["FROZENSET"], pack({})), ext(KINDS["SET"], pack("ab"))),
    *(ext(KINDS["DICT"], pack([[1], []])), ext(KINDS["DICT"], pack([1, 2])), ext(KINDS["DICT"], pack([[[]], [1]]))),
    *(ext(KINDS["DICT"], pack([[1]])), ext(KINDS["DICT"], pack({1: 2})), ext(KINDS["DICT"], pack([5, "a"]))),
    *(
        ext(KINDS["DECIMAL"], b"one"),
        ext(KINDS["DECIMAL"], b" 1"),
        ext(KINDS["DECIMAL"], b"1_0"),
        ext(KINDS["DECIMAL"], b"\xff"),
    ),
    *(ext(KINDS["DECIMAL"], b""), ext(KINDS["DECIMAL"], b"1E99999999999999999999"), ext(KINDS["UUID"], b"x" * 15)),
    *(
        ext(KINDS["SET"], b"\x91" + ext(KINDS["DECIMAL"], b"SNAN")),
        ext(KINDS["DATE"], b"\x00" * 4),
        ext(KINDS["DATE"], b""),
    ),
    *(ext(KINDS["TIME"], b"\xff" * 8), ext(KINDS["TIME"], b"\x00" * 7), ext(KINDS["TIME"], b"\x00" * 8 + b"\xc0")),
    *(ext(KINDS["TIME"], b"\x00" * 8 + pack(zone)) for zone in NO_ZONES),
    *(ext(KINDS["TIME"], b"\x00" * 8 + pack(zone)) for zone in NO_OFFSETS),
    *(ext(KINDS["DATETIME"], b"\x07\xe8\x02\x1e" + b"\x00" * 8), ext(KINDS["DATETIME"], b"\x07\xe8\x02\x01")),
    *(ext(KINDS["TIMEDELTA"], b"\x7f" + b"\xff" * 11), ext(KINDS["TIMEDELTA"], b"")),
    *(ext(KINDS["OBJECT"], pack(value)) for value in NO_OBJECTS),
    *(ext(KINDS["OBJECT"], pack(["codec-test-point", fields])) for fields in ({}, {"x": 1, "z": 2}, {1: 2}, [1])),
    *(ext(KINDS["OBJECT"], pack(["codec-test-coin", fields])) for fields in ({}, {"value": 1, "z": 2}, {"": 2})),
    *(b"\x91" * 33 + b"\xc0", b"\x91" * 500 + b"\xc0", b"\x91" * 1_000_000 + b"\xc0", b"\x81\xa1a" * 40 + b"\xc0"),
]


@pytest.mark.parametrize("data", BAD, ids=lambda data: data[:12].hex())
def test_bad_bytes_raise_one_error(data: bytes) -> None:
    """Truncated, contradictory, impossible, trailing, too deep: DecodeError, of one line."""
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def deep_extensions(levels: int, kind: int) -> bytes:
    data = b"\x01"
    for _ in range(levels):
        data = ext(kind, b"\x91" + data)
    return data


@pytest.mark.parametrize("kind", [KINDS["TUPLE"], KINDS["FROZENSET"]])
def test_deep_extensions_are_refused(kind: int) -> None:
    """Extensions inside extensions count as depth, and thousands of them do not end the process."""
    assert is_mutable(decode(deep_extensions(DEPTH_MAX, kind))) is False
    for levels in (DEPTH_MAX + 1, 200, 5_000):
        with pytest.raises(DecodeError, match="more than 32 containers"):
            decode(deep_extensions(levels, kind))


def test_depth_counts_lists_and_extensions_together() -> None:
    """Neither lists inside tuples nor tuples as keys nor an object's parts hide depth."""
    mixed = b"\x01"
    for level in range(DEPTH_MAX + 1):
        mixed = b"\x91" + mixed if level % 2 else ext(KINDS["TUPLE"], b"\x91" + mixed)
    key = b"\x81" + deep_extensions(DEPTH_MAX, KINDS["TUPLE"]) + b"\x01"
    part = b"\xc0"
    for _ in range(DEPTH_MAX // 2 + 1):
        part = ext(KINDS["OBJECT"], b"\x92" + pack("codec-test-cart") + b"\x81" + pack("items") + b"\x91" + part)
    for data in (mixed, key, part):
        with pytest.raises(DecodeError, match="more than 32 containers"):
            decode(data)


LISTS = (b"\x91", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01", b"\x9f" + b"\x01" * 14)
DICTS = (b"\x81\x01", b"\xde\x00\x01\x01", b"\xdf\x00\x00\x00\x01\x01")


@pytest.mark.parametrize("innermost", [b"\x90", b"\x80"])
@pytest.mark.parametrize("level", [*LISTS, *DICTS], ids=bytes.hex)
def test_depth_counts_however_a_container_is_spelt(level: bytes, innermost: bytes) -> None:
    """Lists and dicts with short and long headers count alike, and so does an empty one."""
    assert is_value(level * (DEPTH_MAX - 1) + innermost)
    with pytest.raises(DecodeError, match="more than 32 containers"):
        decode(level * DEPTH_MAX + innermost)


def test_what_was_declared_is_not_allocated() -> None:
    """Headers that promise four thousand million items, at every level, cost no more memory than the bytes there are."""
    hostile = [
        *(head + b"\xff\xff\xff\xff" for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6")),
        b"\xdd\x7f\xff\xff\xff" * 30,
        b"\xdf\x7f\xff\xff\xff\x01" * 30,
        ext(KINDS["TUPLE"], b"\xdd\x7f\xff\xff\xff" * 10),
        b"\xc9\x7f\xff\xff\xff\x05" + b"x" * 100,
    ]
    tracemalloc.start()
    try:
        for data in hostile:
            assert not is_value(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300))
@example(b"\xd6\xff\x00\x00\x00\x00")
def test_random_bytes_give_a_value_or_the_error(data: bytes) -> None:
    """Whatever the bytes: a value, or DecodeError."""
    is_value(data)


@given(values, st.data())
def test_mutated_bytes_give_a_value_or_the_error(value: Any, chance: st.DataObject) -> None:
    """Bits flipped, bytes overwritten, cut out, put in or appended: a value, or DecodeError."""
    data = bytearray(encode(value))
    for _ in range(chance.draw(st.integers(1, 4))):
        at = chance.draw(st.integers(0, max(0, len(data) - 1)))
        piece = chance.draw(
            st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from([b"\xdd", b"\xc9", b"\xd4\x0c"]))
        )
        data[at : at + chance.draw(st.integers(0, 4))] = piece
    is_value(bytes(data))


@given(values)
def test_truncated_and_extended_bytes_are_refused(value: Any) -> None:
    """No proper prefix of a value's bytes is taken for one, nor are bytes after its end overlooked."""
    data = encode(value)
    step = max(1, len(data) // 40)
    for end in range(0, len(data), step):
        assert not is_value(data[:end])
    for tail in (b"\x00", b"\xc0", data):
        assert not is_value(data + tail)


@given(st.sampled_from(sorted(KINDS.values())), st.one_of(st.binary(max_size=64), values.map(encode)))
def test_any_payload_of_an_extension(kind: int, payload: bytes) -> None:
    """Each reader meets random bytes, and well-formed ones of another kind."""
    is_value(ext(kind, payload))
    is_value(b"\x81" + ext(kind, payload) + b"\x01")


def test_an_object_of_an_unknown_class_names_it() -> None:
    """The class that is not registered here stands in the error."""
    data = encode(Point(1)).replace(b"codec-test-point", b"codec-test-pbint")
    with pytest.raises(DecodeError, match=r"class 'codec-test-pbint', which is not registered"):
        decode(data)


@register(name="codec-test-moody")
@dataclasses.dataclass(frozen=True, eq=False)
class Moody:
    """A class whose objects are particular about what is in them."""

    name: Any = "x"

    def __hash__(self) -> int:
        return hash(self.name.upper())


def test_an_object_whose_own_code_stumbles() -> None:
    """The hash of an object from bad bytes is the application's code: what it trips over is a decoding error."""
    assert len(encode({Moody()})) > 1
    stumbling = ext(KINDS["OBJECT"], pack(["codec-test-moody", {"name": 5}]))
    assert is_value(stumbling)
    assert not is_value(ext(KINDS["SET"], b"\x91" + stumbling))


def test_an_objects_parts_have_names() -> None:
    """Where all fields have defaults, none at all is an object, and a list for the names is not."""
    assert is_value(ext(KINDS["OBJECT"], pack(["codec-test-moody", {}])))
    nameless: list[Any] = [[], "", b"", None, 0]
    for parts in nameless:
        assert not is_value(ext(KINDS["OBJECT"], pack(["codec-test-moody", parts])))
