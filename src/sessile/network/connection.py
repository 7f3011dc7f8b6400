"""One TCP connection to another node: bytes in, frames out, and a bound on what waits to be sent.

The kernel's and TLS's business ends here. What was received goes to the runtime as frames, as many as one read brought, but
no more at a time than takes a few milliseconds: then the loop's others get a turn, and the peer waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from sessile.errors import WireError
from sessile.forks import call_after_fork, cut_off_transport, keep_forever
from sessile.replication.wire import LENGTH_BYTES, Frames

if TYPE_CHECKING:
    from typing import Protocol

    class Ends(Protocol):
        """Whoever keeps the connections."""

        def came_up(self, connection: Connection) -> int:
            """It is up; returns the number of its link, 0 if it is not wanted."""

        def frames_came(self, connection: Connection, frames: tuple[bytes, ...], size: int) -> None:
            """These came, so many bytes in all."""

        def went_down(self, connection: Connection) -> None:
            """It is gone."""


__all__ = ["Connection"]

WAITING_BYTES_MAX: Final = 32 * 2**20
"""A peer that takes so much less than it is sent is hung up; repair brings what it missed once it is back."""
TURN_BYTES: Final = 16 * 2**10
"""So many bytes of frames are worked through at a time."""
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
        self.error: Exception | None = None
        """Why it is gone, where an error tells."""
        self._ends = ends
        self._frames = Frames()
        self._waiting: deque[bytes] = deque()
        """Frames that came and had no turn yet; nothing is read meanwhile."""
        self._transport: asyncio.Transport | None = None
        call_after_fork(self._after_fork)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were written and have not left this process."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

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
        except WireError as error:
            self.error = error
            self.abort()
            return
        if self._waiting:  # TLS gives what it has decrypted all the same
            self._waiting.extend(frames)
        elif len(data) <= TURN_BYTES:
            self._hand_on(frames)
        elif frames:
            self._waiting.extend(frames)
            self._turn()

    def _turn(self) -> None:
        """Work through some of the frames that wait; then the others on this loop have theirs."""
        waiting = self._waiting
        if not waiting or not self.is_open:
            return
        frames = [waiting.popleft()]
        size = len(frames[0])
        while waiting and size + len(waiting[0]) <= TURN_BYTES:
            frames.append(waiting.popleft())
            size += len(frames[-1])
        self._hand_on(tuple(frames))
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if waiting:
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            transport.resume_reading()

    def _hand_on(self, frames: tuple[bytes, ...]) -> None:
        if frames:
            self._ends.frames_came(self, frames, sum(map(len, frames)) + LENGTH_BYTES * len(frames))

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = self.error or exc
        self._transport = None
        self._hand_on(tuple(self._waiting))
        self._waiting.clear()
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
        if (
            transport is not None and not transport.is_closing()
        ):  # closed twice, asyncio's TLS cannot be aborted any more
            transport.close()
            loop.call_later(LINGER_S, self.abort)  # unless it is gone by then

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def _after_fork(self) -> None:
        """Leave the connection to the parent. While the child kept it open too, the peer could not see the parent close it."""
        if self._transport is not None:
            cut_off_transport(self._transport)
            keep_forever(self._transport)
            self._transport = None
