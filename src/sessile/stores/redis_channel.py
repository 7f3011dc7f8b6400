"""The channel of Redis or Valkey: a subscription to each primary, and beats that prove that no message was missed.

If a subscription is silent, PING is sent; if no answer comes, the subscription counts as down after a second. While copies are
served without asking, a *beat* is written to each primary ten times a second, over another connection. The primary publishes it
to the subscription, after everything that it published before. So a beat that comes back proves three things: this process has
received everything published before it, it subscribes to the server that takes its writes, and that server is still a primary.
If Sentinels decide which server is the primary, they are asked as well. The store remembers which servers send beats. These
*lessees* may hold leases, and confirm an end to the server that waits for it.

In a Redis Cluster there is a subscription to each primary, because messages that primaries forward to each other may be lost.
So a change is received once from each primary, which does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from random import SystemRandom
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sessile.clock import boot_clock_ms
from sessile.forks import dropped_by
from sessile.record import LIVE, Stamp
from sessile.stores.base import Changed, ChannelDown, ChannelUp, Confirmed, Pulse
from sessile.stores.leases import LEASE_MS
from sessile.stores.redis_links import LinkLost, code_of, drop, dropped_when_lost, is_setup, reason_of, receive, send
from sessile.stores.redis_scripts import Script
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from sessile.stores.base import Channel
    from sessile.stores.redis_links import Command, Links
    from sessile.stores.redis_servers import Servers

__all__ = ["Listener"]

PING_S: Final = 0.5
MISSED_MAX: Final = 2
"""The link is down if nothing came within `PING_S` this many times in a row. A pause of this process counts only once."""
WATCH_S: Final = 1.0
"""How often it is checked that the primary is still the same."""
BEAT_S: Final = 0.1
"""The interval between beats while copies are served without asking: three of them fit into a lease."""
CONFIRMED_AT_ONCE: Final = 200
UNCONFIRMED_MAX: Final = 10_000
"""At most this many ends wait to be confirmed. Beyond it the oldest is dropped: its server waits for the lease to run out."""
PAUSE_MIN_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0
REFUSED_PAUSE_MAX_S: Final = 30.0
"""The same if the user lacks a right, which an administrator must grant."""

_RANDOM: Final = SystemRandom()
_BEAT: Final = Script("beat", is_frugal=True)
_encode: Final = msgspec.msgpack.Encoder().encode
_changed: Final = msgspec.msgpack.Decoder(tuple[bytes, int, tuple[Stamp, ...], bytes]).decode
_to_us: Final = msgspec.msgpack.Decoder(int | tuple[bytes, bytes]).decode
"""A message to this server's inbox: a beat, as the time at which it was sent, or a session's key and the server that confirms
its end."""


@dropped_by("RedisStore", "a child listens under a name and at an inbox of its own")
class Listener:
    """One server's subscriptions.

    Args:
        servers: the servers that publish.
        channel: the channel of changes.
        lessees: the name of the sorted set of servers that may hold leases.
        told: called with each event.
        is_used: whether copies are served without asking at present.
        counts: counts malformed messages, and beats that a primary refuses.
        refused: called with the reason if the store's user lacks a right.
    """

    def __init__(
        self,
        servers: Servers,
        channel: str,
        lessees: bytes,
        *,
        told: Callable[[Channel], None],
        is_used: Callable[[], bool] | None,
        counts: Counter[str],
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name: Final = token_hex(8).encode()
        """This server's name in the set of lessees."""
        self.inbox = ""
        """The channel to which beats and confirmations for this server are published; empty while it does not listen."""
        self._servers = servers
        self._channel = channel
        self._lessees = lessees
        self._told = told
        self._is_used = is_used or (lambda: True)
        self._counts = counts
        self._refused = refused
        self._unconfirmed: deque[tuple[bytes, bytes]] = deque(maxlen=UNCONFIRMED_MAX)
        """Ends to confirm: the inbox of the server that waits, and the session's key."""
        self._to_confirm = asyncio.Event()

    async def listen(self, *, timeout_s: float) -> None:
        """Report events until cancelled.

        Args:
            timeout_s: how long connecting may take.
        """
        pause_s = PAUSE_MIN_S
        while True:
            subscriptions: list[_Subscription] = []
            is_up, longest_s = False, PAUSE_MAX_S
            try:
                async with asyncio.timeout(timeout_s):
                    primary = await self._subscribe(subscriptions, timeout_s)
                self._told(ChannelUp(primary))
                self.inbox = subscriptions[0].inbox
                is_up, pause_s = True, PAUSE_MIN_S
                await self._run(subscriptions, primary, timeout_s)
            except (LinkLost, TimeoutError) as error:
                if is_up:
                    self._told(ChannelDown())
                if isinstance(error, LinkLost) and error.is_setup:
                    self._refused(str(error))
                    longest_s = REFUSED_PAUSE_MAX_S
            finally:
                self.inbox = ""
                for subscription in subscriptions:
                    await subscription.end()
            if longest_s == PAUSE_MAX_S:  # otherwise the servers have answered, and their connections are good
                await self._servers.doubt()
            await asyncio.sleep(pause_s * _RANDOM.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, longest_s)

    async def _subscribe(self, subscriptions: list[_Subscription], timeout_s: float) -> str:
        """Subscribe to every primary. Returns their identity. Raises LinkLost."""
        primaries = await self._servers.primaries()
        for at, (links, tag) in enumerate(primaries):
            inbox = f"{self._channel}:{self.name.decode()}:{at}"
            subscription = _Subscription(links, self._lessees + tag, inbox)
            subscriptions.append(subscription)
            await subscription.begin(self._channel, timeout_s)
        primary = await self._servers.identity()
        now = [links for links, _ in await self._servers.primaries()]
        if now != [links for links, _ in primaries] or any(links.is_closed for links in now):
            raise LinkLost("has another primary now")
        return primary

    async def _run(self, subscriptions: list[_Subscription], primary: str, timeout_s: float) -> None:
        """Report events until a link is lost or another primary takes over. Raises LinkLost."""
        pulse = _Pulse(subscriptions, self._told)
        works = [
            *(self._read(subscription, pulse) for subscription in subscriptions),
            self._watch(primary, timeout_s),
            self._beat(subscriptions, pulse, timeout_s),
            self._confirm(timeout_s),
        ]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end_tasks(tasks)
        raise LinkLost("has another primary")

    async def _read(self, subscription: _Subscription, pulse: _Pulse) -> None:
        """Report the events of one subscription. Raises LinkLost."""
        missed = 0
        async with dropped_when_lost(subscription.connection):
            while True:
                message = await receive(subscription.connection, PING_S)
                missed = 0 if message is not None else missed + 1
                if missed == MISSED_MAX:
                    raise LinkLost("is silent")
                if message is None:
                    await send(subscription.connection, [("PING",)])
                elif isinstance(message, Exception):  # even a refused PING shows that the link works
                    self._hear_refusal(message)
                elif message[0] == b"message":
                    self._hear(subscription, message[1], message[2], pulse)

    def _hear(self, subscription: _Subscription, channel: bytes, data: bytes, pulse: _Pulse) -> None:
        try:
            if channel != self._channel.encode():
                said = _to_us(data)
                if isinstance(said, int):
                    subscription.heard_ms = max(subscription.heard_ms, said)
                    pulse.tell()
                else:
                    self._told(Confirmed(*said))
                return
            key, state, heads, asker = _changed(data)
        except msgspec.MsgspecError:
            self._counts["foreign_messages"] += 1
            return
        self._told(Changed(key, tuple(sorted(heads)), state))
        if asker and state != LIVE and asker != self.inbox.encode():
            self._unconfirmed.append((asker, key))
            self._to_confirm.set()

    def _hear_refusal(self, error: Exception) -> None:
        if is_setup(error):
            self._refused(reason_of(error))

    async def _watch(self, primary: str, timeout_s: float) -> None:
        """Return when the primary has changed."""
        now = primary
        while now == primary:
            await asyncio.sleep(WATCH_S)
            with contextlib.suppress(LinkLost, TimeoutError):  # a lost link is noticed by its reader
                async with asyncio.timeout(timeout_s):
                    now = await self._servers.identity()

    async def _beat(self, subscriptions: list[_Subscription], pulse: _Pulse, timeout_s: float) -> None:
        """Send beats to each primary while copies are served without asking. Raises LinkLost if one is not a primary any more."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            if self._is_used():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        sent_ms = boot_clock_ms()
                        beats = (
                            subscription.beat(self.name, sent_ms, self._beat_refused) for subscription in subscriptions
                        )
                        is_current, *_ = await asyncio.gather(self._is_current(), *beats)
                        if is_current:
                            pulse.checked_ms = sent_ms
                            pulse.tell()
            await asyncio.sleep(max(began_s + BEAT_S - loop.time(), 0))

    def _beat_refused(self, error: Exception) -> None:
        self._counts["refused_beats"] += 1
        self._hear_refusal(error)

    async def _is_current(self) -> bool:
        try:
            return await self._servers.is_current()
        except LinkLost:
            return False

    async def _confirm(self, timeout_s: float) -> None:
        """Publish the confirmations of ends to the servers that wait for them."""
        while True:
            await self._to_confirm.wait()
            self._to_confirm.clear()
            while self._unconfirmed:
                some = [self._unconfirmed.popleft() for _ in range(min(len(self._unconfirmed), CONFIRMED_AT_ONCE))]
                commands: list[Command] = [("PUBLISH", asker, _encode((key, self.name))) for asker, key in some]
                with contextlib.suppress(LinkLost, TimeoutError):  # the leases will run out
                    async with asyncio.timeout(timeout_s):
                        await self._servers.trip(None, commands)


class _Pulse:
    """The time up to which everything published has been received, over all subscriptions."""

    def __init__(self, subscriptions: list[_Subscription], told: Callable[[Channel], None]) -> None:
        self.checked_ms = 0
        """When the set of primaries was last confirmed."""
        self._subscriptions = subscriptions
        self._told = told
        self._last_ms = 0

    def tell(self) -> None:
        pulse_ms = min(self.checked_ms, *(subscription.heard_ms for subscription in self._subscriptions))
        if pulse_ms > self._last_ms:
            self._last_ms = pulse_ms
            self._told(Pulse(boot_clock_ms() - pulse_ms))


@dropped_by("Listener", "its connection is one of those of Links")
class _Subscription:
    """A subscription to one primary.

    Args:
        links: other connections to the same primary.
        lessees: the name of this primary's set of lessees.
        inbox: the channel to which this primary publishes beats and confirmations for this server.
    """

    def __init__(self, links: Links, lessees: bytes, inbox: str) -> None:
        self.connection: Any = None
        self.inbox = inbox
        self.heard_ms = 0
        """The time at which the newest beat that came back was sent."""
        self._links = links
        self._lessees = lessees

    async def begin(self, channel: str, timeout_s: float) -> None:
        """Subscribe. Raises LinkLost."""
        self.connection = await self._links.connected()
        async with dropped_when_lost(self.connection):
            for name in (channel, self.inbox):
                await send(self.connection, [("SUBSCRIBE", name)])
                answer = await receive(self.connection, timeout_s)
                if isinstance(answer, Exception):
                    raise LinkLost(reason_of(answer), is_setup=is_setup(answer))
                if answer is None:
                    raise LinkLost("is silent")

    async def end(self) -> None:
        if self.connection is not None:
            await drop(self.connection)

    async def beat(self, name: bytes, sent_ms: int, refused: Callable[[Exception], None]) -> None:
        """Send a beat; `refused` is called if the server refuses it. Raises LinkLost if the server is not a primary any more."""
        if self._links.is_closed:
            raise LinkLost("has another primary now")
        for way in _BEAT.ways:
            command = (*way, 1, self._lessees, name, LEASE_MS, self.inbox, _encode(sent_ms))
            (reply,) = (await self._links.trip([command], is_answered=partial(_is_named, name))).replies
            if not isinstance(reply, Exception) or code_of(reply) != "NOSCRIPT":
                break
        if isinstance(reply, Exception):
            if code_of(reply) in {"READONLY", "MOVED"}:
                raise LinkLost(reason_of(reply))
            refused(reply)


def _is_named(name: bytes, replies: list[Any]) -> bool:
    return isinstance(replies[0], Exception) or replies[0] == name
