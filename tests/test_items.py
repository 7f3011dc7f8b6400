"""Sets and lists that merge: what a handler sees, what is stored, and the laws they keep."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessile import codec, items
from sessile.changes import carried_over, rebased, shown
from sessile.delta import Delta, Outcome, apply
from sessile.errors import DecodeError, EncodeError, FieldUnreadable, SessionRotated, SessionTooLarge, SessionTooLate
from sessile.record import REMOVED, Entry, Record, merge
from sessile.session import Limits, Opened, Session
from tests.fakes import ELSEWHERE, HERE, FakeBrowser, FakeOpener, make_engine, make_record, open_session, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    Do = Callable[[Session], object]

KEY = b"k" * 16
LIMITS = Limits(fields=40, value_bytes=1_000, session_bytes=4_000)

Op = tuple[Any, ...]
VERBS: dict[str, Callable[..., object]] = {
    "add": Session.add_to,
    "discard": Session.discard_from,
    "append": Session.append_to,
    "keep": lambda session, name, value, keep: session.append_to(name, value, keep=keep),
    "set": Session.__setitem__,
    "pop": lambda session, name: session.pop(name, None),
    "extend": lambda session, name, value: session[name].append(value),
}


class Server:
    """One server's copy of a session; each `does` is a request."""

    batches = 0

    def __init__(self, writer: int, record: Record) -> None:
        self.writer = writer
        self.record = record

    def does(self, *ops: Op, seen: Record | None = None) -> Delta:
        """A request that opened the session as it is, or as it was `seen`, and is committed now."""
        Server.batches += 1
        opener = FakeOpener(Opened(seen or self.record, KEY))
        opener.batches = Server.batches * 1_000
        session = Session(opener, LIMITS)
        for verb, *given_ in ops:
            VERBS[verb](session, *given_)
        values, increments = rebased(self.record, session.take(), session.__getitem__)
        before = self.record
        self.record, stamp = before.write(self.writer, values, increments, now_ms=0)
        return Delta.of(self.record, KEY, before, stamp, names=values, counted=increments)

    def takes(self, *others: Server) -> Server:
        for other in others:
            self.record = merge(self.record, other.record)
        return self

    @property
    def fields(self) -> dict[str, Any]:
        return dict(open_session(self.record, limits=LIMITS))


def servers(*writers: int, **values: Any) -> list[Server]:
    record = make_record(values) if values else make_record({"a": 1})
    return [Server(writer, record) for writer in writers]


# -- what a handler sees -----------------------------------------------------------------------------------------------


def test_a_set_holds_each_value_once_in_the_order_of_addition() -> None:
    """It reads as a tuple: iteration, length, membership and JSON are a tuple's."""
    session = open_session()
    for value in ("pear", "apple", "fig", "apple"):
        session.add_to("cart", value)
    assert session["cart"] == ("pear", "fig", "apple")
    assert list(session) == ["cart"] and len(session) == 1 and "cart" in session
    session.discard_from("cart", "fig")
    session.discard_from("cart", "was never there")
    session.discard_from("nothing", 1)
    assert (session["cart"], json.dumps(session["cart"]), "nothing" in session) == (
        ("pear", "apple"),
        '["pear", "apple"]',
        False,
    )
    for value in ("pear", "apple"):
        session.discard_from("cart", value)
    assert session["cart"] == () and "cart" in session, "an empty set is there until it is removed"


def test_a_list_holds_every_value_in_the_order_of_appending() -> None:
    """Equal values count as often as they were appended; `keep` lets the oldest go."""
    session = open_session()
    for value in (3, 1, 3):
        session.append_to("log", value)
    assert session["log"] == (3, 1, 3)
    session.append_to("log", 4, keep=2)
    assert session["log"] == (3, 4)
    session.append_to("log", 5, keep=1)
    assert session["log"] == (5,)


