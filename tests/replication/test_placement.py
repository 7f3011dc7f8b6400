"""Who holds a session: laws over any membership, and the balance of real numbers of keys."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.replication.placement import _REMEMBERED_MAX, Place, Placement

KEYS = st.binary(min_size=16, max_size=16)
NAMES = st.text(min_size=1, max_size=8)
MEMBERS = st.dictionaries(NAMES, st.sampled_from("xyz"), min_size=1, max_size=9)
COPIES = st.none() | st.integers(1, 4)


def placed(members: dict[str, str], copies: int | None = 2, me: str = "a") -> Placement:
    """A placement over name → host."""
    return Placement(me, [Place(*one) for one in members.items()], copies)


def fleet(size: int) -> dict[str, str]:
    """So many members, each on a host of its own."""
    return {f"10.0.0.{number}:7400": f"host-{number}" for number in range(size)}


def keys(amount: int) -> list[bytes]:
    rng = Random(amount)
    return [rng.randbytes(16) for _ in range(amount)]


@given(members=MEMBERS, copies=COPIES, key=KEYS, rng=st.randoms(use_true_random=False))
def test_every_node_computes_the_same(members: dict[str, str], copies: int | None, key: bytes, rng: Random) -> None:
    """Neither who asks nor the order in which members were heard of changes an answer."""
    shuffled = list(members.items())
    rng.shuffle(shuffled)
    one, other = placed(members, copies), placed(dict(shuffled), copies, me=shuffled[0][0])
    assert one.order(key) == other.order(key)
    assert one.holders(key) == other.holders(key)
    assert one.number == other.number


@given(members=MEMBERS, copies=COPIES, key=KEYS, data=st.data())
def test_the_answers_agree_with_each_other(
    members: dict[str, str], copies: int | None, key: bytes, data: st.DataObject
) -> None:
    """Holders begin the order; others are they without me; the first time and from memory alike."""
    me = data.draw(st.sampled_from([*members, "nobody at all"]))
    view = placed(members, copies, me)
    order = view.order(key)
    assert sorted(order) == list(view.names) == sorted(members)
    for _ in range(2):
        assert view.holders(key) == order[:copies]
        assert view.others(key) == tuple(name for name in order[:copies] if name != me)
        assert view.is_holder(key) == (me in order[:copies])
        assert view.is_first(key) == (order[0] == me)


@given(members=MEMBERS, key=KEYS)
def test_each_round_takes_one_member_of_each_host(members: dict[str, str], key: bytes) -> None:
    """The n-th members of hosts come before all (n+1)-th ones, and within a round the better score comes first."""
    order = placed(members).order(key)
    seen: Counter[str] = Counter()
    rounds = []
    for name in order:
        seen[members[name]] += 1
        rounds.append(seen[members[name]])
    assert rounds == sorted(rounds)
    apart = placed({name: name for name in members}).order(key)
    for turn in set(rounds):
        within = [name for name, its in zip(order, rounds, strict=True) if its == turn]
        assert within == [name for name in apart if name in within]


@given(members=MEMBERS, copies=st.integers(1, 4), key=KEYS, data=st.data())
def test_a_member_that_leaves_moves_only_what_it_held(
    members: dict[str, str], copies: int, key: bytes, data: st.DataObject
) -> None:
    """With a host for each member: its keys gain one holder at the end, all others stay as they are."""
    apart = {name: f"host of {name}" for name in members}
    gone = data.draw(st.sampled_from(sorted(apart)))
    before = placed(apart, copies).holders(key)
    after = placed({name: host for name, host in apart.items() if name != gone}, copies).holders(key)
    if gone in before:
        stayed = tuple(name for name in before if name != gone)
        assert after[: len(stayed)] == stayed and len(after) <= len(before)
    else:
        assert after == before


@pytest.mark.parametrize(("size", "most"), [(2, 1.01), (3, 1.02), (5, 1.03), (16, 1.05), (64, 1.12)])
def test_keys_are_spread_evenly(size: int, most: float) -> None:
    """Of 100 000 keys each member is first holder of its share, as near as chance allows; of the second places too."""
    view = placed(fleet(size))
    first, second = Counter[str](), Counter[str]()
    for key in keys(100_000):
        one, other, *_ = view.order(key)
        first[one] += 1
        second[other] += 1
    share = 100_000 / size
    for counted in (first, second):
        assert len(counted) == size
        assert max(counted.values()) < most * share and min(counted.values()) > share / most


def test_pairs_of_holders_are_spread_evenly() -> None:
    """Who is second does not follow from who is first: chi-squared over the 56 pairs of 8 members stays near 55."""
    view = placed(fleet(8))
    pairs = Counter(view.holders(key) for key in keys(56_000))
    assert len(pairs) == 56
    assert sum((found - 1_000) ** 2 / 1_000 for found in pairs.values()) < 94  # p = 0.001


@pytest.mark.parametrize(
    ("members", "order"),
    [
        ({}, ()),
        ({"a:7400": "1"}, ("a:7400",)),
        ({"a:7400": "1", "b:7400": "2", "c:7400": "3"}, ("b:7400", "c:7400", "a:7400")),
        ({"a:7400": "1", "b:7400": "1", "c:7400": "2"}, ("b:7400", "c:7400", "a:7400")),
        ({"a:7400": "1", "b:7400": "2", "c:7400": "2"}, ("b:7400", "a:7400", "c:7400")),
    ],
)
def test_the_order_of_one_key(members: dict[str, str], order: tuple[str, ...]) -> None:
    """Nodes of different releases must agree: this changes only with the protocol's number."""
    assert placed(members).order(bytes(range(16))) == order


