from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from sessile import classes
from sessile.classes import BY_CLASS, BY_NAME, register
from sessile.codec import decode, encode
from sessile.errors import DecodeError, EncodeError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    by_class, by_name = dict(BY_CLASS), dict(BY_NAME)
    yield
    for cls in BY_CLASS.keys() - by_class.keys():
        del BY_CLASS[cls]
    for name in BY_NAME.keys() - by_name.keys():
        del BY_NAME[name]


@dataclasses.dataclass
class Money:
    amount: int
    currency: str = "EUR"


@dataclasses.dataclass(frozen=True)
class Visit:
    page: str
    seen: list[str] = dataclasses.field(default_factory=list)


class Seat(msgspec.Struct):
    row: int
    number: int = 1


def test_the_three_ways_to_register() -> None:
    """As a decorator, as one with a name, and as a function; the class comes back as it is."""

    @register
    @dataclasses.dataclass
    class First:
        x: int

    @register(name="second-class")
    @dataclasses.dataclass
    class Second:
        x: int

    assert register(Money) is Money
    for cls, name in ((First, First.__qualname__), (Second, "second-class"), (Money, "Money")):
        assert BY_CLASS[cls].name == name
        again: Any = decode(encode(cls(5)))
        assert again == cls(5)
        assert type(again) is cls


def test_the_same_class_may_be_registered_twice() -> None:
    """Once more under the same name changes nothing."""
    register(Money)
    assert register(Money) is Money
    assert BY_NAME["Money"].cls is Money


def test_a_name_belongs_to_one_class() -> None:
    """A second class of a name is refused, and the first stays; a second name for a class likewise."""
    register(Money)
    with pytest.raises(SettingsError, match=r"test_classes\.Money is registered as 'Money' already"):
        register(Seat, name="Money")
    assert BY_NAME["Money"].cls is Money
    assert Seat not in BY_CLASS
    with pytest.raises(SettingsError, match="is registered as 'Money' already; give each class one name of its own"):
        register(Money, name="cash")
    assert "cash" not in BY_NAME


class Bare:
    """Neither a dataclass nor a Struct."""


class Inherits(Money):
    """A dataclass's subclass that is none itself: what it adds would be lost."""


@dataclasses.dataclass
class IsAList(list[int]):
    x: int = 1


@dataclasses.dataclass
class Abstract(abc.ABC):
    @abc.abstractmethod
    def method(self) -> None: ...


@pytest.mark.parametrize("cls", [Bare, Inherits, IsAList, Abstract, int, 5, "Money", None.__class__, Money(1)])
def test_what_is_more_than_its_fields_is_refused(cls: Any) -> None:
    """A class whose objects cannot be made from fields alone is refused when it is registered."""
    with pytest.raises(SettingsError, match=r"^register\("):
        register(cls)


def test_a_subclass_is_not_its_base() -> None:
    """An object of a subclass of a registered class is refused, until its own class is registered."""
    register(Money)

    @dataclasses.dataclass
    class Tip(Money):
        waiter: str = ""

    with pytest.raises(EncodeError, match=r"register\(.*Tip\) or store plain data"):
        encode(Tip(5))
    register(Tip)
    assert decode(encode(Tip(5, "EUR", "Ada"))) == Tip(5, "EUR", "Ada")


def test_fields_that_init_does_not_take() -> None:
    """An object is put together as it was, without its `__init__` and `__post_init__`."""
    calls = []

    @register
    @dataclasses.dataclass
    class Counted:
        start: int
        total: int = dataclasses.field(init=False)
        extra: dataclasses.InitVar[int] = 0

        def __post_init__(self, extra: int) -> None:
            calls.append(extra)
            self.total = self.start * 2 + extra

    one = Counted(1, 10)
    one.total += 1
    again: Any = decode(encode(one))
    assert (again.start, again.total) == (1, 13)
    assert calls == [10]


