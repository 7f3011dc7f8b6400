"""The members of a cluster, as somebody learns them who is none: a balancer that is told one member, or a few.

Every node greets first, and its greeting holds the whole list: who is there, where each serves, who is leaving or gone, and
whom it is linked to. So who proves to have the secret (TLS) needs no message of their own: they dial, read, and hang up. One
member after the other is asked, also those that were learned, so any of them may die.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessile.addresses import split
from sessile.errors import WireError
from sessile.network import failures
from sessile.replication.member import Stage
from sessile.replication.wire import Frames, decode

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from sessile.replication.messages import Hello

__all__ = ["Served", "Watch", "greeting_of"]

_LOG: Final = logging.getLogger("sessile.cluster")
EVERY_S: Final = 0.5
ASK_S: Final = 1.0
KNOWN_MAX: Final = 1_024
SHOWN_MAX: Final = 3
"""At most this many members' reasons are in the warning; they are alike as a rule."""


class Served(NamedTuple):
    """A member that serves requests."""

    name: str
    """Its address as a node."""
    address: str
    """Where its app is served, `host:port`."""
    is_leaving: bool


class Watch:
    """Asks again and again, and tells when the answer is another one.

    Args:
        members: addresses of nodes, `host:port`; the others are learned.
        told: called with all members that serve, by name, when that changed.
        tls: the context for links that are dialled; None for links in the clear.
        every_s: seconds between two questions.
    """

    def __init__(
        self,
        members: Sequence[str],
        told: Callable[[tuple[Served, ...]], None],
        tls: ssl.SSLContext | None,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._given = list(members)
        self._told = told
        self._tls = tls
        self._tls_setting = "off" if tls is None else "secret"
        self._every_s = every_s
        self._learned: list[str] = []
        self._last: tuple[Served, ...] = ()
        self._is_silent = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> bool:
        """Ask until one answers; whether any did."""
        problems: dict[str, None] = {}
        for address in dict.fromkeys([*self._learned, *self._given]):
            try:
                hello = await greeting_of(address, self._tls)
            except (OSError, TimeoutError, WireError, EOFError) as error:
                _LOG.debug("%s did not answer: %s", address, error)
                is_silence = isinstance(error, EOFError | WireError)
                failure = failures.dialled(None if is_silence else error, self._tls_setting, ASK_S)
                problems[f"{address}: {failure.problem}; {failure.remedy}"] = None
                continue
            self._take(hello)
            if self._is_silent:
                self._is_silent = False
                _LOG.warning("%s answers: the servers are learned from the cluster again", address)
            return True
        if not self._is_silent:
            self._is_silent = True
            shown = list(problems)[:SHOWN_MAX]
            kept = "the servers stay as they were" if self._last else "no server is known yet"
            _LOG.warning("no member of the cluster answers at --member, so %s (%s)", kept, " / ".join(shown))
        return False

    def _take(self, hello: Hello) -> None:
        infos = [info for info in hello.members if info.stage != Stage.GONE]
        self._learned = [info.name for info in infos][:KNOWN_MAX]
        served = tuple(
            sorted(Served(info.name, info.serves, info.stage == Stage.LEAVING) for info in infos if info.serves)
        )
        if served != self._last:
            self._last = served
            self._told(served)


async def greeting_of(address: str, tls: ssl.SSLContext | None) -> Hello:
    """What the node at an address greets with.

    Raises:
        OSError, TimeoutError, EOFError: nobody answers there, or it does not accept us.
        WireError: what it says is no greeting.
    """
    host, port = split(address)
    options: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": ""}
    async with asyncio.timeout(ASK_S):
        reader, writer = await asyncio.open_connection(host, port, **options)
        try:
            frames = Frames()
            while True:
                data = await reader.read(65_536)
                if not data:
                    raise EOFError("it hung up")
                for frame in frames.feed(data):
                    hello: Any = decode(frame, is_greeting=True)
                    return hello  # type: ignore[no-any-return]
        finally:
            writer.transport.abort()
