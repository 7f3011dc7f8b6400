"""Sessions in Redis or Valkey: one server, one behind Sentinels, or a cluster.

A session is one string: what `Record.pack` gives, its times on the server's clock, and then the session's key. The server drops
it by its time to live. Changes, and reads of what a copy lacks, are scripts (`lua/`): one atomic step and one trip. WAIT goes in
the same trip if replicas are to acknowledge. Every call is bounded by `timeout_s`, and every failure is a `StoreError` of one
line.

Every answer names its session. An answer that names another session shows that another process, such as a forked one, uses the
same connection. It is refused and counted, and the connection is closed.
"""

from __future__ import annotations

import inspect
import logging
import re
import time
from collections import Counter
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from sessile.delta import Outcome
from sessile.errors import RecordError, SettingsError, StarvedError, StoredRecordError, StoreError, StoreSetupError
from sessile.forks import call_after_fork, keep_forever, notice_fork
from sessile.record import LIVE, REPLACED, ROTATED, Record
from sessile.stores.base import Absence, Fetched, FetchStatus, Pushed
from sessile.stores.leases import LEASE_MS
from sessile.stores.patience import Starved, within
from sessile.stores.redis_address import CLUSTER, SENTINEL, RedisAddress
from sessile.stores.redis_channel import Listener
from sessile.stores.redis_links import UNWAITED, LinkLost, Links, Wait, dialer, info_of, is_setup, reason_of
from sessile.stores.redis_scripts import Script
from sessile.stores.redis_servers import Cluster, Sentinels, Single, is_any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sessile.delta import Delta
    from sessile.record import Version
    from sessile.stores.base import Channel
    from sessile.stores.redis_links import Answer, Check, Command
    from sessile.stores.redis_servers import IsAnswer, Servers
    from sessile.token import SessionKey

__all__ = ["RedisStore", "eviction_of"]

_T = TypeVar("_T")
_LOG: Final = logging.getLogger("sessile.store")
OLDEST: Final = 7
"""Scripts that run when memory is short, and expiry of what a script sets, need this version."""
WAIT_SLACK_MS: Final = 120
"""A server looks ten times a second whether a WAIT has waited for long enough."""

_encode: Final = msgspec.msgpack.Encoder().encode


_FETCH: Final = Script("fetch", is_frugal=True)
_TOUCH: Final = Script("touch", is_frugal=True)
_APPLY: Final = Script("record", "apply")
_MERGE: Final = Script("record", "merge")
_END: Final = Script("record", "merge", is_frugal=True)
_LESSEES: Final = Script("lessees", is_frugal=True)

_OUTCOMES: Final = (Outcome.KNOWN, Outcome.APPLIED, Outcome.NEED)
_KEEPING: Final = {"noeviction"}
_SPOILT: Final = 4
"""As in `record.lua`."""
_TOO_MUCH: Final = 3
"""The same: not an outcome, since nothing was changed."""