@pytest.mark.parametrize(
    "value",
    ["", "é\0\N{SNOWMAN}", b"\xff\x00", 0, -1, 2**80, 1.5, None, True, (1, "x"), frozenset({1}), [1, [2]], {"sku": 7}],
)
def test_any_value_that_can_be_kept_may_be_an_item(value: object) -> None:
    """It comes back with its type, from a set and from a list, over a commit."""
    (server,) = servers(HERE)
    server.does(("add", "set", value), ("append", "list", value))
    assert server.record == Record.parse(server.record.pack())
    for (item,) in (server.fields["set"], server.fields["list"]):
        assert item == value and type(item) is type(value)
    server.does(("discard", "set", value))
    assert server.fields == {"a": 1, "set": (), "list": (value,)}


def deep(depth: int) -> list[Any]:
    """Lists nested to this depth."""
    made: list[Any] = []
    for _ in range(depth - 1):
        made = [made]
    return made


def test_an_item_may_be_as_deep_as_a_field() -> None:
    """Found by an attack: it was taken, and no later request could read the field, being a tuple more."""
    (server,) = servers(HERE)
    value = deep(codec.DEPTH_MAX)
    server.does(("append", "list", value), ("add", "set", value), ("set", "field", value))
    assert server.fields == {"a": 1, "list": (value,), "set": (value,), "field": value}
    session = open_session(server.record, limits=LIMITS)
    for do in (session.append_to, session.add_to):
        with pytest.raises(EncodeError, match="containers"):
            do("new", deep(codec.DEPTH_MAX + 1))
    session["list"][0].append(1)
    with pytest.raises(EncodeError, match="'list'"):
        session.take()


def test_values_are_told_apart_by_their_type() -> None:
    """What Python takes for equal is not one value."""
    session = open_session()
    for value in (1, True, 1.0, "1", b"1"):
        session.add_to("set", value)
    assert [type(each) for each in session["set"]] == [int, bool, float, str, bytes]
    session.discard_from("set", 1)
    assert len(session["set"]) == 4


def test_a_plain_list_or_set_becomes_a_collection() -> None:
    """A session of an earlier release of the application goes on."""
    record = make_record({"cart": ["b", "a", "b"], "tags": {"y", "x"}, "log": (1, 2), "own": [1]})
    session = open_session(record, limits=LIMITS)
    session.add_to("cart", "c")
    session.add_to("tags", "z")
    session.append_to("log", 3)
    assert (session["cart"], session["tags"], session["log"]) == (("a", "b", "c"), ("x", "y", "z"), (1, 2, 3))
    session["own"].append(2)
    session.append_to("own", 3)
    session["new"] = [1]
    session.add_to("new", 2)
    assert (session["own"], session["new"]) == ((1, 2, 3), (1, 2))
    changes = session.take()
    assert all(changes.values[name] in {items.SET, items.LIST} for name in ("cart", "tags", "log", "own", "new"))


def test_what_a_request_appended_before_a_conversion_stays() -> None:
    """Found by an attack: the conversion began to number anew, and later items replaced those of other collections."""
    (server,) = servers(HERE, plain=[0], pairs=[8, 9])
    server.does(
        *(("append", "log", number) for number in range(6)),
        *(("add", "set", text) for text in ("z", "y")),
        ("add", "pairs", 7),
        ("append", "plain", "x"),
        *(("add", "set", text) for text in ("x", "w")),
        ("append", "plain", "y"),
        *(("append", "log", number) for number in range(6, 9)),
    )
    assert server.fields == {
        "plain": (0, "x", "y"),
        "pairs": (8, 9, 7),
        "log": tuple(range(9)),
        "set": ("z", "y", "x", "w"),
    }


