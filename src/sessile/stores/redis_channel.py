"""What Redis or Valkey tells of changes: one subscription that is kept up, and known to be up.

A link that says nothing is asked; one that does not answer either is down, after a second. Beside it somebody looks whether the
primary is still the same: where it is not, the channel comes up anew, at the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sessile.forks import dropped_by
from sessile.record import Stamp
from sessile.stores.base import Changed, ChannelDown, ChannelUp
from sessile.stores.redis_links import LinkLost, drop, dropped_when_lost, reason_of, receive, send
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from sessile.stores.base import Channel
    from sessile.stores.redis_servers import Servers

__all__ = ["listen"]

PING_S: Final = 0.5
MISSED_MAX: Final = 2
"""So many times in a row nothing came within `PING_S`, and the link is down. Counted, so that a pause of our own is none."""
WATCH_S: Final = 1.0
"""How often it is seen to that the primary is still the same."""
PAUSE_MIN_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0

_RANDOM: Final = SystemRandom()
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bool, tuple[Stamp, ...]]).decode


async def listen(
    servers: Servers, channel: str, told: Callable[[Channel], None], *, timeout_s: float, counts: Counter[str]
) -> None:
    """Tell of changes until cancelled.

    Args:
        servers: who publishes.
        channel: where.
        told: what to call.
        timeout_s: how long connecting may take.
        counts: counts messages that are none of ours.
    """
    pause_s = PAUSE_MIN_S
    while True:
        subscription = _Subscription(servers, channel, timeout_s, counts)
        is_up = False
        try:
            primary = await subscription.begin()
            told(ChannelUp(primary))
            is_up, pause_s = True, PAUSE_MIN_S
            await subscription.run(primary, told)
        except (LinkLost, TimeoutError):
            if is_up:
                told(ChannelDown())
        finally:
            await subscription.end()
        await servers.doubt()
        await asyncio.sleep(pause_s * _RANDOM.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, PAUSE_MAX_S)


@dropped_by("Shared", "it keeps the task that listens for ever; the connection is one of those of Links")
class _Subscription:
    """One connection that subscribed."""

    def __init__(self, servers: Servers, channel: str, timeout_s: float, counts: Counter[str]) -> None:
        self._servers = servers
        self._channel = channel
        self._timeout_s = timeout_s
        self._counts = counts
        self._connection: Any = None

    async def begin(self) -> str:
        """Subscribe; who the primary is. Raises LinkLost or TimeoutError."""
        async with asyncio.timeout(self._timeout_s):
            links = await self._servers.links(None)
            self._connection = await links.connected()
            async with dropped_when_lost(self._connection):
                await send(self._connection, [("SUBSCRIBE", self._channel)])
                answer = await receive(self._connection, self._timeout_s)
            if isinstance(answer, Exception):
                raise LinkLost(reason_of(answer))
            primary = await self._servers.identity()
            if links.is_closed or await self._servers.links(None) is not links:
                raise LinkLost("has another primary by now")
            return primary

    async def run(self, primary: str, told: Callable[[Channel], None]) -> None:
        """Tell what comes, until the link is lost or the primary is another one. Raises LinkLost."""
        watch = asyncio.create_task(self._watch(primary))
        missed = 0
        try:
            async with dropped_when_lost(self._connection):
                while not watch.done():
                    message = await receive(self._connection, PING_S)
                    missed = 0 if message is not None else missed + 1
                    if missed == MISSED_MAX:
                        raise LinkLost("is silent")
                    if message is None:
                        await send(self._connection, [("PING",)])
                    elif message[0] == b"message":
                        self._tell(message[2], told)
        finally:
            await end_tasks([watch])
        raise LinkLost("has another primary")

    async def end(self) -> None:
        if self._connection is not None:
            await drop(self._connection)

    async def _watch(self, primary: str) -> None:
        """Returns when the primary is another one."""
        now = primary
        while now == primary:
            await asyncio.sleep(WATCH_S)
            with contextlib.suppress(LinkLost, TimeoutError):  # the link itself tells whether all is well
                async with asyncio.timeout(self._timeout_s):
                    now = await self._servers.identity()

    def _tell(self, data: bytes, told: Callable[[Channel], None]) -> None:
        try:
            key, is_over, heads = _decode(data)
        except msgspec.MsgspecError:
            self._counts["foreign_messages"] += 1
        else:
            told(Changed(key, tuple(sorted(heads)), is_over))
