"""Sessions in Redis or Valkey: one server, one behind Sentinels, or a cluster.

A session is one string that holds what `Record.pack` gives, its times on the server's clock; the server itself drops it when
nobody may want it any longer. Whatever reads or changes one is a script (`redis.lua`), one atomic step and one trip; WAIT
goes along in the same trip where replicas are to acknowledge. Every call is bounded by `timeout_s`, and every failure is a
`StoreError` of one line.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections import Counter
from functools import partial
from hashlib import sha1
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from sessile.delta import Outcome
from sessile.errors import RecordError, SettingsError, StoreError
from sessile.forks import call_after_fork, keep_forever, notice_fork
from sessile.record import ENDED, LIVE, ROTATED, Record
from sessile.stores.base import Fetched, FetchStatus, Pushed
from sessile.stores.redis_address import CLUSTER, SENTINEL, RedisAddress
from sessile.stores.redis_channel import listen
from sessile.stores.redis_links import UNWAITED, LinkLost, Links, Wait, dialer, info_of, reason_of
from sessile.stores.redis_servers import Cluster, Sentinels, Single, is_any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sessile.delta import Delta
    from sessile.record import Version
    from sessile.stores.base import Channel
    from sessile.stores.redis_links import Answer, Command
    from sessile.stores.redis_servers import Servers
    from sessile.token import SessionKey

__all__ = ["RedisStore"]

_T = TypeVar("_T")
_LOG: Final = logging.getLogger("sessile.store")
OLDEST: Final = 7
"""Scripts that run when memory is short, and expiry of what a script sets, need this version."""
WAIT_SLACK_MS: Final = 120
"""A server looks ten times a second whether a WAIT has waited for long enough."""

_encode: Final = msgspec.msgpack.Encoder().encode


class _Script:
    """A script by its parts, as it is called.

    Args:
        names: files of `lua/`, in this order.
        is_frugal: it frees memory, or takes none: it runs when the server has none left.
    """

    def __init__(self, *names: str, is_frugal: bool = False) -> None:
        folder = resources.files("sessile.stores").joinpath("lua")
        head = ["#!lua flags=allow-oom\n"] if is_frugal else []
        text = "".join([*head, *(folder.joinpath(f"{name}.lua").read_text() for name in names)])
        self.ways: Final = (("EVALSHA", sha1(text.encode()).hexdigest()), ("EVAL", text))  # noqa: S324  # Redis' choice
        """By its hash, and as a whole for a server that has not seen it yet."""


_FETCH: Final = _Script("fetch", is_frugal=True)
_TOUCH: Final = _Script("touch", is_frugal=True)
_APPLY: Final = _Script("record", "apply")
_MERGE: Final = _Script("record", "merge")
_END: Final = _Script("record", "merge", is_frugal=True)

_OUTCOMES: Final = (Outcome.KNOWN, Outcome.APPLIED, Outcome.NEED)
_SPOILT: Final = 4
"""As in `record.lua`."""


class RedisStore:
    """A `Store` in Redis or Valkey.

    Args:
        at: a URL, or a client of redis-py or valkey-py (asyncio) of which the settings are taken.
        cluster: what every name in the store begins with; services that are not to share sessions have different ones.
        timeout_s: how long any call takes at most.
        tombstone_keep_ms: how long the end of a session is remembered.
        rotation_grace_ms: how long a rotated session may be looked at.
    """

    has_channel = True

    def __init__(
        self,
        at: Any,
        *,
        cluster: str = "sessile",
        timeout_s: float = 1.0,
        tombstone_keep_ms: int = 600_000,
        rotation_grace_ms: int = 10_000,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """`malformed`: what stood under a session's key and was no record; `foreign_messages`: the same in the channel."""
        self.where, self.is_single, self._connect = _reached_at(at)
        # Braces would put all sessions into one slot of a cluster.
        self._prefix = f"{cluster}:".replace("%", "%25").replace("{", "%7B").replace("}", "%7D").encode()
        self._channel = f"{self._prefix.decode()}changes"
        self._timeout_s = timeout_s
        self._limits = (rotation_grace_ms, tombstone_keep_ms, self._channel)
        self._wait_ms = max(1, int(timeout_s * 1_000) - max(WAIT_SLACK_MS, int(timeout_s * 250)))
        self._servers: Servers | None = None
        call_after_fork(self._after_fork)

    def __repr__(self) -> str:
        return f"<RedisStore {self.where}>"

    # -- the verbs -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and see that the store is one that will do. What cannot be reached now may be later."""
        notice_fork()
        if self._servers is None:
            self._servers = self._connect()
        replies, _ = await self._trip(None, [("INFO", "server"), ("INFO", "memory")])
        server, memory = map(info_of, replies)
        version = server.get("redis_version", "")
        if re.match(r"\d", version) and int(version.partition(".")[0]) < OLDEST:
            raise StoreError(f"{self.where} has version {version}, and {OLDEST}.0 is the oldest that will do")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and memory.get("maxmemory", "0") != "0":
            _LOG.warning(
                "%s throws sessions away when its memory is full (maxmemory-policy %s): set it to noeviction",
                self.where,
                policy,
            )

    async def close(self) -> None:
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()

    def _after_fork(self) -> None:
        """The connections are the parent's (`Links` lets go of them); a child opens its own."""
        servers, self._servers = self._servers, None
        keep_forever(servers)

    async def fetch(self, key: SessionKey, have: Version | None) -> Fetched:
        reply = await self._fetch(self._prefix + key, have)
        if reply is None:
            return Fetched(FetchStatus.NONE)
        if reply == 0:
            return Fetched(FetchStatus.CURRENT)
        try:
            return Fetched(FetchStatus.RECORD, self._record(*reply))
        except RecordError:
            self.counts["malformed"] += 1
            return Fetched(FetchStatus.NONE)

    async def apply(self, delta: Delta, ack: str) -> Pushed:
        return await self._push(_APPLY, delta.key, delta.pack(), ack)

    async def merge(self, key: SessionKey, record: Record, ack: str) -> Pushed:
        return await self._push(_MERGE if record.state == LIVE else _END, key, record.pack(), ack)

    async def touch(self, touches: Mapping[SessionKey, int]) -> None:
        keys = [self._prefix + key for key in touches]
        ago_ms = dict(zip(keys, touches.values(), strict=True))
        for way in _TOUCH.ways:

            def command(some: Sequence[bytes], way: tuple[str, str] = way) -> Command:
                return (*way, len(some), *some, *(ago_ms[key] for key in some))

            replies = await self._bounded(partial(_each, keys, command))
            if not is_any(replies, "NOSCRIPT"):
                break
        self._refuse(replies)

    async def listen(self, told: Callable[[Channel], None]) -> None:
        if self._servers is None:
            raise StoreError(f"{self.where} is not open")
        await listen(self._servers, self._channel, told, timeout_s=self._timeout_s, counts=self.counts)

    async def expire(self, at_most: int) -> int:
        """Nothing to do: the server drops each session by itself."""
        del at_most
        return 0

    # -- how -----------------------------------------------------------------------------------------------------------

    async def _fetch(self, name: bytes, have: Version | None) -> Any:
        """Nothing, or 0 for what the asker has, or the record's bytes and the time."""
        if have is not None:
            reply, _ = await self._run(_FETCH, name, _encode(have))
            return reply
        replies, _ = await self._trip(name, [("GET", name), ("TIME",)])
        if is_any(replies[:1], "WRONGTYPE"):
            replies[0] = b""  # no record of ours
        self._refuse(replies)
        return None if replies[0] is None else replies

    async def _push(self, script: _Script, key: SessionKey, change: bytes, ack: str) -> Pushed:
        reply, is_acknowledged = await self._run(script, self._prefix + key, change, *self._limits, ack=ack)
        code, *rest = reply if isinstance(reply, list) else [reply]
        if code & _SPOILT:
            self.counts["malformed"] += 1
        try:
            return Pushed(_OUTCOMES[code & ~_SPOILT], self._record(*rest) if rest else None, is_acknowledged)
        except RecordError as error:
            raise StoreError(f"{self.where} holds what is no session: {error}") from error

    async def _run(self, script: _Script, name: bytes, *arguments: Any, ack: str = "none") -> tuple[Any, bool]:
        """What the script says of one session, and whether as many replicas as `ack` demands have it."""
        for way in script.ways:
            command = (*way, 1, name, *arguments)
            replies, is_acknowledged = await self._trip(name, [command], Wait(ack, self._wait_ms))
            if not is_any(replies, "NOSCRIPT"):
                break
        self._refuse(replies)
        return replies[0], is_acknowledged

    async def _trip(self, name: bytes | None, commands: Sequence[Command], wait: Wait = UNWAITED) -> Answer:
        return await self._bounded(lambda servers: servers.trip(name, commands, wait))

    async def _bounded(self, ask: Callable[[Servers], Awaitable[_T]]) -> _T:
        """An answer in time, or a StoreError."""
        notice_fork()
        servers = self._servers
        if servers is None:
            raise StoreError(f"{self.where} is not open")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask(servers)
        except LinkLost as lost:
            raise StoreError(f"{self.where} {lost}") from lost
        except TimeoutError:
            await servers.doubt()
            raise StoreError(f"{self.where} does not answer within {self._timeout_s:g} s") from None

    def _refuse(self, replies: Sequence[Any]) -> None:
        for reply in replies:
            if isinstance(reply, Exception):
                raise StoreError(f"{self.where} {reason_of(reply)}") from reply

    def _record(self, data: bytes, clock: list[bytes]) -> Record:
        """A record as the server holds it, by the time that it shows. Raises RecordError."""
        now_ms = int(clock[0]) * 1_000 + int(clock[1]) // 1_000
        record = Record.parse(data).shift(-now_ms)
        is_seen_enough = record.state == ROTATED and record.ended_ms + self._limits[0] <= 0
        return record.end(ENDED, 0) if is_seen_enough else record