@pytest.mark.parametrize(
    ("do", "says"),
    [
        (lambda session: session.add_to("n", 1), "'n'.*int"),
        (lambda session: session.append_to("n", 1), "'n'.*int"),
        (lambda session: session.discard_from("n", 1), "'n'.*int"),
        (lambda session: session.append_to("tags", 1), "set, not a list"),
        (lambda session: session.append_to("cart", 1), "'cart'.*set that merges, not a list"),
        (lambda session: session.add_to("log", 1), "'log'.*list that merges, not a set"),
        (lambda session: session.increment("cart"), "tuple, not an int"),
        (lambda session: session.append_to("log", 1, keep=0), "keep"),
        (lambda session: session.append_to("log", 1, keep=True), "keep"),
        (lambda session: session.add_to(1, 1), "int"),
    ],
)
def test_what_is_no_collection_of_this_kind_is_refused(do: Callable[[Session], object], says: str) -> None:
    """By a TypeError that names the field; nothing is changed."""
    (server,) = servers(HERE, n=5, tags={1})
    server.does(("add", "cart", 1), ("append", "log", 1))
    session = open_session(server.record)
    with pytest.raises(TypeError, match=says):
        do(session)
    assert not session.take().values


def test_an_item_can_not_be_changed_in_place_without_a_word() -> None:
    """Nobody could tell which item it was: an error at the commit, and no lost change."""
    (server,) = servers(HERE)
    server.does(("add", "cart", {"sku": 1, "n": 1}), ("append", "log", [1]))
    session = open_session(server.record)
    assert session["cart"][0] == {"sku": 1, "n": 1} and not session.take()
    session["cart"][0]["n"] = 2
    with pytest.raises(EncodeError, match=r"'cart'.*discard it and add it anew"):
        session.take()
    session.discard_from("cart", {"sku": 1, "n": 1})
    session.add_to("cart", {"sku": 1, "n": 2})
    assert session["cart"] == ({"sku": 1, "n": 2},) and session.take()


def test_a_name_with_a_nul_names_no_field() -> None:
    """So no name that a stranger chooses is an item's."""
    session = open_session()
    session.add_to("cart", "x")
    item = items.item_of_set("cart", "x", codec.encode("x"))
    with pytest.raises(ValueError, match="printable"):
        session[item] = 1
    with pytest.raises(ValueError, match="printable"):
        session.increment("cart\0sy")
    with pytest.raises(ValueError, match="printable"):
        session.add_to("a\0b", 1)


def test_an_item_is_reached_through_its_collection_alone() -> None:
    """Found by an attack: a name with a NUL read, counted and removed items."""
    (server,) = servers(HERE)
    server.does(("add", "cart", "x"), ("append", "log", 5))
    for session in (open_session(server.record), open_session()):
        session.add_to("cart", "y")
        session.append_to("log", 6)
        before = session.take().values
        for item in [name for name in (*server.record.fields, *before) if "\0" in name]:
            assert item not in session and session.get(item) is None and session.pop(item, None) is None
            session.discard_from(item, 1)
            with pytest.raises(KeyError):
                del session[item]
            for do in (session.add_to, session.append_to, session.__setitem__, session.increment):
                with pytest.raises(ValueError, match="printable"):
                    do(item, 1)
        assert session.take().values == before and not session.take().increments


def test_to_discard_what_is_not_there_leaves_a_plain_list_alone() -> None:
    """Found by an attack: it became a set, without its double values, in another order."""
    session = open_session(make_record({"l": [3, 1, 1, 2]}), limits=LIMITS)
    for value in (99, True, 1.0, "1"):
        session.discard_from("l", value)
    assert session["l"] == [3, 1, 1, 2] and not session.take()
    session.discard_from("l", 1)
    assert session["l"] == (3, 2)


def test_a_refused_addition_does_not_bring_a_removed_field_back() -> None:
    """There is room for the set, and none for its item."""
    limits = Limits(fields=3, value_bytes=100, session_bytes=1_000)
    session = open_session(make_record({"a": 1, "b": 1, "cart": 1}), limits=limits)
    del session["cart"]
    with pytest.raises(SessionTooLarge, match="fields_max"):
        session.add_to("cart", 1)
    assert session.take().values == {"cart": REMOVED} and "cart" not in session


