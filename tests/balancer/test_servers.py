"""The routing decision, without sockets."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from sessile.balancer.affinity import derived_key, token
from sessile.balancer.request_head import RequestHead
from sessile.balancer.servers import FRESH_S, Server, Servers
from sessile.balancer.settings import Affinity, BalancerSettings, ServerAddress
from tests.balancer.wire import with_stand_ins

SETTINGS = BalancerSettings(
    secrets=("new", "old"), servers=tuple(ServerAddress(f"s{n}", "127.0.0.1", 9000 + n) for n in range(3))
)


class Connection:
    """What the pool needs of a connection."""

    def __init__(self, idle_since: float, *, is_there: bool = True) -> None:
        self.idle_since = idle_since
        self.is_there = is_there
        self.is_closed = False

    def is_silent(self) -> bool:
        return self.is_there

    def close(self) -> None:
        self.is_closed = True


def pool(*connections: Connection) -> Server:
    server = Server(SETTINGS.servers[0], SETTINGS)
    server.idle = list(connections)  # type: ignore[arg-type]
    return server


def request(*affinity: bytes) -> RequestHead:
    head = RequestHead(b"GET")
    head.affinity = affinity
    return head


def choose(servers: Servers, head: RequestHead, **more: Any) -> str | None:
    chosen = servers.choose(head, servers.owner(head), "client", **more)
    return chosen.name if chosen is not None else None


def test_a_token_leads_home() -> None:
    """The first value that is anybody's counts; one that a former secret made says the same, apart."""
    servers = Servers(SETTINGS, Random(1))
    new, old = (token(derived_key(secret), "s2") for secret in ("new", "old"))
    assert choose(servers, request(b"nobody's", new)) == "s2"
    assert servers.owner(request(b"nobody's", old)) is None
    elsewhere = request(b"nobody's")
    elsewhere.elsewhere = (b"another service's", new)
    assert servers.owner(elsewhere) is None
    for head in (request(b"nobody's", old), elsewhere):
        assert servers.former_owner(head) is servers.by_name["s2"]
    assert servers.former_owner(request(b"nobody's")) is None


def test_down_draining_and_tried() -> None:
    """Down: somebody else. Draining: its own users only. Tried: not again. Nobody left: None."""
    servers = Servers(SETTINGS, Random(1))
    mine = request(token(derived_key("new"), "s0"))
    servers.by_name["s0"].health.check_failed("x", is_refusal=True)
    servers.refresh()
    assert choose(servers, mine) in {"s1", "s2"}
    servers.by_name["s0"].health.check_answered(type(servers.by_name["s0"].health.state).DRAINING, 1.0)
    servers.refresh()
    assert choose(servers, mine) == "s0"
    assert {choose(servers, request()) for _ in range(6)} == {"s1", "s2"}
    first = servers.by_name["s1"]
    assert choose(servers, request(), tried=[first]) == "s2"
    assert choose(servers, request(), tried=[first, servers.by_name["s2"]]) is None


def test_learned_values_and_the_hash() -> None:
    """A learned value leads to its server; an unknown one always to the same."""
    servers = Servers(replace(SETTINGS, affinity=Affinity("header", "X")), Random(1))
    servers.learned.learn(b"v", "s1")
    assert choose(servers, request(b"v")) == "s1"
    assert len({choose(servers, request(b"unknown")) for _ in range(9)}) == 1


def test_new_settings_keep_what_stays() -> None:
    """A server that stays keeps its state; one with a new address is a new one; weights change in place."""
    servers = Servers(SETTINGS, Random(1))
    before = dict(servers.by_name)
    stays, moves = SETTINGS.servers[0], SETTINGS.servers[1]
    gone = servers.apply(SETTINGS.with_servers((replace(stays, weight=9), replace(moves, port=9999))))
    assert servers.by_name["s0"] is before["s0"] and servers.by_name["s0"].weight == 9
    assert servers.by_name["s1"] is not before["s1"]
    assert {server.name for server in gone} == {"s1", "s2"}
    assert choose(servers, request(token(derived_key("new"), "s1"))) == "s1"


@with_stand_ins
def test_which_idle_connection() -> None:
    """The last used first; a request that must not be repeated takes only one that is fresh and silent."""
    old, stale, fresh = Connection(0.0), Connection(9.9, is_there=False), Connection(9.9)
    server = pool(old, fresh)
    assert server.take_idle(10.0, is_repeatable=True) is fresh  # type: ignore[comparison-overlap]
    assert server.take_idle(10.0, is_repeatable=True) is old  # type: ignore[comparison-overlap]
    server = pool(Connection(10.0 - FRESH_S - 0.1), stale)
    assert server.take_idle(10.0, is_repeatable=False) is None
    assert stale.is_closed and not server.idle


@with_stand_ins
def test_idle_connections_are_bounded_and_age() -> None:
    """Beyond the limit nothing is kept, to a server that is down neither; the old are closed."""
    server = pool()
    server.idle_max = 1
    assert server.keep_idle(Connection(1.0)) and not server.keep_idle(Connection(1.0))  # type: ignore[arg-type]
    young, old = Connection(5.0), Connection(1.0)
    server = pool(young, old)
    server.close_idle(older_than=2.0)
    assert old.is_closed and not young.is_closed
    server.is_down = True
    assert not server.keep_idle(old)  # type: ignore[arg-type]