class RedisStore:
    """A `Store` in Redis or Valkey.

    Args:
        at: a URL, or a client of redis-py or valkey-py (asyncio) of which the settings are taken.
        cluster: what every name in the store begins with; services that are not to share sessions have different ones.
        timeout_s: how long any call takes at most.
        tombstone_keep_ms: how long the end of a session is remembered beyond the session's own deadline.
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
        """`malformed`: values under a session's key that are not a record of it; `foreign_messages`: malformed messages of the
        channel; `misdirected`: answers for another session than the one that was asked for."""
        self.where, self.is_single, self._connect = _reached_at(at)
        # Braces would put all sessions into one slot of a cluster.
        self._prefix = f"{cluster}:".replace("%", "%25").replace("{", "%7B").replace("}", "%7D").encode()
        self._channel = f"{self._prefix.decode()}changes"
        self._lessees = self._prefix + b"lessees"
        self._listener: Listener | None = None
        self._timeout_s = timeout_s
        self._limits = (rotation_grace_ms, tombstone_keep_ms, self._channel)
        self._wait_ms = max(1, int(timeout_s * 1_000) - max(WAIT_SLACK_MS, int(timeout_s * 250)))
        self._servers: Servers | None = None
        self._is_refusal_said = False
        self._warned_of = ""
        """The eviction policy that was warned of."""
        call_after_fork(self._after_fork)

    def __repr__(self) -> str:
        return f"<RedisStore {self.where}>"

    # -- the verbs -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and see that the store is one that will do. What cannot be reached now may be later."""
        notice_fork()
        if self._servers is None:
            self._servers = self._connect()
        name = self._prefix + b"epoch"
        replies = (await self._trip(name, [("INFO", "server"), ("INFO", "memory"), ("GET", name)])).replies
        self._refuse(
            [*replies[:1], *(reply for reply in replies[2:] if isinstance(reply, Exception) and is_setup(reply))]
        )
        server = info_of(replies[0])
        version = server.get("redis_version", "")
        if re.match(r"\d", version) and int(version.partition(".")[0]) < OLDEST:
            raise StoreSetupError(f"{self.where} has version {version}, and {OLDEST}.0 is the oldest that will do")
        if server.get("redis_mode") == "cluster" and self._servers.is_one:
            raise StoreSetupError(f"{self.where} is a node of a cluster: write redis+cluster://")
        policy = eviction_of(replies[1])
        if policy not in _KEEPING and policy != self._warned_of:
            self._warned_of = policy
            _LOG.warning(
                "%s evicts sessions and ends of sessions when its memory is full (maxmemory-policy %s): set it to noeviction, "
                "under which a full store counts as away until it has room",
                self.where,
                policy,
            )

    async def close(self) -> None:
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()

    def _after_fork(self) -> None:
        """Leave the connections to the parent (`Links` drops them); a child opens its own."""
        keep_forever(self._servers, self._listener)
        self._servers = self._listener = None

    async def fetch(self, key: SessionKey, have: Version | None) -> Fetched:
        said = await self._fetch(key, have)
        if not said:
            return Fetched(FetchStatus.NONE)
        if said[0] == 0:
            return Fetched(FetchStatus.CURRENT)
        try:
            return Fetched(FetchStatus.RECORD, self._record(key, *said))
        except RecordError:
            self.counts["malformed"] += 1
            return Fetched(FetchStatus.NONE)

    async def apply(self, delta: Delta, ack: str) -> Pushed:
        return await self._push(_APPLY, delta.key, delta.pack(), ack)

    async def merge(self, key: SessionKey, record: Record, ack: str, *, is_awaited: bool = False) -> Pushed:
        script = _MERGE if record.state == LIVE else _END
        return await self._push(script, key, record.pack(), ack, is_awaited=is_awaited)

    async def touch(self, touches: Mapping[SessionKey, int]) -> None:
        keys = [self._prefix + key for key in touches]
        ago_ms = dict(zip(keys, touches.values(), strict=True))
        for way in _TOUCH.ways:

            def command(some: Sequence[bytes], way: tuple[str, str] = way) -> Command:
                return (*way, len(some), *some, *(ago_ms[key] for key in some))

            replies = await self._bounded(partial(_each, keys, command, self._is_of_first))
            if not is_any(replies, "NOSCRIPT"):
                break
        self._refuse(replies)

    async def absence(self, key: SessionKey | None) -> Absence:
        """By the server's present eviction policy. The mark has no time to live, so `volatile-*` policies never evict it.

        A cluster has one mark for all its nodes. If another node evicts and has lost its data, its sessions count as ended, and
        their users have to log in again.
        """
        name = None if key is None else self._prefix + key
        memory, stats = (await self._trip(name, [("INFO", "memory"), ("INFO", "stats")])).replies
        policy = eviction_of(memory)
        has_evicted = info_of(stats).get("evicted_keys", "0") != "0"
        if policy in _KEEPING:  # it may have had another policy until now
            return Absence(may_forget_ends=has_evicted)
        if not policy.startswith("volatile-"):
            return Absence(may_forget_ends=True)
        name = self._prefix + b"epoch"
        replies = (await self._trip(name, [("SET", name, token_hex(8), "NX"), ("GET", name)])).replies
        mark = replies[1]
        return Absence(may_forget_ends=True, mark=mark if isinstance(mark, bytes) else b"")

    async def listen(self, told: Callable[[Channel], None], is_used: Callable[[], bool] | None = None) -> None:
        if self._servers is None:
            raise StoreError(f"{self.where} is not open")
        listener = self._listener = Listener(
            self._servers,
            self._channel,
            self._lessees,
            told=told,
            is_used=is_used,
            refused=self._channel_refused,
            counts=self.counts,
        )
        await listener.listen(timeout_s=self._timeout_s)

    def _channel_refused(self, reason: str) -> None:
        """Say once that a right is missing. The URL's user keeps it, so it would be said for ever."""
        if not self._is_refusal_said:
            self._is_refusal_said = True
            _LOG.warning("%s: no copy is served without asking the store, because it %s", self.where, reason)

    async def expire(self, at_most: int) -> int:
        """Nothing to do: the server drops each session by itself."""
        del at_most
        return 0

    # -- how -----------------------------------------------------------------------------------------------------------

    async def _fetch(self, key: SessionKey, have: Version | None) -> list[Any]:
        """An empty list if there is none, `[0]` if the asker lacks nothing, or the record's bytes and the time."""
        if have is not None:
            said, _ = await self._run(_FETCH, key, _encode(have))
            return said
        name = self._prefix + key
        asked = [("GET", name), ("ECHO", key), ("TIME",)]
        replies = (await self._trip(name, asked, is_answered=partial(self._is_of, key, 1))).replies
        if is_any(replies[:1], "WRONGTYPE"):
            replies[0] = b""  # read as a malformed record
        self._refuse(replies)
        data, _, clock = replies
        return [] if data is None else [data, clock]

    async def _push(
        self, script: Script, key: SessionKey, change: bytes, ack: str, *, is_awaited: bool = False
    ) -> Pushed:
        # A script of a cluster reaches the session's slot only, and the lessees would have to be in each slot.
        is_asking = is_awaited and self._servers is not None and self._servers.is_one
        also = [(_LESSEES, self._lessees)] if is_asking else []
        inbox = self._listener.inbox if is_asking and self._listener is not None else ""
        said, answer = await self._run(script, key, change, *self._limits, inbox, ack=ack, also=also)
        code, *rest = said
        if code & _SPOILT:
            self.counts["malformed"] += 1
        if code & ~_SPOILT == _TOO_MUCH:
            raise StoredRecordError(
                f"{self.where}: parallel writes of servers add up to a record larger than any server accepts"
            )
        try:
            record = self._record(key, *rest) if rest else None
        except RecordError as error:
            raise StoredRecordError(f"{self.where} holds what is no session: {error}") from error
        lessees = self._named(answer) if is_awaited else ()
        return Pushed(_OUTCOMES[code & ~_SPOILT], record, answer.is_acknowledged, lessees)

    def _named(self, answer: Answer) -> tuple[bytes, ...] | None:
        """The other servers that may hold leases, by the answer to an end; None if they are not known.

        They are not known soon after another primary took over: servers may still hold leases by beats of the old one.
        """
        names = answer.replies[1] if len(answer.replies) > 1 else None
        is_new = time.monotonic() - answer.since_s < LEASE_MS / 1000
        if not isinstance(names, list) or is_new:
            return None
        own = self._listener.name if self._listener is not None else b""
        if (
            own and own not in names
        ):  # this server is idle, or what was written there is gone, the others' names with it
            return None
        return tuple(name for name in names if name != own)

    async def _run(
        self,
        script: Script,
        key: SessionKey,
        *arguments: Any,
        ack: str = "none",
        also: Sequence[tuple[Script, bytes]] = (),
    ) -> tuple[list[Any], Answer]:
        """What the script returns for one session, and the whole answer, with those of the scripts in `also`."""
        name = self._prefix + key
        for at in range(2):
            commands: list[Command] = [(*script.ways[at], 1, name, *arguments)]
            commands += [(*other.ways[at], 1, of) for other, of in also]
            answer = await self._trip(name, commands, Wait(ack, self._wait_ms), partial(self._is_of, key, 0))
            if not is_any(answer.replies, "NOSCRIPT"):
                break
        self._refuse(answer.replies[:1])
        return answer.replies[0][1:], answer

    async def _trip(
        self,
        name: bytes | None,
        commands: Sequence[Command],
        wait: Wait = UNWAITED,
        is_answered: Check | None = None,
    ) -> Answer:
        return await self._bounded(lambda servers: servers.trip(name, commands, wait, is_answered))

    async def _bounded(self, ask: Callable[[Servers], Awaitable[_T]]) -> _T:
        """An answer in time, or a StoreError."""
        notice_fork()
        servers = self._servers
        if servers is None:
            raise StoreError(f"{self.where} is not open")
        try:
            async with within(self._timeout_s):
                return await ask(servers)
        except LinkLost as lost:
            raise (StoreSetupError if lost.is_setup else StoreError)(f"{self.where} {lost}") from lost
        except Starved:
            raise StarvedError(f"{self.where} was not heard: this process had too little time") from None
        except TimeoutError:
            await servers.doubt()
            raise StoreError(f"{self.where} does not answer within {self._timeout_s:g} s") from None

    def _refuse(self, replies: Sequence[Any]) -> None:
        for reply in replies:
            if isinstance(reply, Exception):
                kind = StoreSetupError if is_setup(reply) else StoreError
                raise kind(f"{self.where} {reason_of(reply)}") from reply

    def _is_of(self, key: SessionKey, place: int, replies: Sequence[Any]) -> bool:
        """Whether the reply at this place names the session that was asked for; counts it as misdirected if not."""
        reply = replies[place]
        is_of_it = isinstance(reply, Exception) or (reply[:1] == [key] if isinstance(reply, list) else reply == key)
        if not is_of_it:
            self.counts["misdirected"] += 1
        return is_of_it

    def _is_of_first(self, names: Sequence[bytes], reply: Any) -> bool:
        return self._is_of(names[0][len(self._prefix) :], 0, [reply])

    def _record(self, key: SessionKey, data: bytes, clock: list[bytes]) -> Record:
        """A session's record from the server's bytes, its times relative to the server's clock. Raises RecordError."""
        if not data.endswith(key):
            raise RecordError("these bytes are no record of this session")
        now_ms = int(clock[0]) * 1_000 + int(clock[1]) // 1_000
        record = Record.parse(data[: -len(key)]).shift(-now_ms)
        is_seen_enough = record.state == ROTATED and record.ended_ms + self._limits[0] <= 0
        return record.end(REPLACED, 0) if is_seen_enough else record


async def _each(
    keys: Sequence[bytes], command: Callable[[Sequence[bytes]], Command], is_answer: IsAnswer, servers: Servers
) -> list[Any]:
    return await servers.each(keys, command, is_answer)


def eviction_of(memory: Any) -> str:
    """The server's eviction policy, from its answer to INFO memory; `unknown` if it is not there."""
    said = {} if isinstance(memory, Exception) else info_of(memory)
    if said.get("maxmemory") == "0":
        return "noeviction"
    return said.get("maxmemory_policy", "unknown")


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
