from __future__ import annotations

import dataclasses
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from enum import Enum, IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.codec import DEPTH_MAX, VALUE_BYTES_MAX, decode, encode, is_mutable
from sessile.errors import DecodeError, EncodeError
from tests.values import BERLIN, NAMED_ZONE, ODD_ZONE, Cart, Coin, Point, Purse, alike, hashables, values

if TYPE_CHECKING:
    import random


@dataclasses.dataclass
class Stranger:
    x: int = 1


class Plain:
    """A class nothing is known about."""

    def __repr__(self) -> str:
        return "Plain()"  # a test is named after it, in every process


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Pair(NamedTuple):
    a: int
    b: int


class Text(str):
    __slots__ = ()


class Offset(tzinfo):
    """A time zone of the application's own."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> str:
        return "own"


ROUND_TRIPS = [
    *(None, True, False, 0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**100_000, -(2**71)),
    *(0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324, "", "text", "한국어 🎒", "\x00", b"", b"\x00\xff"),
    *([], [1, [2, [3]]], (), (1,), ((1, (2,)), [3]), {}, {"a": 1}, {"b": 1, "a": 2}, set(), {1, "a", None}),
    *(frozenset(), frozenset({(1, 2), frozenset({3})}), {frozenset({1})}, [(), [()], {"x": ()}]),
    *({1: "a", "1": "b", b"1": "c", 1.5: "d", None: "e", (1,): "f"}, {True: 1}, {1.0: 1}, {2**70: 1}),
    *({(1, (2, 3)): {"deep": {4}}}, {date(2024, 2, 29): 1}, {UUID(int=5): [1]}, {frozenset({1}): 1}, {Point(1, 2): 1}),
    *(date.min, date.max, time.min, time.max, time(1, 2, 3, 4, UTC, fold=1), time(1, tzinfo=BERLIN)),
    *(datetime.min, datetime.max, datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)),  # noqa: DTZ901  # naive ones too
    *(datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN), datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, fold=1)),  # noqa: DTZ001
    *(datetime(2024, 1, 1, tzinfo=ODD_ZONE), datetime(2024, 1, 1, tzinfo=NAMED_ZONE)),
    *(timedelta.min, timedelta.max, timedelta(0), timedelta(microseconds=-1), UUID(int=0), UUID(int=2**128 - 1)),
    *(Decimal("1.10"), Decimal("-0"), Decimal("1E+999999"), Decimal("NaN"), Decimal("sNaN12"), Decimal("-Infinity")),
    *(Point(1), Point([1], {"a": 2}), Cart(["x", Point(1)]), Coin((1, 2)), Purse(coins=[Coin(1)]), [Cart([])]),
]


@pytest.mark.parametrize("value", ROUND_TRIPS, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    """Each kind of value keeps its type and equality, at its edges."""
    assert alike(decode(encode(value)), value)


@given(values)
def test_any_value_comes_back_as_it_was(value: Any) -> None:
    """Any composition of the kinds keeps types and equality, and its bytes are the same the second time."""
    data = encode(value)
    again = decode(data)
    assert alike(again, value)
    assert encode(again) == data


@given(st.lists(hashables, max_size=8), st.randoms(use_true_random=False))
def test_equal_sets_give_equal_bytes(items: list[Any], chance: random.Random) -> None:
    """A set is sorted by its bytes: the order in which it was filled does not show."""
    unique = list({encode(item): item for item in items}.values())
    shuffled = chance.sample(unique, len(unique))
    # Of equal items of different types (1, True) a set keeps the first: then the sets differ, and so may the bytes.
    if len(set(unique)) == len(unique):
        assert encode(set(unique)) == encode(set(shuffled))
        assert encode({"s": frozenset(unique)}) == encode({"s": frozenset(shuffled)})


def test_sets_that_iterate_differently_give_equal_bytes() -> None:
    """Two equal sets whose hash tables have another history, and so another order, encode the same."""
    few = {8, 0}
    many = set(range(1_000))
    many -= many - {0, 8}
    assert list(few) != list(many)
    assert encode(few) == encode(many) == encode({0, 8})
    assert encode(few) != encode(frozenset(few))


def test_a_dict_keeps_its_order() -> None:
    """The order of insertion survives, whatever the keys."""
    assert list(decode(encode({"z": 1, "a": 2, "m": 3}))) == ["z", "a", "m"]  # type: ignore[call-overload]  # a dict
    assert list(decode(encode({(9,): 1, "a": 2, 3: ()}))) == [(9,), "a", 3]  # type: ignore[call-overload]  # a dict


def test_keys_that_are_equal_keep_their_types() -> None:
    """1, True and 1.0 are one key to a dict, but the one that is there keeps its type."""
    for key in (1, True, 1.0):
        assert [type(found) for found in decode(encode({key: "x"}))] == [type(key)]  # type: ignore[attr-defined]  # a dict
        assert [type(found) for found in decode(encode({key}))] == [type(key)]  # type: ignore[attr-defined]  # a set


def test_a_decimal_does_not_depend_on_its_context() -> None:
    """Neither precision nor traps nor the letter of the exponent in force change the bytes or the value."""
    number = Decimal("1.234567890123456789E+30")
    data = encode(number)
    with localcontext(Context(prec=3, capitals=0, traps=[])):
        assert encode(number) == data
        assert repr(decode(data)) == repr(number).replace("E", "e")
        with pytest.raises(DecodeError):
            decode(data.replace(b"E", b"x"))


# -- what is refused -----------------------------------------------------------------------------------------------------

two = namedtuple("two", "a b")  # noqa: PYI024  # the other kind of named tuple

REFUSED = [
    (
        Plain(),
        "object of type Plain cannot be kept in a session; store plain data, or make it a dataclass and register it",
    ),
    (Stranger(), "object of type Stranger cannot be kept in a session; register(Stranger) or store plain data"),
    (Colour.RED, "object of type Colour cannot be kept in a session; store its .value"),
    (Level.LOW, "object of type Level cannot be kept in a session; store its .value"),
    (Word.YES, "object of type Word cannot be kept in a session; store its .value"),
    (Text("x"), "object of type Text cannot be kept in a session; convert it to str"),
    (OrderedDict(a=1), "object of type OrderedDict cannot be kept in a session; convert it to dict"),
    (defaultdict(int), "object of type defaultdict cannot be kept in a session; convert it to dict"),
    (Counter("a"), "object of type Counter cannot be kept in a session; convert it to dict"),
    (Pair(1, 2), "object of type Pair cannot be kept in a session; convert it to tuple"),
    (two(1, 2), "object of type two cannot be kept in a session; convert it to tuple"),
    (bytearray(b"x"), "object of type bytearray cannot be kept in a session; convert it to bytes"),
    (memoryview(b"x"), "object of type memoryview cannot be kept in a session; convert it to bytes"),
    (1j, "object of type complex cannot be kept in a session"),
    (msgspec.Raw(b"\x01"), "object of type Raw cannot be kept in a session"),
    (msgspec.msgpack.Ext(1, b""), "object of type Ext cannot be kept in a session"),
    (int, "object of type type cannot be kept in a session"),
    ((n for n in "a"), "object of type generator cannot be kept in a session"),
    ("\ud800", "str with a lone surrogate is no Unicode text; store it as bytes"),
    (
        datetime(2024, 1, 1, tzinfo=Offset()),
        "time zone of type Offset cannot be kept; use zoneinfo.ZoneInfo with a key",
    ),
    (time(1, tzinfo=timezone(timedelta(0), "\udcff")), "str with a lone surrogate"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_what_would_not_survive_is_refused(value: Any, message: str) -> None:
    """A subclass never becomes its base and a stranger never a dict: the type and the remedy are named."""
    with pytest.raises(EncodeError) as caught:
        encode(value)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [value for value, _ in REFUSED], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda value: [0, value], "[1]: "),
        (lambda value: (0, 1, value), "[2]: "),
        (lambda value: {"price": value}, "['price']: "),
        (lambda value: [1, {"a": (value,)}], "[1]['a'][0]: "),
        (lambda value: Cart([value]), ".items[0]: "),
        (lambda value: Purse(coins=[2**99, Point(value)]), ".coins[1].x: "),
        (lambda value: [{(1,): "x", 2: value}], "[0][2]: "),
    ],
)
def test_a_refusal_says_where(value: Any, wrap: Any, path: str) -> None:
    """In any kind of container the refused value is found, and the path to it begins the message."""
    with pytest.raises(EncodeError) as caught:
        encode(wrap(value))
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize("value", [Colour.RED, Level.LOW, Text("x"), Pair(1, 2), "\ud800"])
def test_a_refused_key_or_item_of_a_set(value: Any) -> None:
    """Keys and items of sets are held to the same types."""
    for container, path in (
        ({"a": 1, value: 2}, ".keys()[1]: "),
        ({value}, "{*}: "),
        ([frozenset({value})], "[0]{*}: "),
    ):
        with pytest.raises(EncodeError) as caught:
            encode(container)
        assert str(caught.value).startswith(path)


def nested(depth: int, kind: Any = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"k": value} if kind is dict else Cart([value]) if kind is Cart else kind([value])
    return value


@pytest.mark.parametrize(("kind", "per_level"), [(list, 1), (tuple, 1), (dict, 1), (frozenset, 1), (Cart, 2)])
def test_depth_is_bounded(kind: Any, per_level: int) -> None:
    """As deep as allowed comes back; one deeper is refused, and so are bytes that say it."""
    deepest = nested(DEPTH_MAX // per_level, kind)
    assert alike(decode(encode(deepest)), deepest)
    with pytest.raises(EncodeError, match="more than 32 containers"):
        encode(nested(DEPTH_MAX // per_level + 1, kind))


@pytest.mark.parametrize("kind", [list, tuple, dict, frozenset, Cart])
def test_depth_is_not_breadth(kind: Any) -> None:
    """However many containers stand beside each other, they count as one level, and leave the bound where it was."""
    siblings = [nested(2, kind) for _ in range(2 * DEPTH_MAX)]
    assert alike(decode(encode(siblings)), siblings)
    with pytest.raises(EncodeError, match="more than 32 containers"):
        encode([*siblings, nested(DEPTH_MAX, kind)])


def test_cycles_and_explosions_end() -> None:
    """A container that holds itself, and one that unfolds into 2 to the 30 items, are refused at once."""
    cycle: list[Any] = []
    cycle.append(cycle)
    ring: dict[str, Any] = {"a": [1]}
    ring["a"].append((ring,))
    for value in (cycle, ring):
        with pytest.raises(EncodeError, match="contains itself"):
            encode(value)
    bomb: Any = [1, 1]
    for _ in range(30):
        bomb = [bomb, bomb]
    with pytest.raises(EncodeError, match="more than 2031616 items"):
        encode(bomb)


def test_as_many_items_as_bytes_are_let_in() -> None:
    """Each takes a byte at least: the bound on items is the one on bytes, and the size has the last word."""
    with pytest.raises(EncodeError, match="over the limit of 2031616"):
        encode([None] * VALUE_BYTES_MAX)
    with pytest.raises(EncodeError, match="more than 2031616 items"):
        encode([None] * (VALUE_BYTES_MAX + 1))


def test_only_ints_beyond_64_bits_take_more_than_msgpack_does() -> None:
    """Beside a long one each is looked at, and those that fit stay what they are; a long one takes no byte too many."""
    fitting = [-(2**63), -(2**63) + 1, -(2**40), -1, 0, 2**64 - 1]
    assert len(encode([2**64, *fitting])) == 1 + len(encode(2**64)) + sum(len(encode(each)) for each in fitting)
    assert [len(encode(each)) for each in (-(2**63), 2**64 - 1)] == [9, 9]
    assert [len(encode(each)) for each in (2**64, 2**71 - 1, 2**71, -(2**63) - 1)] == [12, 12, 13, 12]
    assert decode(encode([2**64, *fitting])) == [2**64, *fitting]


@pytest.mark.parametrize(
    "value", ["x" * 100, b"x" * 100, ["x" * 50, "y" * 50], 2**1_000, ("x" * 100,), Point("x" * 100)]
)
def test_size_is_bounded_both_ways(value: Any) -> None:
    """The limit is on the encoded bytes, inclusive, and decoding keeps it too."""
    data = encode(value)
    assert encode(value, bytes_max=len(data)) == data
    assert alike(decode(data, bytes_max=len(data)), value)
    with pytest.raises(EncodeError, match=f"{len(data)} bytes"):
        encode(value, bytes_max=len(data) - 1)
    with pytest.raises(DecodeError, match=f"{len(data)} bytes"):
        decode(data, bytes_max=len(data) - 1)


def test_the_largest_size_without_asking() -> None:
    """Without a limit given, one MiB is the limit."""
    header = 5
    assert len(encode("x" * (VALUE_BYTES_MAX - header))) == VALUE_BYTES_MAX
    with pytest.raises(EncodeError, match="over the limit of 2031616"):
        encode("x" * VALUE_BYTES_MAX)
    with pytest.raises(DecodeError, match="over the limit of 2031616"):
        decode(b"\xc0" * (VALUE_BYTES_MAX + 1))


def test_an_object_that_is_not_complete() -> None:
    """An object that lacks one of its fields is refused, with its place."""
    point = object.__new__(Point)
    with pytest.raises(EncodeError, match=r"^\[0\]: object of type Point is not complete"):
        encode([point])


# -- mutability ----------------------------------------------------------------------------------------------------------

MUTABLE = [
    [],
    {},
    set(),
    [1],
    ([],),
    (1, (2, [3])),
    Cart([]),
    Purse(coins=[]),
    Point([1]),
    Coin({}),
    (Cart([]),),
    Plain(),
    bytearray(),
]
IMMUTABLE = [
    *(
        None,
        True,
        1,
        2**99,
        1.5,
        "a",
        b"a",
        (),
        (1, ("a",)),
        frozenset({1, (2,)}),
        Point(1, (2,)),
        Coin("x"),
        (Point(1),),
    ),
    *(Decimal(1), UUID(int=1), datetime(2024, 1, 1, tzinfo=UTC), date(2024, 1, 1), time(1), timedelta(1)),
]


@pytest.mark.parametrize("value", MUTABLE, ids=repr)
def test_what_could_change_is_mutable(value: Any) -> None:
    """Lists, dicts, sets, objects that are not frozen, strangers, and whatever holds one of these."""
    assert is_mutable(value) is True


@pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
def test_what_could_not_change_is_not(value: Any) -> None:
    """Plain values, and tuples, frozensets and frozen objects of nothing else."""
    assert is_mutable(value) is False


def change(value: Any) -> None:
    """Change the innermost mutable of a value in place."""
    match value:
        case {"in": inner} | (inner,) | Point(x=inner):
            change(inner)
        case list():
            value.append(None)
        case set():
            value.add(2)
        case dict():
            value["new"] = 1
        case Cart():
            value.owner += "!"
        case Purse():
            value.coins = [1]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {1},
        {},
        Cart([]),
        Purse(coins=[]),
        {"in": []},
        {"in": {"in": {0, "a"}}},
        ([],),
        [{}],
        Point(Cart([])),
        (({1: 2},),),
    ],
    ids=repr,
)
def test_a_change_in_place_shows_in_the_bytes(value: Any) -> None:
    """What is mutable and was changed encodes differently, and what was not, the same: so a commit notices."""
    assert is_mutable(value)
    before = encode(value)
    assert encode(value) == before
    change(value)
    assert encode(value) != before
