"""One worker process' event loop: accepts clients, dials servers, sweeps deadlines, hears of health, stops in order.

The only clock of the data path is `now`, renewed by the sweep: a deadline is an attribute, not a timer, so a request
costs none. What a worker knows (health, what it learned, counts) is its own; workers share nothing but the port.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from random import Random
from typing import TYPE_CHECKING, Final

from sessile.balancer.affinity import OTHER_COOKIES
from sessile.balancer.checks import Checker
from sessile.balancer.client import Client
from sessile.balancer.flow import ASIDE_BYTES_MAX, SHARE_BYTES
from sessile.balancer.health import State
from sessile.balancer.notices import Notices
from sessile.balancer.phases import IDLE
from sessile.balancer.request_head import Peer
from sessile.balancer.requests import RequestParser
from sessile.balancer.responses import ResponseHead, ResponseParser, without_caching
from sessile.balancer.room import Room
from sessile.balancer.servers import Server, Servers
from sessile.balancer.upstream import Upstream
from sessile.errors import BalancerError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

    from sessile.balancer.health import Change
    from sessile.balancer.settings import BalancerSettings

__all__ = ["Worker"]

OVERRULED: Final = (
    "%s says that its client speaks https, but is not trusted: servers are told http, so session cookies lose Secure and "
    "the prefix __Host-, and samesite=none becomes Lax; if it is the proxy that ends TLS, name it: --trusted ADDRESS, or "
    "trusted = [...] in the config file"
)
SWEEP_S: Final = 0.1
BACKLOG: Final = 4096
WRITE_BUFFER_BYTES: Final = 128 * 1024
REFUSED_MAX: Final = 32
"""Connections beyond the limits that may linger, to read that they are refused."""
NOWHERE: Final = ("0.0.0.0", 0)  # noqa: S104 - says that it is not known


class Worker:
    """Everything one process of the balancer does; `log(event, fields)` hears what a person should know."""

    def __init__(
        self, settings: BalancerSettings, log: Callable[[str, dict[str, object]], None], rng: Random | None = None
    ) -> None:
        self.settings = settings
        self._log = log
        affinity = settings.affinity
        name = settings.affinity_name
        self.requests = RequestParser(
            None if affinity.kind == "none" else (affinity.kind, name),
            others=OTHER_COOKIES if settings.has_own_cookie_name else b"",
            fields_max=settings.limits.fields,
        )
        self.collects_bodies = settings.buffer_requests
        self.room = Room(settings.limits.buffered_bytes, settings.limits.buffered_files, self.warn)
        self.sets_cookie = affinity.kind == "cookie"
        self.is_plain = self.sets_cookie and affinity.refresh != "always"
        """A response to a client that is where it belongs needs nothing from us; until we are stopping."""
        self.refreshes_always = affinity.refresh == "always"
        self.responses = ResponseParser(
            cookie=name if self.sets_cookie else b"",
            header=name if affinity.kind in {"header", "query"} else b"",
            fields_max=2 * settings.limits.fields,
        )
        self.servers = Servers(settings, rng or Random())  # noqa: S311 - spreads load, guards nothing
        self.checker = Checker(self.servers, settings, self._health_changed)
        self.clients: set[Client] = set()
        self.head_bytes_max = settings.limits.head_bytes
        self.now = self.idle_by = self.response_by = 0.0
        """The sweep's clock, and the deadlines of what begins now."""
        self.is_stopping = False
        self._notices = Notices()
        self._is_overruling_said = False
        self.retried = 0
        self.refused: dict[int, int] = {}
        self._per_address: dict[str, int] = {}
        self._counted: dict[Client, str] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._gone: asyncio.Event = asyncio.Event()
        self.arrivals: list[tuple[Client | Upstream, bytes, int]] = []
        """What was put aside in this turn. Connections hold on to this list: it is emptied, never replaced."""
        self._waiting: list[Client | Upstream] = []
        """Connections that have had their share of this turn."""
        self._call_soon: Callable[[Callable[[], None]], object] = _no_loop
        networks = [ip_network(one) for one in settings.trusted]

        is_https = settings.proto == "https"

        @lru_cache(maxsize=4096)
        def peer_of(address: str, here: str, port: int) -> tuple[Peer, bool]:
            mapped = _plain(address)
            is_trusted = any(mapped in network for network in networks)
            local = _plain(here)
            host = f"[{local}]" if local.version == 6 else str(local)
            host += "" if port == (443 if is_https else 80) else f":{port}"
            peer = Peer.of(str(mapped), is_trusted=is_trusted, is_https=is_https, here=host)
            return peer, mapped.is_loopback

        self._peer_of = peer_of

    # --- life

    async def start(self, sock: socket.socket) -> None:
        """Check every server once, then accept on `sock`."""
        loop = asyncio.get_running_loop()
        self._call_soon = loop.call_soon
        self._sweep()
        await self.checker.first_round()
        self._listener = await loop.create_server(lambda: Client(self), sock=sock, backlog=BACKLOG)

    async def stop(self) -> None:
        """Accept nobody, finish what is under way for up to the grace time, leave."""
        self.is_stopping = True
        self.is_plain = False
        if self._listener is not None:
            self._listener.close()
        for client in list(self.clients):
            client.is_plain = False
            if client.phase == IDLE:
                client.expire()
        deadline = asyncio.get_running_loop().time() + self.settings.grace_s
        while self.clients and (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._gone.clear()
            try:
                async with asyncio.timeout(left):
                    await self._gone.wait()
            except TimeoutError:
                break
        if self.clients:
            self._log("cut", {"connections": len(self.clients)})
        self.checker.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for client in list(self.clients):
            client.transport.abort()
        for task in self._dials:
            task.cancel()
        for server in self.servers.by_name.values():
            server.close_idle()
        await asyncio.sleep(0)

    def reload(self, settings: BalancerSettings, event: str = "reloaded") -> None:
        """Take over the servers and the algorithm of new settings; nothing under way is disturbed."""
        before = set(self.servers.by_name)
        # What cookies look like stays as it was: what reads them was made at the start.
        own = self.settings
        settings = replace(settings, affinity=own.affinity, secrets=own.secrets, cluster=own.cluster, listen=own.listen)
        for gone in self.servers.apply(settings):
            gone.idle_max = 0  # what is under way there ends, and its connection with it
            gone.close_idle()
        after = set(self.servers.by_name)
        self._log(event, {"servers": sorted(after), "added": sorted(after - before), "removed": sorted(before - after)})

    # --- turns

    def arrived(self, connection: Client | Upstream, data: bytes, carried: int) -> None:
        """Put aside what a connection has read until all that is readable now has been read.

        So the kernel's work and ours come in long stretches, each with its own code in the processor's caches, instead of
        turn by turn; docs/design/0005 says what was measured of that. Order within a connection is kept:
        whatever else happens to one drains first. A large piece is part of a stream and is looked at now, so that reading
        stops before the next one when its other end cannot keep up. After a very large one the others are read first: a loop
        may read a connection many times in a row.
        """
        arrivals = self.arrivals
        arrivals.append((connection, data, carried))
        if len(data) > ASIDE_BYTES_MAX:
            self.drain()
            if len(data) >= SHARE_BYTES:
                connection.wait_turn()
        elif len(arrivals) == 1:
            self._call_soon(self.drain)

    def drain(self) -> None:
        """Look at everything that has arrived."""
        if not self.arrivals:
            return
        arrived = self.arrivals.copy()
        self.arrivals.clear()
        for connection, data, carried in arrived:
            try:
                connection.take(data, carried)
            except Exception as error:  # noqa: BLE001 - one connection's fault is not another's
                self._broken(connection, error)

    def later(self, connection: Client | Upstream) -> None:
        """Let a connection catch up in the next turn."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._call_soon(self._catch_up)

    def _catch_up(self) -> None:
        self.drain()
        waiting = self._waiting.copy()
        self._waiting.clear()
        for connection in waiting:
            try:
                connection.catch_up()
            except Exception as error:  # noqa: BLE001 - one connection's fault is not another's
                self._broken(connection, error)

    def _broken(self, connection: Client | Upstream, error: Exception) -> None:
        loop = asyncio.get_running_loop()
        about = {"message": "a connection failed", "exception": error, "protocol": connection}
        loop.call_exception_handler(about)
        connection.transport.abort()

    # --- clients

    @property
    def is_crowded(self) -> bool:
        """So many that were refused are still here that the next is not waited for to read why."""
        return len(self.clients) - len(self._counted) > REFUSED_MAX

    def admit(self, client: Client, transport: asyncio.Transport) -> Peer | None:
        """Count a new client; None when there are too many, altogether or from its address."""
        limits = self.settings.limits
        name = transport.get_extra_info("peername") or NOWHERE
        ours = transport.get_extra_info("sockname") or NOWHERE
        peer, is_loopback = self._peer_of(name[0], ours[0], ours[1])
        limit = limits.connections_per_loopback if is_loopback else limits.connections_per_address
        here = self._per_address.get(peer.address, 0)
        everybody = len(self._counted) >= limits.connections
        is_full = everybody or (bool(limit) and here >= limit)
        self.clients.add(client)
        if is_full:
            setting = "connections" if everybody else "connections_per_" + ("loopback" if is_loopback else "address")
            where = "" if everybody else f" from {peer.address}"
            self.warn(f"too many connections{where}", setting, kind=setting)
            return None
        self._per_address[peer.address] = here + 1
        self._counted[client] = peer.address
        return peer

    def dismiss(self, client: Client) -> None:
        self.clients.discard(client)
        address = self._counted.pop(client, None)
        if address is not None:
            left = self._per_address[address] - 1
            if left:
                self._per_address[address] = left
            else:
                del self._per_address[address]
        if self.is_stopping and not self.clients:
            self._gone.set()

    def answered(self, status: int) -> None:
        """An answer of our own went out."""
        self.refused[status] = self.refused.get(status, 0) + 1

    def warn(self, reason: str, setting: str = "", *, kind: str = "") -> None:
        """Say what somebody should see to; what happens again is said once a minute at most, and how often it was.

        `setting` names the timeout or limit that was met; `kind` is the reason without what differs, if something does.
        """
        times = self._notices.due(kind or reason, self.now)
        if times:
            settings = self.settings
            group = "timeouts" if setting and hasattr(settings.timeouts, setting) else "limits"
            remedy = f"; {setting} in [{group}] of the config file is the setting" if setting else ""
            often = f" ({times} times since this was last said)" if times > 1 else ""
            self._log("warning", {"message": f"{reason}{remedy}{often}"})

    def warn_of_overruled(self, peer: Peer) -> None:
        """Say once that a peer's word for https does not count, and what follows from it."""
        if not self._is_overruling_said:
            self._is_overruling_said = True
            self._log("warning", {"message": OVERRULED % peer.address})

    def _sweep(self) -> None:
        self.drain()
        loop = asyncio.get_running_loop()
        now = self.now = loop.time()
        self.idle_by = now + self.settings.timeouts.idle_s
        self.response_by = now + self.settings.timeouts.response_s
        for client in [one for one in self.clients if one.is_overdue(now)]:
            client.expire()
        oldest = now - self.settings.timeouts.upstream_idle_s
        for server in self.servers.by_name.values():
            server.close_idle(older_than=oldest)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    # --- servers

    def affinity_lines(self, response: ResponseHead, server: Server, *, is_https: bool) -> bytes:
        """The lines that tie the client to `server`; what would let a cache keep the response goes."""
        response.lines = without_caching(response.lines)
        response.is_untouched = False
        return server.cookie_secure if is_https else server.cookie

    def dial(self, client: Client, server: Server, attempt: int) -> None:
        """Connect to `server` for this attempt of `client`."""
        task = asyncio.get_running_loop().create_task(self._dial(client, server, attempt))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, client: Client, server: Server, attempt: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.settings.timeouts.connect_s):
                transport, upstream = await loop.create_connection(
                    lambda: Upstream(self, server), server.host, server.port
                )
        except ConnectionRefusedError:
            change = server.health.request_refused(loop.time())
            if change is not None:
                self._health_changed(server, change)
            reason = f"server {server.name} refused the connection"
        except TimeoutError:
            reason = f"server {server.name} did not accept a connection in {self.settings.timeouts.connect_s:g} s"
        except OSError as error:
            reason = f"server {server.name}: {error.strerror or error}"
        else:
            transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
            if client.attempt == attempt:
                client.attach(upstream)
            else:
                upstream.idle_since = self.now
                if not server.keep_idle(upstream):
                    transport.abort()
            return
        if client.attempt == attempt:
            client.not_connected(reason)

    def _health_changed(self, server: Server, change: Change) -> None:
        self._log(
            "server",
            {"name": server.name, "state": change.after.value, "before": change.before.value, "reason": change.reason},
        )
        self.servers.refresh()
        if change.after is State.DOWN:
            server.close_idle()
        for client in [one for one in self.clients if one.server is not None and one.server.is_down]:
            client.given_up()


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address without its zone; IPv4 where IPv6 only wraps it."""
    parsed = ip_address(address.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _no_loop(callback: Callable[[], None]) -> None:
    """Before it is started a worker has no turns: what arrives is looked at at once."""
    callback()


def require_secret(settings: BalancerSettings) -> None:
    """An affinity cookie is signed, so there must be something to sign with."""
    if settings.affinity.kind == "cookie" and not settings.secrets:
        raise BalancerError(
            "affinity by cookie needs a secret: set SESSILE_SECRET or secret; `sessile keygen` draws one"
        )