def test_a_set_holds_no_item_of_a_list() -> None:
    """Parallel writes may make a set and a list of one name: each shows its own items."""
    for kind, shown_ in ((items.SET, ("x",)), (items.LIST, (1,))):
        fields = {"c": kind, "c\0sx": codec.encode(0), "c\0lbatch.0": codec.encode(1)}
        record, _ = make_record({}).write(HERE, fields, now_ms=0)
        assert shown(record) == dict(open_session(record)) == {"c": shown_}


# -- plain writes in between ---------------------------------------------------------------------------------------------


def test_an_assignment_replaces_the_items_and_a_removal_removes_them() -> None:
    """Nothing is left of them in the record, whether they were there before the request or not."""
    for change in (("set", "cart", "plain"), ("pop", "cart")):
        (server,) = servers(HERE)
        server.does(("add", "cart", 1), ("add", "cart", 2))
        server.does(("add", "cart", 3), change)
        assert not [name for name in server.record.fields if "\0" in name]
        server.does(("pop", "cart"))
        server.does(("add", "cart", 4))
        assert server.fields["cart"] == (4,)


def test_a_removal_removes_what_a_parallel_request_of_its_server_has_added() -> None:
    """On one server the later counts: what it commits it commits on everything before."""
    (server,) = servers(HERE)
    server.does(("add", "cart", 1))
    seen = server.record
    server.does(("add", "cart", 2))
    server.does(("set", "cart", "plain"), seen=seen)
    assert server.fields["cart"] == "plain"
    server.does(("pop", "cart"))
    assert list(server.record.fields) == ["a"]


def test_a_value_that_a_request_adds_and_discards_is_gone() -> None:
    """Also where a parallel request of the server added it meanwhile: the later counts."""
    (server,) = servers(HERE)
    server.does(("add", "cart", 1))
    seen = server.record
    server.does(("add", "cart", 2))
    server.does(("add", "cart", 2), ("discard", "cart", 2), seen=seen)
    assert server.fields["cart"] == (1,)


def test_of_an_assignment_and_an_addition_in_parallel_the_later_is_read() -> None:
    """As of two assignments. What is hidden comes to light when the other is removed by one who saw it alone."""
    low, high = servers(1, 2)
    low.does(("add", "cart", 1))
    high.does(("set", "cart", "plain"))
    assert low.takes(high).fields["cart"] == high.takes(low).fields["cart"] == "plain"
    low.does(("pop", "cart"))
    assert list(low.record.fields) == ["a"], "whoever removes it has seen both"


# -- parallel requests -----------------------------------------------------------------------------------------------------


def test_parallel_additions_are_all_there() -> None:
    """Of one server, and of several: the cart that lost an item when it was a plain list."""
    one, other, third = servers(1, 2, 3)
    seen = one.record
    for value in ("a", "b"):
        one.does(("add", "cart", value), seen=seen)
    other.does(("add", "cart", "c"))
    third.does(("append", "log", 1), ("append", "log", 2))
    other.does(("append", "log", 3))
    one.takes(other, third)
    third.takes(other, one)
    assert sorted(one.fields["cart"]) == ["a", "b", "c"] and sorted(one.fields["log"]) == [1, 2, 3]
    assert one.fields == third.fields, "the order is the same everywhere"


def test_a_value_that_two_servers_add_stands_where_it_was_added_first() -> None:
    """Found by simulation: its place within the one write was taken for its place within the other."""
    one, other = servers(1, 2)
    one.does(("add", "cart", "z"), ("add", "cart", "a"))
    other.does(("add", "cart", "a"))
    assert one.takes(other).fields["cart"] == ("z", "a")


