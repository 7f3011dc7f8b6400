"""What `make show NAME=races` plays, and that each play finds what it is there for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.peers.workload import Browser
from bench.races import hazards
from bench.races.hazards import HAZARDS, NO_API, BrokenError, play_all
from bench.races.ours import OURS, Ours, site_of
from bench.races.requests import Site, arrive, given_by
from bench.show import CannotShow, races
from bench.show.races import PEERS, Peer, judge_ours, play_peer, row, went_wrong

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here has a grace, and what is not there at once never is."""
    for name in ("SETTLE_S", "GRACE_S", "SLACK_S"):
        monkeypatch.setattr(hazards, name, 0.0)


class Blobs:
    """A library that loads all of a session, and stores all of it; its flaws are what a test gives it.

    Without flaws it keeps every field by itself and never brings back what has ended.
    """

    def __init__(self, *flaws: str) -> None:
        self.flaws = flaws
        self.kept: dict[str, dict[str, str]] = {}
        self.ended: set[str] = set()
        self.issued = 0

    def exchange(self, path: str, query: str, cookie: str) -> tuple[int, list[str], bytes]:
        given = given_by(query)
        key = cookie.removeprefix("id=")
        if key not in self.kept and not ("adopts" in self.flaws and key):
            key = ""
        if path == "/plain":
            if "stores" in self.flaws:
                self.kept[self._new()] = {}
            return 200, [], b"{}"
        seen = dict(self.kept.get(key, {}))
        arrive(given)
        if path == "/show":
            if "reads write" in self.flaws and key:
                self.kept[key] = seen
            return 200, [], json.dumps(seen).encode()
        handle: Callable[..., tuple[int, str]] = getattr(self, path.removeprefix("/"))
        status, key = handle(key, seen, given)
        return status, [f"id={key}; Path=/"], json.dumps(self.kept.get(key, {})).encode()

    def _new(self) -> str:
        self.issued += 1
        return f"ab{self.issued:04}"

    def set(self, key: str, seen: dict[str, str], given: dict[str, str]) -> tuple[int, str]:
        if key in self.ended and "revives" not in self.flaws:
            return (200 if "drops" in self.flaws else 409), key
        key = key or self._new()
        change = {given["name"]: given["value"]}
        base = seen if "blob" in self.flaws or key in self.ended else self.kept.get(key, {})
        self.kept[key] = {**base, **change}
        return 200, key

    def logout(self, key: str, *_: Any) -> tuple[int, str]:
        self.kept.pop(key)
        self.ended.add(key)
        return 200, "gone"

    def rotate(self, key: str, seen: dict[str, str], _: Any) -> tuple[int, str]:
        if "no api" in self.flaws:
            return 404, key
        new = self._new()
        self.kept[new] = {**seen, "user": "ann"}
        if "old stays" not in self.flaws:
            self.kept.pop(key)
            self.ended.add(key)
        return 200, new


def site(*flaws: str) -> Site:
    library = Blobs(*flaws)
    return Site([library], lambda: len(library.kept))


def test_without_a_flaw_all_is_safe() -> None:
    """Fields of their own, ends that stay, and refusals that are told."""
    found = play_all(site())
    found.pop("T8")  # the refusal's cookie is the old one: told below
    assert not any(found.values())


@pytest.mark.parametrize(
    ("flaw", "hazard", "wrong"),
    [
        ("blob", "T1", "LOST"),
        ("revives", "T2", "RESURRECTED"),
        ("drops", "T2", "dropped with 200"),
        ("adopts", "T3", "ADOPTED"),
        ("old stays", "T4", "old id ALIVE"),
        ("reads write", "T5", "LOST"),
        ("stores", "T6", "STORED"),
        ("no api", "T4", NO_API),
        ("no api", "T8", NO_API),
        ("", "T8", "OLD cookie back, signed out"),
        ("old stays", "T8", "old id ALIVE, OLD cookie back, signed out"),
    ],
)
def test_each_flaw_is_found(flaw: str, hazard: str, wrong: str) -> None:
    """By the play that is there for it, and told as what it is."""
    assert HAZARDS[hazard](site(flaw)) == wrong


def test_a_site_that_keeps_nothing_is_not_called_safe() -> None:
    """Where nothing is kept nothing is lost, which says nothing."""
    broken = site()
    broken.servers[0].kept = Forgetful()  # type: ignore[attr-defined]
    with pytest.raises(BrokenError):
        play_all(broken)


class Forgetful(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        pass


def test_an_app_that_raises_is_an_answer_of_its_own() -> None:
    """It is no success, and ends no play."""
    empty = Site([object()], lambda: 0)  # type: ignore[list-item]
    answer = empty.ask(0, "/show", Browser())
    assert (answer.status, answer.cookies) == (0, [])
    assert empty.begin(0, "/show", Browser()).finish().status == 0


def test_one_hazard_is_enough_to_break_the_promise() -> None:
    """One that is not safe, or one that was not played; what a peer has no way to do is no defect of it."""
    safe = dict.fromkeys(HAZARDS, "")
    assert judge_ours("x", safe).holds
    for name in HAZARDS:
        assert not judge_ours("x", {**safe, name: "LOST"}).holds
        assert not judge_ours("x", {other: "" for other in HAZARDS if other != name}).holds
    assert went_wrong({"T1": "LOST", "T4": NO_API, "T5": ""}) == {"T1": "LOST"}
    assert row("x", {**safe, "T2": "LOST"}) == "x: T1 ok; T2 LOST; T3 ok; T4 ok; T5 ok; T6 ok; T8 ok"


NEEDS = {"Redis": "redis-server", "PostgreSQL": "postgres"}


@pytest.mark.parametrize(
    "ours",
    [
        pytest.param(
            each, id=each.name, marks=[pytest.mark.needs(p) for n, p in NEEDS.items() if each.name.startswith(n)]
        )
        for each in OURS
    ],
)
def test_ours_are_safe(monkeypatch: pytest.MonkeyPatch, ours: Ours) -> None:
    """Every strategy and store, on real sockets and real stores."""
    for name, value in {"SETTLE_S": 2.0, "GRACE_S": 1.0, "SLACK_S": 0.5}.items():
        monkeypatch.setattr(hazards, name, value)
    with site_of(ours) as servers:
        found = play_all(servers)
    assert not any(found.values()), found


@pytest.mark.needs("redis-server")
def test_a_peer_that_cannot_run_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no figure, and breaks nothing."""
    monkeypatch.setattr(races, "OURS", ())
    monkeypatch.setattr(races, "PEERS", (Peer("x", "x of tomorrow", "x", (99, 0)),))
    shown = races.run(lambda _: None)
    assert not shown.figures and "x of tomorrow: NOT RUN: it needs Redis 99.0, and here is " in shown.notes[-1]


def test_every_peer_has_its_requirements() -> None:
    """And is known to the program that runs it."""
    from bench import environments
    from bench.races import peer as program

    for each in PEERS:
        assert (environments.REQUIREMENTS / f"{each.environment}.txt").is_file()
        assert each.name in program.PEERS


@pytest.mark.needs("redis-server")
@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_plays_all(peer: Peer) -> None:
    """In its own environment, which takes a while to make."""
    from bench.redis_server import redis_server

    with redis_server() as port:
        try:
            found = play_peer(peer, port)
        except CannotShow as reason:
            pytest.skip(str(reason))
    assert found.keys() == HAZARDS.keys() and found["T1"] == "LOST"