async def _each(keys: Sequence[bytes], command: Callable[[Sequence[bytes]], Command], servers: Servers) -> list[Any]:
    return await servers.each(keys, command)


def _reached_at(at: Any) -> tuple[str, bool, Callable[[], Servers]]:
    """What a URL or a client leads to, for people; whether it is one server alone; and what connects to it."""
    if not isinstance(at, str):
        return _reached_by(at)
    address = RedisAddress.read(at)
    dial = dialer(is_tls=address.is_tls, **address.connection_options())
    if address.kind == CLUSTER:
        return address.where, False, lambda: Cluster(dial, address.hosts)
    if address.kind == SENTINEL:
        ask = dialer(is_tls=address.is_tls, **address.sentinel_options())

        def sentinels() -> Servers:
            links = [Links(ask(*host), must_be_primary=False) for host in address.hosts]
            return Sentinels(dial, links, address.name)

        return address.where, False, sentinels
    return address.where, True, lambda: Single(dial(*address.hosts[0]))


def _reached_by(client: Any) -> tuple[str, bool, Callable[[], Servers]]:
    """The same for a client object. Its connections stay its own: what is taken over is how it makes them."""
    name = f"{type(client).__module__}.{type(client).__name__}"
    if nodes := getattr(client, "nodes_manager", None):
        options = {key: value for key, value in client.connection_kwargs.items() if key != "redis_connect_func"}
        seeds = [(node.host, int(node.port)) for node in nodes.startup_nodes.values()]
        kind = next(iter(nodes.startup_nodes.values())).connection_class
        return (
            name,
            False,
            lambda: Cluster(lambda host, port: lambda: kind(**{**options, "host": host, "port": port}), seeds),
        )
    make = getattr(getattr(client, "connection_pool", None), "make_connection", None)
    if make is None or not inspect.iscoroutinefunction(getattr(client, "execute_command", None)):
        raise SettingsError(f"a store is a URL, or a client like redis.asyncio.Redis; {name} is neither")
    return name, not hasattr(client.connection_pool, "sentinel_manager"), lambda: Single(make)