def test_adding_wins_over_a_parallel_removal() -> None:
    """The value was there; one server adds it again, while another removes it, or the whole set."""
    for removal in (("discard", "cart", 1), ("pop", "cart")):
        adds, removes = servers(1, 2)
        adds.does(("add", "cart", 1), ("add", "cart", 2))
        removes.takes(adds)
        adds.does(("add", "cart", 1))
        removes.does(removal)
        assert adds.takes(removes).fields["cart"] == removes.takes(adds).fields["cart"]
        assert 1 in adds.fields["cart"]


def test_servers_that_convert_the_same_list_do_not_double_it() -> None:
    """Its items have the same names, wherever it becomes a collection."""
    one, other = servers(1, 2, log=["x", "y"], cart=["x"])
    one.does(("append", "log", 1), ("add", "cart", 1))
    other.does(("add", "cart", 2), ("append", "log", 2))
    assert one.takes(other).fields == other.takes(one).fields
    assert (one.fields["log"], one.fields["cart"]) == (("x", "y", 1, 2), ("x", 1, 2))


def test_a_list_that_was_changed_in_place_is_another_list() -> None:
    """Servers that changed it in parallel, each in its way, and then convert it, keep what either put in."""
    one, other = servers(1, 2, own=[1])
    for server, value in ((one, 2), (other, 3)):
        server.does(("extend", "own", value), ("append", "own", 9))
    assert one.takes(other).fields == other.takes(one).fields
    assert sorted(one.fields["own"]) == [1, 1, 2, 3, 9, 9]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Server], list[Delta]]:
    """Three servers on which values were added, removed, assigned and merged, and every write on its way."""
    made = servers(1, 2, 3)
    deltas: list[Delta] = []
    for _ in range(draw(st.integers(0, 14))):
        server, value = made[draw(st.integers(0, 2))], draw(st.integers(0, 3))
        verb = draw(st.sampled_from(["add", "add", "discard", "append", "keep", "set", "pop", "merge", "merge"]))
        if verb == "merge":
            server.takes(made[value % 3])
            continue
        op: Op = (verb, "s", value) if verb in {"add", "discard"} else (verb, "l", value)
        if verb == "keep":
            op = (*op, 2)
        elif verb in {"set", "pop"}:
            op = ("pop", "s") if verb == "pop" else ("set", "s", str(value))
        if op[0] in {"add", "discard"} and type(server.fields.get("s", ())) is not tuple:
            op = ("pop", "s")
        deltas.append(server.does(op))
    return made, deltas


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_collections_keep_the_laws(history: tuple[list[Server], list[Delta]], chance: Any) -> None:
    """Merged in any order, or by deltas, all servers show the same; what is read is what stands in the record."""
    made, waiting = history
    one, two, three = (server.record for server in made)
    left, right = merge(merge(one, two), three), merge(three, merge(two, one))
    assert left.same_state(right) and shown(left) == shown(right)
    assert merge(left, two) == left
    assert shown(left) == dict(open_session(left, limits=LIMITS))
    by_delta: Record | None = servers(1)[0].record
    for _ in range(len(waiting) + 1):
        chance.shuffle(waiting)
        left_over = []
        for delta in waiting:
            outcome, by_delta = apply(by_delta, delta)
            if outcome is Outcome.NEED:
                left_over.append(delta)
        waiting = left_over
    assert not waiting and by_delta is not None and by_delta.same_state(left)
    orphans = [name for name in left.fields if "\0" in name and name.partition("\0")[0] not in left.fields]
    assert not orphans, "an item never outlives its collection"


# -- limits, rotation, the life of a session ---------------------------------------------------------------------------------


