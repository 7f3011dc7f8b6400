"""A field that this server cannot read stays as it is: reading it raises an error that names it, and everything else works.

During a rolling deployment a newer server writes objects of a class, or values of a type, that an older one does not know.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from sessile import codec
from sessile.classes import BY_CLASS, BY_NAME, register
from sessile.errors import DecodeError, FieldUnreadable, SessionError, SessionTooLarge
from sessile.record import REMOVED, Record
from sessile.session import Session
from tests.asgi_client import wrapped
from tests.fakes import ELSEWHERE, FakeBrowser, encoded, make_engine, make_pair, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.engine import Engine


@dataclasses.dataclass
class Coupon:
    code: str


def of_a_new_class() -> bytes:
    """What a server writes that has registered a class which this one does not know."""
    register(Coupon)
    try:
        return codec.encode([Coupon("SUMMER")])
    finally:
        del BY_CLASS[Coupon], BY_NAME["Coupon"]


UNREADABLE = pytest.mark.parametrize(
    "data",
    [of_a_new_class(), msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"x")), b"\xc1"],
    ids=["a class", "a type", "no value"],
)


def written_elsewhere(browser: FakeBrowser, values: dict[str, bytes], engine: Engine | None = None) -> None:
    """Another server writes these fields to the browser's session, and this one gets the record."""
    engine = engine or browser.engine
    held = engine._held(browser.key)
    assert held is not None
    engine._merge_in(browser.key, held.write(ELSEWHERE, values, now_ms=held.touched_ms)[0])


def value_of(engine: Engine, key: bytes, name: str) -> bytes:
    held = engine.table.get(key)
    assert held is not None
    return Record.unpack(held).fields[name].value


def a_browser() -> FakeBrowser:
    return settled(make_engine(), a=1, n=1)


@UNREADABLE
def test_reading_it_names_it(data: bytes) -> None:
    """Whichever way it is read; the error is one line, and tells what to do."""
    browser = a_browser()
    written_elsewhere(browser, {"coupon": data})
    session = browser.open()
    reads: list[Any] = [
        lambda: session["coupon"],
        lambda: session.get("coupon"),
        lambda: session.setdefault("coupon", []),
        lambda: session.pop("coupon"),
        lambda: session.increment("coupon"),
        lambda: dict(session),
    ]
    for read in reads:
        with pytest.raises(FieldUnreadable, match=r"^session\['coupon'\] .*sessile\.classes\.register") as raised:
            read()
        assert raised.value.name == "coupon" and "\n" not in str(raised.value)
    assert isinstance(raised.value, SessionError) and isinstance(raised.value, DecodeError)
    browser.finish(session)
    assert value_of(browser.engine, browser.key, "coupon") == data


@UNREADABLE
def test_everything_else_works(data: bytes) -> None:
    """Names, other fields, repr; writes, removals and increments of others, in one request and beside it."""
    browser = a_browser()
    written_elsewhere(browser, {"coupon": data})
    session = browser.open()
    assert (list(session), len(session), "coupon" in session) == (["a", "n", "coupon"], 3, True)
    assert repr(session).endswith("3 fields>") and not session.modified
    session["b"] = [2]
    session["b"].append(3)
    del session["a"]
    session.increment("n")
    with browser.request() as beside:
        beside.increment("n")
    browser.finish(session)
    session = browser.open()
    assert (sorted(session), session["b"], session["n"]) == (["b", "coupon", "n"], [2, 3], 3)
    assert value_of(browser.engine, browser.key, "coupon") == data


@UNREADABLE
@pytest.mark.parametrize("verb", [Session.rotate, lambda session: session.login("ann")], ids=["rotate", "login"])
def test_it_goes_over_to_a_new_id(data: bytes, verb: Any) -> None:
    """With the same bytes, which the server that knows them reads."""
    browser = a_browser()
    written_elsewhere(browser, {"coupon": data})
    session = browser.open()
    session.increment("n")
    verb(session)
    browser.finish(session)
    assert value_of(browser.engine, browser.key, "coupon") == data
    assert browser.open()["n"] == 2


@UNREADABLE
def test_another_user_may_keep_it(data: bytes) -> None:
    """Although it cannot be read here, before and after."""
    browser = a_browser()
    with browser.request() as session:
        session.login("ann")
    written_elsewhere(browser, {"coupon": data})
    session = browser.open()
    session.login("bob", keep=["coupon"])
    assert list(session) == ["coupon"]
    for _ in range(2):
        with pytest.raises(FieldUnreadable):
            session["coupon"]
        browser.finish(session)
        session = browser.open()
    assert value_of(browser.engine, browser.key, "coupon") == data


@UNREADABLE
def test_it_may_be_replaced_and_removed(data: bytes) -> None:
    """What it was is of no account then."""
    browser = a_browser()
    changes: list[Any] = [lambda session: session.update(coupon=1), lambda session: session.__delitem__("coupon")]
    for change in changes:
        written_elsewhere(browser, {"coupon": data})
        with browser.request() as session:
            change(session)
        assert browser.look().get("coupon", 1) == 1


