"""Values of every kind that a session keeps, for the tests of `sessile.codec`; and whether two are really the same."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import strategies as st

from sessile.classes import BY_CLASS
from sessile.codec import encode, register

if TYPE_CHECKING:
    from collections.abc import Callable


@register(name="codec-test-point")
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = 0


@register(name="codec-test-cart")
@dataclasses.dataclass
class Cart:
    items: list[Any]
    owner: str = "nobody"


@register(name="codec-test-coin")
class Coin(msgspec.Struct, frozen=True):
    value: Any


@register(name="codec-test-purse")
class Purse(msgspec.Struct, kw_only=True):
    coins: list[Any]


BERLIN = ZoneInfo("Europe/Berlin")
ODD_ZONE = timezone(timedelta(hours=-3, minutes=-7, microseconds=5))
NAMED_ZONE = timezone(timedelta(hours=9), "Seoul")


def alike(left: Any, right: Any) -> bool:
    """Whether two values are equal and of the same types, down to the sign of zero, the zone and the fold."""
    same = ALIKE.get(type(left))
    return type(left) is type(right) and bool(left == right if same is None else same(left, right))


def alike_all(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(map(alike, left, right))


def alike_times(left: Any, right: Any) -> bool:
    same_clock = left.replace(tzinfo=None) == right.replace(tzinfo=None) and left.fold == right.fold
    return same_clock and repr(left.tzinfo) == repr(right.tzinfo)


def alike_sets(left: Any, right: Any) -> bool:
    return alike_all(sorted(left, key=encode), sorted(right, key=encode))


def alike_objects(left: Any, right: Any) -> bool:
    names = BY_CLASS[type(left)].fields
    return all(alike(getattr(left, name), getattr(right, name)) for name in names)


ALIKE: dict[type, Callable[[Any, Any], bool]] = {
    float: lambda left, right: repr(left) == repr(right),
    Decimal: lambda left, right: repr(left) == repr(right),
    **dict.fromkeys((datetime, time), alike_times),
    **dict.fromkeys((list, tuple), alike_all),
    dict: lambda left, right: alike_all(list(left.items()), list(right.items())),
    **dict.fromkeys((set, frozenset), alike_sets),
    **dict.fromkeys((Point, Cart, Coin, Purse), alike_objects),
}


zones = st.sampled_from([None, UTC, ODD_ZONE, NAMED_ZONE, BERLIN, ZoneInfo("UTC"), ZoneInfo("America/St_Johns")])
folds = st.integers(0, 1)
characters = st.characters(exclude_categories=["Cs"])
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.builds(lambda bits, low: -(2**bits) + low, st.integers(60, 4_096), st.integers(-2, 2)),
    st.builds(lambda bits, low: 2**bits + low, st.integers(60, 4_096), st.integers(-2, 2)),
    st.floats(),
    st.text(characters),
    st.binary(),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=True, allow_infinity=True).filter(lambda number: not number.is_snan()),
    st.builds(lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold), st.datetimes(), zones, folds),
    st.builds(lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold), st.times(), zones, folds),
)


@st.composite
def atoms(draw: st.DrawFn) -> Any:
    """A value that holds no other; a function of its own, so that a failure does not print all of the above."""
    return draw(ATOMS)


hashables = st.recursive(
    atoms(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Coin, inner),
    ),
    max_leaves=8,
)
values = st.recursive(
    hashables,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(hashables, inner, max_size=5),
        st.dictionaries(st.text(characters), inner, max_size=5),
        st.sets(hashables, max_size=5),
        st.builds(Point, inner),
        st.builds(Cart, st.lists(inner, max_size=3), st.text(characters)),
        st.builds(lambda coins: Purse(coins=coins), st.lists(inner, max_size=3)),
    ),
    max_leaves=20,
)