def test_each_item_counts_as_a_field_and_for_its_bytes() -> None:
    """One too many is refused, named, and nothing is changed; removed ones make room."""
    session = open_session(limits=Limits(fields=5, value_bytes=100, session_bytes=10_000))
    for value in range(4):
        session.add_to("cart", value)
    with pytest.raises(SessionTooLarge, match=r"session\['cart'\].*field 6, items.*fields_max is 5"):
        session.add_to("cart", 4)
    with pytest.raises(SessionTooLarge, match="'other'"):
        session.append_to("other", 4)
    assert list(session) == ["cart"] and session["cart"] == (0, 1, 2, 3)
    session.discard_from("cart", 0)
    session.add_to("cart", 4)
    with pytest.raises(SessionTooLarge, match="value_bytes_max is 100"):
        session.add_to("cart", "x" * 101)
    small = open_session(make_record({"l": ["x" * 9] * 5}), limits=Limits(fields=5, value_bytes=100, session_bytes=300))
    with pytest.raises(SessionTooLarge, match="fields_max"):
        small.append_to("l", 1)
    assert small["l"] == ["x" * 9] * 5 and not small.take(), "a list that does not fit stays what it was"
    session = open_session(limits=Limits(fields=50, value_bytes=100, session_bytes=300))
    session.append_to("log", "x" * 97)
    session.append_to("log", "x" * 97)
    with pytest.raises(SessionTooLarge, match="session_bytes_max is 300"):
        session.append_to("log", "x" * 97)
    for number in range(50):
        session.append_to("log", f"{number:50}", keep=2)


def test_a_new_id_keeps_every_item_in_its_order() -> None:
    """Though all of them have one stamp then; and so does the next new id."""
    one, other = servers(HERE, ELSEWHERE)
    one.does(("add", "cart", "z"), ("append", "log", 1), ("append", "log", 2))
    other.takes(one).does(("add", "cart", "a"), ("append", "log", 0))
    record = other.record
    for rounds in range(3):
        session = open_session(record, limits=LIMITS)
        session.append_to("log", 10 + rounds)
        session.add_to("cart", f"m{rounds}")
        changes = session.take()
        values = carried_over(record, changes, session.__getitem__)
        assert REMOVED not in values.values()
        record = Record.create(now_ms=0, idle_ms=1, deadline_ms=1).write(HERE, values, now_ms=0)[0]
        assert shown(record) == dict(session)
    assert shown(record) == {"a": 1, "cart": ("z", "a", "m0", "m1", "m2"), "log": (1, 2, 0, 10, 11, 12)}


def test_over_an_engine_a_login_keeps_the_cart() -> None:
    """The whole way: requests, cookies, a new id, the end."""
    browser = FakeBrowser(make_engine())
    with browser.request() as session:
        session.add_to("cart", "apple")
        session.append_to("seen", "/")
    with browser.request() as first, browser.request() as second:
        first.add_to("cart", "pear")
        second.add_to("cart", "fig")
        second.append_to("seen", "/fig")
    with browser.request() as session:
        session.login("ann")
        session.append_to("seen", "/login")
    assert browser.look() == {"cart": ("apple", "fig", "pear"), "seen": ("/", "/fig", "/login")}
    with browser.request() as session:
        session.end()
        session.add_to("cart", "new")
    assert browser.look() == {"cart": ("new",)}


def test_after_a_commit_the_items_of_parallel_requests_are_read() -> None:
    """Unless what was handed out can change in place: then the handler keeps its objects, and a change is an error."""
    engine = make_engine()
    browser = FakeBrowser(engine)
    with browser.request() as session:
        session.add_to("cart", "apple")
        session.add_to("orders", [1])
    first, second = browser.open(), browser.open()
    assert (first["cart"], first["orders"]) == (("apple",), ([1],))
    second.add_to("cart", "pear")
    second.add_to("orders", [2])
    engine.commit(second)
    first["a"] = 1
    engine.commit(first)
    assert (first["cart"], first["orders"]) == (("apple", "pear"), ([1],))
    first["orders"][0].append(2)
    with pytest.raises(EncodeError, match="'orders'"):
        engine.commit(first)