@UNREADABLE
def test_a_session_that_holds_it_may_be_cleared(data: bytes) -> None:
    """Found by an attack: half of the fields were removed, an error raised, and what was left of it kept."""
    browser = settled(make_engine(), z=1)
    written_elsewhere(browser, {"coupon": data, "a": codec.encode(1)})
    with browser.request() as session:
        session["new"] = 1
        session.clear()
        assert not session
    assert browser.look() == {}


@UNREADABLE
def test_it_is_not_taken_out_unread(data: bytes) -> None:
    """`pop` and `popitem` have to give the value: they raise, and it stays."""
    browser = settled(make_engine(), a=1)
    written_elsewhere(browser, {"coupon": data})
    session = browser.open()
    del session["a"]
    takes: list[Any] = [lambda: session.pop("coupon"), lambda: session.pop("coupon", None), session.popitem]
    for take in takes:
        with pytest.raises(FieldUnreadable):
            take()
        assert list(session) == ["coupon"] and session.take().values == {"a": REMOVED}


@UNREADABLE
@pytest.mark.parametrize("verb", [len, Session.rotate], ids=["write", "rotate"])
def test_what_was_a_counter_may_become_unreadable_meanwhile(data: bytes, verb: Any) -> None:
    """The increment becomes an assignment of what the handler saw, as where a parallel request made it a text."""
    browser = a_browser()
    session = browser.open()
    session.increment("n")
    session.increment("m")
    written_elsewhere(browser, {"n": data} | encoded(b=1))
    verb(session)
    browser.finish(session)
    assert browser.look() == {"a": 1, "n": 2, "m": 1, "b": 1}


@UNREADABLE
def test_counts_added_to_it_elsewhere_do_no_harm(data: bytes) -> None:
    """A record may hold both: whoever cannot read the value cannot tell the sum, and a rotation keeps the value."""
    browser = a_browser()
    held = browser.engine._held(browser.key)
    assert held is not None
    record, _ = held.write(ELSEWHERE, {"coupon": data}, now_ms=held.touched_ms)
    record, _ = record.write(ELSEWHERE, {}, {"coupon": 5}, now_ms=held.touched_ms)
    browser.engine._merge_in(browser.key, record)
    session = browser.open()
    with pytest.raises(FieldUnreadable):
        session["coupon"]
    session.rotate()
    browser.finish(session)
    assert value_of(browser.engine, browser.key, "coupon") == data


COLLECTIONS = pytest.mark.parametrize("fill", [Session.add_to, Session.append_to], ids=["set", "list"])


def with_items(fill: Any) -> FakeBrowser:
    """A browser of a user, in whose session another server has put a coupon into a collection."""
    browser = settled(make_engine(), a=1)
    with browser.request() as session:
        session.login("ann")
        fill(session, "coupons", "mine")
    register(Coupon)
    try:
        with browser.request() as session:
            fill(session, "coupons", Coupon("SUMMER"))
    finally:
        del BY_CLASS[Coupon], BY_NAME["Coupon"]
    return browser


def read_anew(browser: FakeBrowser) -> Any:
    """What a server reads that knows the class."""
    register(Coupon)
    try:
        return browser.look()["coupons"]
    finally:
        del BY_CLASS[Coupon], BY_NAME["Coupon"]


@COLLECTIONS
def test_an_item_makes_its_collection_unreadable(fill: Any) -> None:
    """It names the collection; items may be added all the same, and everything else works."""
    browser = with_items(fill)
    session = browser.open()
    for read in (lambda: session["coupons"], lambda: dict(session)):
        with pytest.raises(FieldUnreadable, match=r"^session\['coupons'\] .*sessile\.classes\.register") as raised:
            read()
        assert raised.value.name == "coupons" and "\n" not in str(raised.value)
    assert (list(session), session["a"], "coupons" in session) == (["a", "coupons"], 1, True)
    fill(session, "coupons", "new")
    session["a"] = 2
    browser.finish(session)
    assert read_anew(browser) == ("mine", Coupon("SUMMER"), "new")


@COLLECTIONS
@pytest.mark.parametrize(
    "verb",
    [Session.rotate, lambda session: session.login("ann"), lambda session: session.login("bob", keep=["coupons"])],
    ids=["rotate", "login", "keep"],
)
def test_items_go_over_to_a_new_id(fill: Any, verb: Any) -> None:
    """As they are, and in their order."""
    browser = with_items(fill)
    session = browser.open()
    verb(session)
    fill(session, "coupons", "new")
    browser.finish(session)
    assert read_anew(browser) == ("mine", Coupon("SUMMER"), "new")


@COLLECTIONS
def test_a_collection_with_such_items_may_be_replaced_and_removed(fill: Any) -> None:
    """And leaves none of them behind."""
    changes: list[Any] = [lambda session: session.update(coupons=1), lambda session: session.__delitem__("coupons")]
    for change in changes:
        browser = with_items(fill)
        with browser.request() as session:
            change(session)
        assert browser.look().get("coupons", 1) == 1
        held = browser.engine._held(browser.key)
        assert held is not None and held.fields.keys() <= {"a", "coupons"}