@pytest.mark.parametrize(
    "options", [{"frozen": True}, {"slots": True}, {"frozen": True, "slots": True}, {"kw_only": True}]
)
def test_every_sort_of_dataclass(options: dict[str, Any]) -> None:
    """Frozen, slotted and keyword-only ones come back equal, and frozen ones still are."""
    cls = dataclasses.make_dataclass(
        "Made", [("x", int), ("y", list[int], dataclasses.field(default_factory=list))], **options
    )
    register(cls)
    assert decode(encode(cls(x=1, y=[2]))) == cls(x=1, y=[2])
    assert BY_CLASS[cls].is_frozen is options.get("frozen", False)


@pytest.mark.parametrize(
    "options", [{"frozen": True}, {"kw_only": True}, {"array_like": True}, {"tag": "t"}, {"rename": "camel"}]
)
def test_every_sort_of_struct(options: dict[str, Any]) -> None:
    """How msgspec would write a Struct itself does not matter here."""
    cls = msgspec.defstruct("Made", [("first_name", str), ("tags", set[str])], **options)
    register(cls)
    assert decode(encode(cls(first_name="Ada", tags={"a"}))) == cls(first_name="Ada", tags={"a"})
    assert BY_CLASS[cls].is_frozen is options.get("frozen", False)


def swap(old: type, new: type, name: str) -> None:
    """A deployment: the name stands for another class from here on."""
    del BY_CLASS[old]
    del BY_NAME[name]
    register(new, name=name)


def test_a_class_may_get_more_fields() -> None:
    """What an older version wrote gets the defaults of fields that are new; without a default it is one error."""
    register(Money, name="it")
    register(Seat, name="seat")
    money, seat = encode(Money(5)), encode(Seat(5))
    more = [
        ("tags", list[str], dataclasses.field(default_factory=list)),
        ("rate", float, dataclasses.field(default=1.0)),
    ]
    newer: Any = dataclasses.make_dataclass("Newer", [("amount", int), ("currency", str), *more])
    swap(Money, newer, "it")
    assert decode(money) == newer(5, "EUR", [], 1.0)
    swap(newer, dataclasses.make_dataclass("Strict", ["amount", "currency", "owner"]), "it")
    with pytest.raises(DecodeError, match="'Strict' lacks the field 'owner', which has no default"):
        decode(money)
    newer_seat = msgspec.defstruct("NewerSeat", [("row", int), ("number", int), ("hall", str, "A")])
    swap(Seat, newer_seat, "seat")
    assert decode(seat) == newer_seat(5, 1, "A")
    swap(newer_seat, msgspec.defstruct("StrictSeat", ["row", "number", "owner"]), "seat")
    with pytest.raises(DecodeError, match="'StrictSeat' cannot be made"):
        decode(seat)


def test_a_field_that_is_not_known_here_is_not_dropped() -> None:
    """What a newer version wrote is refused by an older one, which would otherwise write it back without the field."""
    newer = dataclasses.make_dataclass("Newer", ["amount", "currency", "owner"])
    register(newer, name="it")
    data = encode(newer(1, "EUR", "Ada"))
    swap(newer, Money, "it")
    with pytest.raises(DecodeError, match="'it' has the field 'owner', which the class here has not"):
        decode(data)


def test_defaults_are_not_shared() -> None:
    """A default that is made anew for each object is made anew by decoding too."""
    register(Visit)
    assert classes.BY_CLASS[Visit].build({"page": "/"}) == Visit("/")
    first, second = (BY_CLASS[Visit].build({"page": "/"}) for _ in range(2))
    assert first.seen is not second.seen  # type: ignore[attr-defined]  # two Visits


def test_a_structs_post_init_may_refuse() -> None:
    """A Struct is made by its constructor; what that refuses is a decoding error."""

    @register
    class Even(msgspec.Struct):
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("odd")

    data = encode(Even(2))
    assert decode(data) == Even(2)
    with pytest.raises(DecodeError):
        decode(data[:-1] + b"\x03")