def test_objects_that_were_handed_out_of_a_set_may_be_discarded() -> None:
    """Found by an attack: the commit looked for what had been forgotten, raised KeyError, and kept nothing."""
    browser = FakeBrowser(make_engine())
    with browser.request() as session:
        session.add_to("cart", ["book"])
        session.add_to("cart", ["pen"])
    with browser.request() as session:
        for item in session["cart"]:
            if item == ["pen"]:
                session.discard_from("cart", item)
                item.append("of the handler alone")
    assert browser.look() == {"cart": (["book"],)}


def test_a_list_that_others_made_a_collection_may_be_appended_to() -> None:
    """Found by an attack: a late commit looked for the plain list that had been read before, and raised KeyError."""
    for is_changed in (False, True):
        engine = make_engine()
        browser = settled(engine, log=[1])
        session = browser.open()
        handed = session["log"]
        with browser.copy().request() as other:
            other.append_to("log", 2)
        session["a"] = 1
        browser.finish(session)
        if is_changed:
            handed.append("mine")
        session.append_to("log", 3)
        engine.commit(session, is_late=True)
        assert session["log"] == ((1, "mine", 3) if is_changed else (1, 2, 3))
        assert browser.look() == {"a": 1, "log": session["log"]}


COLLECTED = ("list", "set", "plain")
DEEDS: dict[str, Do] = {
    "add": lambda session: session.add_to("set", [3]),
    "discard": lambda session: session.discard_from("set", [1]),
    "append": lambda session: session.append_to("list", [3]),
    "keep": lambda session: session.append_to("list", [3], keep=1),
    "convert": lambda session: session.append_to("plain", [3]),
    "assign": lambda session: session.update(list=([0],), set=({1},), plain=[]),
    "remove": lambda session: [session.pop(name, None) for name in COLLECTED],
    "reload": Session.reload,
}


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_was_read_any_change_may_follow(data: st.DataObject) -> None:
    """Reads, changes, reloads and commits of two requests, in any order: each commit is kept."""
    engine = make_engine()
    browser = settled(engine, plain=[[1]])
    with browser.request() as session:
        for value in ([1], [2]):
            session.add_to("set", value)
            session.append_to("list", value)
    sessions = browser.open(), browser.copy().open()
    for _ in range(data.draw(st.integers(4, 12))):
        session = data.draw(st.sampled_from(sessions))
        what = data.draw(st.sampled_from([*COLLECTED, *DEEDS, "commit"]))
        if what == "commit":
            engine.commit(session)
        elif what in COLLECTED:
            session.get(what)
        else:
            with suppress(TypeError):  # the other request may have made something else of it
                DEEDS[what](session)
    for session in sessions:
        engine.commit(session)
    assert browser.look() == dict(browser.open())


def test_of_values_assigned_in_parallel_one_is_read_and_can_change_in_place() -> None:
    """As any other; and the next write replaces all of them."""
    one, other = servers(1, 2)
    one.does(("set", "x", [1]))
    other.does(("set", "x", [2]))
    one.takes(other)
    assert one.fields["x"] == [2]
    one.does(("extend", "x", 3))
    assert one.fields["x"] == [2, 3] and len(one.record.fields["x"].assignments()) == 1
    other.does(("set", "n", 1))
    one.does(("set", "n", "text"))
    assert one.takes(other).fields["n"] == "text"


def test_a_removed_field_of_an_early_version_is_none() -> None:
    """Its tombstone reads as nothing, and a new value takes its place."""
    record = make_record({"a": 1})
    early = msgspec.structs.replace(record, fields={**record.fields, "gone": Entry(0, 1, REMOVED)})
    session = open_session(early)
    assert dict(session) == {"a": 1} and "gone" not in session
    session["gone"] = 1
    session.add_to("other", 1)
    assert dict(session) == {"a": 1, "gone": 1, "other": (1,)}