def test_a_list_of_unreadable_items_is_cut_short() -> None:
    """`keep` removes the oldest items, whether or not they can be read."""
    browser = with_items(Session.append_to)
    with browser.request() as session:
        session.append_to("coupons", "new", keep=2)
    assert read_anew(browser) == (Coupon("SUMMER"), "new")
    with browser.request() as session:
        session.append_to("coupons", "newer", keep=1)
    assert browser.look()["coupons"] == ("newer",)


def test_other_servers_get_it_as_it_is() -> None:
    """A server that cannot read a field passes it on: its own writes build on the record that has it."""
    data = of_a_new_class()
    backend, engine = make_pair()
    browser = FakeBrowser(engine)
    with browser.request() as session:
        session["a"] = 1
    written_elsewhere(browser, {"coupon": data})
    with browser.request() as session:
        session["a"] = 2
        session.rotate()
    assert backend.records[browser.key].fields["coupon"].value == data


def test_a_request_that_does_not_read_it_is_answered() -> None:
    """And one that does is the application's error, which its framework shows."""
    engine = make_engine()

    def do(session: Session) -> None:
        session["seen"] = session.get("seen", 0) + 1
        if session["seen"] == 3:
            session["coupon"]

    browser = wrapped(do, engine=engine)
    browser.ask()
    (key,) = engine.table
    held = engine._held(key)
    assert held is not None
    engine._merge_in(key, held.write(ELSEWHERE, {"coupon": of_a_new_class()}, now_ms=held.touched_ms)[0])
    assert browser.ask().status == 200
    assert isinstance(browser.ask().raised, FieldUnreadable)


# -- a class with more fields than when the object was stored -----------------------------------------------------------


@dataclasses.dataclass
class Cart:
    items: list[str]


@dataclasses.dataclass
class LaterCart:
    items: list[str]
    currency: str = "EUR"


@contextmanager
def known_as_cart(cls: type) -> Iterator[None]:
    register(cls, name="Cart")
    try:
        yield
    finally:
        del BY_CLASS[cls], BY_NAME["Cart"]


def with_a_cart(**more: Any) -> FakeBrowser:
    """A browser in whose session an earlier release has put a cart."""
    with known_as_cart(Cart):
        return settled(make_engine(), cart=Cart(["tea"]), **more)


def test_a_value_that_is_only_read_is_no_change_whatever_its_class_has_become() -> None:
    """Found by an attack: a request that only read the field overwrote what another one had assigned meanwhile."""
    browser = with_a_cart(carts=[1])
    with known_as_cart(LaterCart):
        reader, beside = browser.open(), browser.copy()
        for _ in range(2):
            assert reader["cart"] == LaterCart(["tea"]) and not reader.modified
        with beside.request() as session:
            session["cart"] = LaterCart(["milk"], "GBP")
        browser.finish(reader)
        assert browser.look()["cart"] == LaterCart(["milk"], "GBP")


def test_a_value_of_a_later_class_that_is_changed_in_place_is_kept() -> None:
    """And what it got with the class goes with it."""
    browser = with_a_cart()
    with known_as_cart(LaterCart):
        with browser.request() as session:
            session["cart"].items.append("milk")
            assert session.modified
        with browser.request() as session:
            session["cart"].currency = "GBP"
        assert browser.look()["cart"] == LaterCart(["tea", "milk"], "GBP")


def test_a_read_only_session_may_be_read_by_a_later_class() -> None:
    """In the grace after a rotation a look changes nothing, and is answered."""
    browser = with_a_cart()
    slow = browser.copy()
    with browser.request() as session:
        session.rotate()
    with known_as_cart(LaterCart):
        session = slow.open()
        assert session.read_only and session["cart"] == LaterCart(["tea"])
        slow.finish(session)


def test_servers_of_a_later_class_that_convert_the_same_list_do_not_double_it() -> None:
    """The list is as it was stored, though its encoding is another one here."""
    browser = with_a_cart()
    with known_as_cart(Cart), browser.request() as session:
        session["carts"] = [Cart(["tea"])]
    with known_as_cart(LaterCart):
        first, second = browser.copy(), browser.copy()
        one, other = first.open(), second.open()
        one.append_to("carts", 1)
        other.append_to("carts", 2)
        first.finish(one)
        second.finish(other)
        assert sorted(map(str, browser.look()["carts"])) == ["1", "2", str(LaterCart(["tea"]))]


def test_limits_that_were_lowered_refuse_changes_alone() -> None:
    """Found by an attack: a request that only read a value over the new limit was refused at its end."""
    backend, engine = make_pair()
    browser = settled(engine, large=["x" * 500], small=[1])
    limits: dict[str, Any] = {"value_bytes_max": 100, "session_bytes_max": 100, "fields_max": 1}
    lowered = make_engine(backend=backend, seed=2, **limits)
    session = browser.open(lowered)
    assert (len(session["large"]), session["small"], session.modified) == (1, [1], False)
    browser.finish(session, lowered)
    session = browser.open(lowered)
    session["large"].append("y")
    with pytest.raises(SessionTooLarge, match="value_bytes_max"):
        browser.finish(session, lowered)
