"""The servers behind one worker: how each is, what is under way there, which connections to it lie idle, who gets what.

`Servers.choose` is the whole routing decision: the server a request belongs to, if that one is alive, else what the
algorithm says. Idle connections are kept last-in first-out. Knows nothing of HTTP and does no IO of its own beyond
asking an idle connection whether it is still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.balancer.affinity import Learned, derived_key, set_cookie, token, tokens_of
from sessile.balancer.algorithms import ALGORITHMS, Rendezvous
from sessile.balancer.health import Health, State

if TYPE_CHECKING:
    from collections.abc import Collection
    from random import Random

    from sessile.balancer.request_head import RequestHead
    from sessile.balancer.settings import BalancerSettings, ServerAddress
    from sessile.balancer.upstream import Upstream

__all__ = ["Server", "Servers"]

FRESH_S = 2.0
"""An idle connection used no longer ago than this may carry a request that must not be repeated."""


class Server:
    """One server as this worker sees it."""

    __slots__ = (
        "active",
        "address",
        "cookie",
        "cookie_secure",
        "health",
        "host",
        "idle",
        "idle_max",
        "is_down",
        "name",
        "port",
        "weight",
    )

    def __init__(self, address: ServerAddress, settings: BalancerSettings) -> None:
        self.address = address
        self.name = address.name
        self.host = address.host
        self.port = address.port
        self.weight = address.weight
        self.active = 0
        self.health = Health(settings.health)
        self.is_down = False
        self.idle: list[Upstream] = []
        self.idle_max = settings.limits.idle_upstreams
        self.cookie = self.cookie_secure = b""
        if settings.affinity.kind == "cookie":
            value = token(derived_key(settings.secrets[0]), self.name)
            name, affinity = settings.affinity_name, settings.affinity
            self.cookie = set_cookie(name, value, affinity, is_secure=affinity.secure == "always")
            self.cookie_secure = set_cookie(name, value, affinity, is_secure=affinity.secure != "never")

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.health.state.value} active={self.active} idle={len(self.idle)}>"

    def take_idle(self, now: float, *, is_repeatable: bool) -> Upstream | None:
        """An idle connection, the last used first.

        A server may hang up on an idle connection just as a request goes out. One that may be repeated then is. One
        that may not goes only over a connection used a moment ago on which no FIN, reset or stray byte has arrived;
        any other is closed, and the request gets a new connection.
        """
        while self.idle:
            upstream = self.idle.pop()
            if is_repeatable:
                return upstream
            if now - upstream.idle_since <= FRESH_S and upstream.is_silent():
                return upstream
            upstream.close()
        return None

    def keep_idle(self, upstream: Upstream) -> bool:
        """Keep a connection for the next request, if there is room and the server is still wanted."""
        if len(self.idle) >= self.idle_max or self.is_down:
            return False
        self.idle.append(upstream)
        return True

    def close_idle(self, older_than: float = float("inf")) -> None:
        """Close the idle connections last used before `older_than`."""
        going = [one for one in self.idle if one.idle_since < older_than]
        if going:
            self.idle = [one for one in self.idle if one.idle_since >= older_than]
            for upstream in going:
                upstream.close()


class Servers:
    """All of them, and the decision which one a request goes to."""

    def __init__(self, settings: BalancerSettings, rng: Random) -> None:
        self._rng = rng
        self._settings = settings
        self._algorithm = ALGORITHMS[settings.algorithm](rng)
        self._by_value = Rendezvous(rng)
        self.learned = Learned(settings.limits.learned)
        self.by_name: dict[str, Server] = {}
        self.tokens: dict[bytes, Server] = {}
        """By the values of cookies that we set."""
        self._former: dict[bytes, Server] = {}
        """By the values of cookies that we set when another secret was the first."""
        self.placeable: list[Server] = []
        self.apply(settings)

    def apply(self, settings: BalancerSettings) -> list[Server]:
        """Take over a new list of servers; returns those that are gone. What is under way there goes on."""
        before = self.by_name
        if settings.algorithm != self._settings.algorithm:
            self._algorithm = ALGORITHMS[settings.algorithm](self._rng)
        self._settings = settings
        self.by_name = {}
        for address in settings.servers:
            known = before.get(address.name)
            if known is not None and (known.host, known.port) == (address.host, address.port):
                known.weight = address.weight
                self.by_name[address.name] = known
            else:
                self.by_name[address.name] = Server(address, settings)
        if settings.affinity.kind == "cookie":
            first, former = settings.secrets[:1], settings.secrets[1:]
            self.tokens = {value: self.by_name[name] for value, name in tokens_of(first, self.by_name).items()}
            self._former = {value: self.by_name[name] for value, name in tokens_of(former, self.by_name).items()}
        self.refresh()
        return [one for one in before.values() if self.by_name.get(one.name) is not one]

    def refresh(self) -> None:
        """A state changed: who may get new users now?"""
        for one in self.by_name.values():
            one.is_down = one.health.state is State.DOWN
        self.placeable = [one for one in self.by_name.values() if one.health.state is State.UP]

    def owner(self, request: RequestHead) -> Server | None:
        """The server the request says it belongs to, alive or not."""
        if self.tokens:
            for value in request.affinity:
                if (server := self.tokens.get(value)) is not None:
                    return server
            return None
        for value in request.affinity:
            name = self.learned.server_of(value)
            if name is not None and (server := self.by_name.get(name)) is not None:
                return server
        return None

    def former_owner(self, request: RequestHead) -> Server | None:
        """The server that a request names by a cookie of a former secret or another balancer's: it is to get one of ours."""
        for value in (*request.affinity, *request.elsewhere):
            if (server := self.tokens.get(value) or self._former.get(value)) is not None:
                return server
        return None

    def has_other(self, tried: Collection[Server]) -> bool:
        """Whether there is a server that takes requests beside these."""
        return any(one not in tried for one in self.placeable)

    def choose(
        self, request: RequestHead, owner: Server | None, key: str, tried: Collection[Server] = ()
    ) -> Server | None:
        """The server to send the request to; None when there is none that was not tried."""
        if owner is not None and owner not in tried and not owner.is_down:
            return owner
        candidates = [one for one in self.placeable if one not in tried] if tried else self.placeable
        if not candidates:
            return None
        if request.affinity and self._settings.affinity.kind in {"header", "query"}:
            return self._by_value.pick(candidates, request.affinity[0])
        return self._algorithm.pick(candidates, key.encode())
