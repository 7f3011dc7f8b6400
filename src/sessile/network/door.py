"""The door of a node's port: who comes in proves itself first, and no more than so many do so at a time.

A stranger who connects and says nothing costs a socket for two seconds, and a process has few of them: of too many the one
that has been at it the longest goes, since a member is through in milliseconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from sessile.forks import call_after_fork, cut_off, keep_forever
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

__all__ = ["Door"]

UNPROVEN_MAX: Final = 64
PROVE_S: Final = 2.0
BACKLOG: Final = 128
TURNS: Final = 3
PAUSE_S: Final = 0.1
"""The process has no sockets left: others may close theirs."""


class Door:
    """Takes connections on a bound socket.

    Args:
        listener: bound.
        make: the protocol of one connection, made when it has proven itself.
        tls: how it does; None where nobody has to.
        failed: called with the host of a connection that did not prove itself, and the error.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        failed: Callable[[str, OSError], None] | None = None,
    ) -> None:
        self._listener = listener
        self._make = make
        self._failed = failed
        self._tls: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": PROVE_S}
        self._unproven: dict[asyncio.Task[None], socket.socket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where connections are taken; None while none is."""
        self._pausing: asyncio.TimerHandle | None = None
        call_after_fork(self._after_fork)

    def open(self) -> None:
        """Let them come."""
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._loop = asyncio.get_running_loop()
        self._listen()

    async def close(self) -> None:
        """Take nobody any more; who has come in stays."""
        if self._pausing is not None:
            self._pausing.cancel()
        if self._loop is not None:
            self._loop.remove_reader(self._listener)
            self._loop = None
        await asyncio.sleep(0)  # let the last one begin: from then on it owns its socket
        await end_tasks(list(self._unproven))
        self._listener.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)  # asyncio closes the sockets of handshakes that were cancelled in a later turn

    def _listen(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Somebody came. In one step, since a task that waits for a connection loses it where it is cancelled at that moment."""
        loop = self._loop
        assert loop is not None, "it is open"
        try:
            came, where = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            loop.remove_reader(self._listener)
            self._pausing = loop.call_later(PAUSE_S, self._listen)
            return
        came.setblocking(False)
        if len(self._unproven) >= UNPROVEN_MAX:
            next(iter(self._unproven)).cancel()
        task = loop.create_task(self._take(came, str(where[0])))
        self._unproven[task] = came
        task.add_done_callback(lambda done: self._unproven.pop(done, None))

    async def _take(self, came: socket.socket, host: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._make, came, **self._tls)
        except OSError as error:  # a handshake that fails, by TLS or by time, is one, too
            if self._failed is not None:
                self._failed(host, error)

    def _after_fork(self) -> None:
        """Leave the port, and the connections that were just accepted, to the parent."""
        for held in (self._listener, *self._unproven.values()):
            cut_off(held.fileno())
        keep_forever(self._loop, self._pausing, self._unproven)
        self._unproven, self._loop, self._pausing = {}, None, None