def test_what_is_replaced_and_removed_leaves_its_bytes() -> None:
    """Where a session is nearly full, the sum is kept exactly, item by item."""
    session = open_session(limits=Limits(fields=50, value_bytes=250, session_bytes=300))
    for _ in range(20):
        for number in range(3):
            session.append_to("log", f"{number:70}")
        session.pop("log")
        session["x"] = "y" * 200
        session["x"] = ["z" * 200]
        session.discard_from("cart", 1)
        del session["x"]
    session.append_to("log", 1)
    with pytest.raises(SessionTooLarge):
        session.add_to("cart", "x" * 249)
    assert list(session) == ["log"]


def test_a_session_that_cannot_be_written_takes_no_item() -> None:
    """One that is only looked at, and a new one after the head."""
    session = open_session(make_record({"cart": ["x"]}), is_read_only=True)
    for do in (session.add_to, session.append_to, session.discard_from):
        with pytest.raises(SessionRotated):
            do("cart", 1)
    session = open_session()
    session["cart"] = ["x"]
    session.is_head_sent = True
    for do in (session.add_to, session.append_to, session.discard_from):
        with pytest.raises(SessionTooLate, match="after the head"):
            do("cart", 1)


def test_what_no_request_has_written_still_has_an_order() -> None:
    """A number that is none, from a peer of another release, is the first."""
    record = make_record({})
    values = {"l": items.LIST, "l\0lx": codec.encode("odd"), "s": items.SET, "s\0sa": codec.encode("no number")}
    record, _ = record.write(HERE, values, now_ms=0)
    assert shown(record) == {"l": ("odd",), "s": ("a",)}


MALFORMED: dict[str, dict[str, bytes]] = {
    "not Latin-1": {"c": items.SET, "c\0b\N{EURO SIGN}": codec.encode(0)},
    "no value": {"c": items.SET, "c\0b\xc1": codec.encode(0)},
    "nothing": {"c": items.SET, "c\0b": codec.encode(0)},
    "of an unknown form": {"c": items.SET, "c\0q": codec.encode(0), "c\0": codec.encode(0)},
    "with a number that is none": {"c": items.SET, "c\0sx": codec.encode("no"), "c\0sy": b"\xc1", "c\0sz": b"\xc7"},
    "with a huge number": {"c": items.SET, "c\0sx": codec.encode(10**400)},
    "in a list, no number": {"c": items.LIST, "c\0lz": codec.encode(1), "c\0lz.\N{EURO SIGN}": codec.encode(1)},
    "in a list, a huge number": {"c": items.LIST, "c\0lz." + "f" * 5_000: codec.encode(1)},
    "in a list, no value": {"c": items.LIST, "c\0lz.1": b"\xc1"},
    "a collection": {"c": items.SET, "c\0sx": items.SET, "c\0sx\0sy": codec.encode(1)},
    "too deep": {"c": items.LIST, "c\0lz.1": b"\x91" * 33 + b"\x01"},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_malformed_items_of_a_peer_raise_nothing_but_what_is_documented(fields: dict[str, bytes]) -> None:
    """Found by an attack: one with a name that no server gives was a UnicodeEncodeError. Other fields can be used as ever."""
    record, _ = make_record({"a": 1}, subject="ann").write(ELSEWHERE, fields, now_ms=0)
    record = Record.parse(record.pack())
    fill: Callable[..., None] = Session.add_to if fields["c"] == items.SET else Session.append_to
    deeds: list[Callable[[Session], object]] = [
        lambda session: session["c"],
        dict,
        lambda session: fill(session, "c", 1),
        lambda session: session.discard_from("c", "x"),
        lambda session: session.append_to("c", 1, keep=1),
        lambda session: session.login("bob", keep=["c"]),
        Session.clear,
    ]
    for do in deeds:
        session = open_session(record, limits=LIMITS._replace(session_bytes=20_000))
        with suppress(FieldUnreadable, TypeError):
            do(session)
        changes = session.take()
        assert carried_over(record, changes, session.peek) is not None
        session["a"] = 2
        assert session["a"] == 2
    with suppress(DecodeError):
        shown(record)
