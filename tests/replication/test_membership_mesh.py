"""Two, three, and many memberships that talk with each other: what they agree on, and how soon."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessile.replication.member import Standing, Timings
from tests.replication.mesh import Mesh

ALIVE, SUSPECT, DEAD, LEAVING, LEFT, UNKNOWN = (
    Standing.ALIVE,
    Standing.SUSPECT,
    Standing.DEAD,
    Standing.LEAVING,
    Standing.LEFT,
    Standing.UNKNOWN,
)


def standings(mesh: Mesh, name: str) -> dict[str, Standing]:
    """How everybody else sees this member."""
    return {other: mesh[other].standing(name) for other in mesh.nodes if other != name}


def is_whole(mesh: Mesh) -> bool:
    """Whether everybody is linked with everybody else that runs, once, and both ends mean the same link."""
    for name, node in mesh.nodes.items():
        if sorted(node.membership.linked()) != sorted(set(mesh.nodes) - {name}):
            return False
        for link in node.membership._by_link:
            other, theirs = node.far[link]
            if mesh[other].name_of(theirs) != name:
                return False
        if len(node.far) != len(mesh.nodes) - 1:
            return False
    return True


@pytest.mark.parametrize("names", ["ab", "abc", "abcdefgh"])
def test_everybody_links_with_everybody_once(names: str) -> None:
    """Each pair dials from both ends at the start and keeps one link, the same at both ends, for good."""
    mesh = Mesh(names)
    mesh.run(100)
    assert is_whole(mesh)
    links = {name: dict(node.membership._by_link) for name, node in mesh.nodes.items()}
    mesh.run(5_000)
    assert links == {name: dict(node.membership._by_link) for name, node in mesh.nodes.items()}
    for name in names:
        assert set(standings(mesh, name).values()) == {ALIVE}
        assert [place.name for place in mesh[name].placeable()] == list(names)
        assert [(change.before, change.after) for change in mesh.nodes[name].changes] == [(UNKNOWN, ALIVE)] * (
            len(names) - 1
        )
        assert mesh[name].has_quorum() and not mesh[name].has_missing(mesh.now_ms)


def test_the_list_spreads_through_any_member() -> None:
    """Everybody is told of one seed only, and all find each other."""
    mesh = Mesh("abcdef", seeds="c")
    mesh.run(300)
    assert is_whole(mesh)


def test_a_newcomer_is_told_of_to_those_it_does_not_know() -> None:
    """It greets one member; the others hear of it there and dial."""
    mesh = Mesh("bcd")
    mesh.run(300)
    mesh.start("e", "b")
    mesh.run(300)
    assert is_whole(mesh)


def test_addresses_are_second_names() -> None:
    """Discovery names addresses that nobody is called by, one's own among them: all are resolved, none is counted twice."""
    addresses = {"ip-1": "a", "ip-2": "b", "ip-3": "c"}
    mesh = Mesh("abc", seeds=addresses, at=addresses)
    mesh.run(500)
    assert is_whole(mesh)
    for name in "abc":
        assert mesh[name]._owners == addresses
        assert mesh[name].has_quorum() and not mesh[name].has_missing(mesh.now_ms)
    mesh.dials.clear()
    mesh.run(3_000)
    assert mesh.dials == []


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_killed_process_is_known_to_be_dead_at_once(name: str) -> None:
    """Its links close and nobody listens there: dead, for certain, at all others within 100 ms."""
    mesh = Mesh("abc")
    mesh.run(2_000)
    mesh.kill(name)
    mesh.run(100)
    assert set(standings(mesh, name).values()) == {DEAD}
    for node in mesh.nodes.values():
        assert node.membership.is_confirmed_dead(name) and node.membership.has_quorum()


def test_a_member_that_is_started_again_is_alive_in_its_new_incarnation() -> None:
    """Nobody takes it for the one that was killed."""
    mesh = Mesh("abc")
    mesh.run(2_000)
    mesh.kill("b")
    mesh.run(3_000)
    mesh.start("b", "abc", incarnation=2)
    mesh.run(300)
    assert is_whole(mesh)
    assert {info.name: info.incarnation for info in mesh["a"].infos()} == {"a": 1, "b": 2, "c": 1}
    assert not mesh["a"].is_confirmed_dead("b")


def test_a_member_started_again_with_an_old_incarnation_takes_a_higher_one() -> None:
    """What the list says of an earlier life is refuted."""
    mesh = Mesh("abc")
    mesh.run(2_000)
    mesh.leave("b")
    mesh.run(10)
    mesh.kill("b")
    mesh.run(3_000)
    mesh.start("b", "abc", incarnation=1)
    mesh.run(300)
    assert is_whole(mesh)
    assert standings(mesh, "b") == {"a": ALIVE, "c": ALIVE}
    assert mesh["b"].me.incarnation == 2 and mesh["b"].counts["refutations"] == 1


@pytest.mark.parametrize("names", ["abc", "cab"])
def test_a_broken_link_comes_back_and_nobody_is_dead(names: str) -> None:
    """It is dialled again within the grace that a closed link has."""
    mesh = Mesh(names)
    mesh.run(2_000)
    mesh.close("a", "b")
    mesh.run(1_000)
    assert is_whole(mesh)
    assert all(change.after is ALIVE for node in mesh.nodes.values() for change in node.changes)