def test_a_node_that_leaves_holds_nothing() -> None:
    """It is not among the places: it knows the holders and is none; where nobody is left there are none."""
    leaving = placed(fleet(3), me="leaving:7400")
    for key in keys(100):
        assert not leaving.is_holder(key) and not leaving.is_first(key)
        assert leaving.others(key) == leaving.holders(key)
    alone = placed({}, me="leaving:7400")
    assert alone.holders(b"k" * 16) == () and not alone.is_holder(b"k" * 16) and not alone.is_first(b"k" * 16)


def test_what_is_remembered_is_bounded() -> None:
    """Any number of keys may be asked for; the last ones asked for are still known, and nothing is forgotten wrongly."""
    view = placed(fleet(3))
    asked = keys(5 * _REMEMBERED_MAX)
    for key in asked:
        view.holders(key)
    assert len(view._now) + len(view._past) <= 2 * _REMEMBERED_MAX
    assert all(key in view._now or key in view._past for key in asked[-_REMEMBERED_MAX:])
    assert all(view.holders(key) == view.order(key)[:2] for key in asked)


def test_equal_views() -> None:
    """Name, copies, members and their hosts make a view; its number tells views apart whoever has them."""
    view = placed(fleet(3))
    assert view == placed(dict(reversed(fleet(3).items()))) and hash(view) == hash(placed(fleet(3)))
    assert view != placed(fleet(3), me="b") and view.number == placed(fleet(3), me="b").number
    others = [placed(fleet(3), 3), placed(fleet(3), None), placed(fleet(4)), placed(fleet(3) | {"10.0.0.1:7400": "x"})]
    assert all(view != other for other in others)
    assert len({view.number, *(other.number for other in others)}) == 5
    assert view != "a placement"


def test_a_view_shows_itself() -> None:
    """Its number, how many hold, who there is."""
    assert repr(placed({"a": "1", "b": "2"})) == "<Placement adce7b4d: 2 of them hold, a b>"
    assert repr(placed({"a": "1"}, None)).endswith(": all hold, a>")


@pytest.mark.parametrize("copies", [0, -1])
def test_a_session_has_a_copy(copies: int) -> None:
    """Nobody would hold anything: refused at construction."""
    with pytest.raises(ValueError, match="at least one copy"):
        placed(fleet(3), copies)


def test_the_first_half_of_a_key_decides() -> None:
    """Every bit of it, and none of the rest."""
    view = placed({f"{name}:7400": name for name in "abcdefgh"})
    key = bytes(range(16))
    assert all(view.order(key[:8] + bytes([rest] * 8)) == view.order(key) for rest in range(256))
    assert all(len({view.order(key[:at] + bytes([one]) + key[at + 1 :]) for one in range(16)}) > 1 for at in range(8))
