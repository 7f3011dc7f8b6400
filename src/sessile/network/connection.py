"""One TCP connection to another node: bytes in, frames out, and a bound on what waits to be sent.

The kernel's and TLS's business ends here. What was received goes to the runtime as frames, as many as one read brought.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from sessile.errors import WireError
from sessile.replication.wire import Frames

if TYPE_CHECKING:
    from typing import Protocol

    class Ends(Protocol):
        """Whoever keeps the connections."""

        def came_up(self, connection: Connection) -> int:
            """It is up; returns the number of its link, 0 if it is not wanted."""

        def frames_came(self, connection: Connection, frames: tuple[bytes, ...], size: int) -> None:
            """One read of the socket brought these."""

        def went_down(self, connection: Connection) -> None:
            """It is gone."""


__all__ = ["Connection"]

WAITING_BYTES_MAX: Final = 32 * 2**20
"""A peer that takes so much less than it is sent is hung up; repair brings what it missed once it is back."""
LINGER_S: Final = 1.0
"""So long what was written may take to leave after hanging up."""


class Connection(asyncio.Protocol):
    """A connection to a node.

    Args:
        ends: told of what happens to it.
        address: what was dialled; empty where the other side did.
    """

    def __init__(self, ends: Ends, address: str = "") -> None:
        self.link = 0
        self.address = address
        self._ends = ends
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def application(self) -> str | None:
        """The application that both sides of a TLS connection named (ALPN); None for one in the clear."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return None if tls is None else cast("str | None", tls.selected_alpn_protocol())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.link = self._ends.came_up(self)
        if not self.link:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self.is_open:
            return
        try:
            frames = self._frames.feed(data)
        except WireError:
            self.abort()
            return
        if frames:
            self._ends.frames_came(self, frames, len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whatever it was, the link is gone
        self._transport = None
        if self.link:
            self._ends.went_down(self)

    def write(self, data: bytes) -> None:
        """Send, unless too much waits already."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > WAITING_BYTES_MAX:
            transport.abort()
            return
        transport.write(data)

    def hang_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close, once what was written has left; not waiting for long."""
        transport = self._transport
        if transport is not None:
            transport.close()
            loop.call_later(LINGER_S, transport.abort)

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()