def test_silence_is_suspect_then_dead_and_heals() -> None:
    """Between two halves nothing arrives: suspect after 0.5 s, dead after 1 s, not for certain; alive soon after it heals."""
    mesh = Mesh("abc")
    mesh.run(2_000)
    mesh.cut("a", "c")
    mesh.cut("b", "c")
    mesh.run(740)
    assert mesh["a"].standing("c") is SUSPECT and mesh["c"].standing("a") is SUSPECT
    assert [place.name for place in mesh["a"].placeable()] == ["a", "b", "c"]
    mesh.run(500)
    assert standings(mesh, "c") == {"a": DEAD, "b": DEAD} and standings(mesh, "a") == {"b": ALIVE, "c": DEAD}
    assert mesh["a"].has_quorum() and not mesh["c"].has_quorum()
    assert not mesh["a"].is_confirmed_dead("c")
    mesh.run(20_000)
    mesh.cuts.clear()
    mesh.run(2_100)
    assert is_whole(mesh)


def test_a_paused_node_is_dead_to_others_and_blames_nobody() -> None:
    """The others declare it dead and hang up; when it goes on it knows that it was late, and is linked at once."""
    mesh = Mesh("abc")
    mesh.run(2_000)
    mesh.nodes["b"].is_paused = True
    mesh.run(5_000)
    assert standings(mesh, "b")["a"] is DEAD
    mesh.nodes["b"].changes.clear()
    mesh.nodes["b"].is_paused = False
    mesh.run(5)
    mesh.run(2_200)
    assert is_whole(mesh)
    assert not [change for change in mesh.nodes["b"].changes if change.after is DEAD]


def test_a_member_that_leaves_is_no_holder_and_then_gone() -> None:
    """Leaving, then left; it is not dialled any more, not counted, and in the end forgotten."""
    mesh = Mesh("abc")
    mesh.run(2_000)
    mesh.leave("b")
    mesh.run(10)
    assert standings(mesh, "b") == {"a": LEAVING, "c": LEAVING} and mesh["b"].standing("b") is LEAVING
    for name in "abc":
        assert [place.name for place in mesh[name].placeable()] == ["a", "c"]
    mesh.goodbye("b")
    mesh.run(10)
    mesh.kill("b")
    mesh.dials.clear()
    mesh.run(5_000)
    assert standings(mesh, "b") == {"a": LEFT, "c": LEFT} and mesh["a"].is_confirmed_dead("b")
    assert mesh.dials == [] and mesh["a"].has_quorum()
    for name in "ac":
        mesh[name].tick(mesh.now_ms + Timings().tombstone_keep_ms)
    assert standings(mesh, "b") == {"a": UNKNOWN, "c": UNKNOWN}
    assert [info.name for info in mesh["a"].infos()] == ["a", "c"]


def test_two_nodes_of_one_name_do_not_outbid_each_other_without_end() -> None:
    """A second one on another host, linked to somebody else: each takes a higher incarnation a few times a second at most."""
    mesh = Mesh("pq")
    mesh.run(2_000)
    names = {"x": "host-1", "y": "host-2"}
    for name, seed in (("x", "p"), ("y", "q")):
        mesh.start(name, seed)
        mesh.nodes[name].membership.me = mesh[name].me.__class__("x", names[name], 1)
    mesh.run(3_000)
    assert 0 < mesh["x"].counts["refutations"] + mesh["y"].counts["refutations"] < 30


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_whatever_happens_it_heals(seed: int) -> None:
    """Cuts, closed links, pauses, kills and restarts in any order: once they end, everybody is linked within 5 s."""
    rng = Random(seed)
    names = "abcd"
    mesh = Mesh(names)
    incarnation = 1
    for _ in range(12):
        mesh.run(rng.choice((1, 10, 100, 700, 1_500)))
        one, other = rng.sample(names, 2)
        match rng.randrange(5):
            case 0:
                mesh.cut(one, other)
            case 1 if one in mesh.nodes and other in mesh.nodes:
                mesh.close(one, other)
            case 2 if one in mesh.nodes:
                mesh.nodes[one].is_paused ^= True
            case 3 if one in mesh.nodes:
                mesh.kill(one)
            case _ if one not in mesh.nodes:
                incarnation += 1
                mesh.start(one, names, incarnation=incarnation)
    mesh.cuts.clear()
    for name in names:
        if name not in mesh.nodes:
            mesh.start(name, names, incarnation=incarnation + 1)
        mesh.nodes[name].is_paused = False
    mesh.run(5_000)
    assert is_whole(mesh)
    for name in names:
        assert set(standings(mesh, name).values()) == {ALIVE}
        assert mesh[name].has_quorum()


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_clock_that_was_set_back_between_restarts_is_made_up_for(*, is_gone: bool) -> None:
    """The process greets in a lower incarnation than its last one, which went in good order or not: the list raises it."""
    mesh = Mesh("abc")
    mesh.start("b", "abc", incarnation=1_000)
    mesh.run(2_000)
    assert next(info for info in mesh["a"].infos() if info.name == "b").incarnation == 1_000
    if is_gone:
        mesh.leave("b")
        mesh.goodbye("b")
        mesh.run(5)
    mesh.kill("b")
    mesh.run(20)
    mesh.start("b", "abc", incarnation=7)
    mesh.run(1_000)
    assert mesh["b"].me.incarnation > 1_000
    for name in "ac":
        assert mesh[name].standing("b") is ALIVE
        assert next(info for info in mesh[name].infos() if info.name == "b") == mesh["b"].me
