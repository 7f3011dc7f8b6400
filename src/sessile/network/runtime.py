"""A node at work on one event loop: what happens goes in, what it wants done is done.

The node is pure; here are its sockets, its one timer, and the futures of those who wait for its answers. All that one turn
of the loop sends to a peer leaves in one write. Everything here runs on the loop that started it, except what says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

from sessile.backend import Acknowledged
from sessile.forks import dropped_by
from sessile.network import failures
from sessile.network.connection import Connection
from sessile.network.door import Door
from sessile.network.tls import ALPN
from sessile.network.troubles import Troubles
from sessile.replication.events import (
    AddressesFound,
    Answer,
    Dial,
    DialFailed,
    DrawWriter,
    FramesReceived,
    HangUp,
    LinkDown,
    LinkUp,
    Note,
    Send,
    StopAsked,
    Woken,
)
from sessile.replication.membership import Standing
from sessile.replication.node import Node
from sessile.shown import plain

if TYPE_CHECKING:
    import socket
    import ssl
    import threading
    from collections.abc import Callable
    from typing import Protocol

    from sessile.replication.config import NodeConfig
    from sessile.replication.events import Effect, Input
    from sessile.table import Table

    class Owner(Protocol):
        """The engine, as far as a node needs it."""

        table: Table
        lock: threading.Lock
        """Held by whoever works on the table."""
        clock_ms: Callable[[], int]
        """The time by which sessions expire."""

        def draw_writer(self) -> None:
            """Write under a new tag from now on."""


__all__ = ["Runtime"]

_LOG: Final = logging.getLogger("sessile.cluster")
DIAL_S: Final = 1.0
STRANGERS_MAX: Final = 64
"""So many connections may be up on which nobody has greeted yet; a flood of strangers costs no more."""
SPARE_BYTES_MAX: Final = 16 * 2**20
"""While this much waits to be sent to a peer, records that it can ask for again are dropped. At twice as much its link is
closed (`connection.WAITING_BYTES_MAX`)."""
JOIN_S: Final = 0.5
LOOK_S: Final = 1.0
"""How often troubles with others are looked for."""
_WARNED: Final = frozenset({"record refused", "protocol error", "starting over"})
"""What somebody should look at; other notes are for who wants to know more."""


@dropped_by("Cluster", "its sockets are those of Door and Connection, which are registered")
class Runtime:
    """One node, running.

    Args:
        owner: its engine.
        config: who it is.
        tls: the contexts for links that it dials and that it accepts; None for links in the clear.
        tls_setting: where those come from, for messages.
    """

    def __init__(
        self,
        owner: Owner,
        config: NodeConfig,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None,
        *,
        tls_setting: str = "secret",
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.node = Node(
            config, owner.table, rng=SystemRandom(), now_ms=owner.clock_ms(), waiting_bytes=self._waiting_bytes
        )
        self.bytes_sent = 0
        self.bytes_received = 0
        self._owner = owner
        self._dialling: ssl.SSLContext | None = None if tls is None else tls[0]
        self._accepting: ssl.SSLContext | None = None if tls is None else tls[1]
        self._door: Door | None = None
        self._listener: socket.socket | None = None
        self._connections: dict[int, Connection] = {}
        self._link_numbers = 0
        self._dials: set[asyncio.Task[None]] = set()
        self._tickets = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._outbox: dict[int, list[bytes]] = {}
        self._spare: dict[int, int] = {}
        """Link → the bytes in the outbox that belong to frames which may be dropped."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self.troubles = Troubles()
        self._tls_setting = tls_setting
        self._looking: asyncio.TimerHandle | None = None
        self._is_over = False

    # -- life --------------------------------------------------------------------------------------------------------

    async def listen(self, listener: socket.socket) -> None:
        """Take connections on a bound socket."""
        self._listener = listener
        self._door = Door(listener, lambda: Connection(self), self._accepting, self._turned_away)
        self._door.open()
        self._look()

    def found(self, addresses: tuple[str, ...]) -> None:
        """Discovery names these."""
        self.feed(AddressesFound(addresses))

    async def joined(self) -> None:
        """Wait until every member that answers has greeted, and no longer than that takes where nobody is in the way."""
        until = self.loop.time() + JOIN_S
        while self.node.membership.has_missing(self._owner.clock_ms()) and self.loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    async def leave(self) -> bool:
        """Leave the cluster in good order: hand over what only this node holds, and say goodbye.

        Returns:
            Whether the other members have everything.
        """
        return await self.ask(StopAsked) is Acknowledged.YES

    async def close(self) -> None:
        """Close every connection; nothing is left on the loop when this returns."""
        self._is_over = True
        self._flush()
        for timer in (self._timer, self._looking):
            if timer is not None:
                timer.cancel()
        if self._door is not None:
            await self._door.close()
        for task in list(self._dials):
            task.cancel()
        for connection in list(self._connections.values()):
            connection.hang_up(self.loop)
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)
        await asyncio.gather(*self._dials, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while any(connection.is_open for connection in self._connections.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
        for connection in list(self._connections.values()):
            connection.abort()

    def abandon(self) -> None:
        """Its loop is gone: nobody can be told, and nothing may be left that takes connections."""
        self._is_over = True
        if self._listener is not None:
            self._listener.close()

    # -- questions ---------------------------------------------------------------------------------------------------

    async def ask(self, make: Callable[[int], Input]) -> Any:
        """Give the node a question or change, and wait for its answer; `make` gets the ticket. None once it is closed."""
        if self._is_over:
            return None
        self._tickets += 1
        ticket = self._tickets
        future = self._waiting[ticket] = self.loop.create_future()
        try:
            self.feed(make(ticket))
            return await future
        finally:
            self._waiting.pop(ticket, None)

    def feed(self, event: Input) -> None:
        """Something happened: do what follows from it."""
        if self._is_over:
            return
        owner = self._owner
        with owner.lock:
            now_ms = owner.clock_ms()
            effects = self.node.handle(event, now_ms)
            if DrawWriter() in effects:  # before any thread writes to the table that was just emptied
                owner.draw_writer()
            due_ms = self.node.next_wakeup(now_ms)
        if effects:
            self._perform(effects)
        if due_ms is not None and (self._timer is None or due_ms < self._timer_ms):
            self._arm(due_ms, now_ms)

    def _arm(self, due_ms: int, now_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = due_ms
        self._timer = self.loop.call_later(max(due_ms - now_ms, 0) / 1000, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self.feed(Woken())

    # -- effects -----------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                self._post(effect)  # type: ignore[arg-type]
            elif kind is Answer:
                future = self._waiting.get(effect.ticket)  # type: ignore[union-attr]
                if future is not None and not future.done():
                    future.set_result(effect.result)  # type: ignore[union-attr]
            else:
                self._perform_rare(effect)

    def _post(self, effect: Send) -> None:
        if effect.is_spare and self._is_crowded(effect):
            self.node.counts["left_out"] += 1
            return
        outbox = self._outbox
        if not outbox:
            self.loop.call_soon(self._flush)
        waiting = outbox.get(effect.link)
        if waiting is None:
            outbox[effect.link] = [effect.frame]
        else:
            waiting.append(effect.frame)

    def _is_crowded(self, effect: Send) -> bool:
        """Whether so much waits to be sent on this link that records which its peer can ask for again are dropped."""
        connection = self._connections.get(effect.link)
        posted = self._spare.get(effect.link, 0) + len(effect.frame)
        if connection is not None and connection.waiting_bytes + posted > SPARE_BYTES_MAX:
            return True
        self._spare[effect.link] = posted
        return False

    def _waiting_bytes(self, link: int) -> int:
        connection = self._connections.get(link)
        return 0 if connection is None else connection.waiting_bytes

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        self._spare = {}
        for link, frames in outbox.items():
            connection = self._connections.get(link)
            if connection is not None:
                data = frames[0] if len(frames) == 1 else b"".join(frames)
                self.bytes_sent += len(data)
                connection.write(data)

    def _perform_rare(self, effect: Effect) -> None:
        match effect:
            case Dial():
                task = self.loop.create_task(self._dial(effect.address))
                self._dials.add(task)
                task.add_done_callback(self._dials.discard)
            case HangUp():
                self._flush()
                connection = self._connections.pop(effect.link, None)
                if connection is not None:
                    connection.hang_up(self.loop)
            case DrawWriter():
                """Done, while the table was locked."""
            case Note():
                self._note(effect)

    async def _dial(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        tls: dict[str, Any] = {}
        if self._dialling is not None:
            tls = {"ssl": self._dialling, "server_hostname": "", "ssl_handshake_timeout": DIAL_S}
        try:
            async with asyncio.timeout(DIAL_S):
                await self.loop.create_connection(lambda: Connection(self, address), host.strip("[]"), int(port), **tls)
        except (OSError, TimeoutError, ValueError) as error:
            self._dial_failed(address, error)
            self.feed(DialFailed(address, is_refused=isinstance(error, ConnectionRefusedError)))

    # -- connections -------------------------------------------------------------------------------------------------

    def came_up(self, connection: Connection) -> int:
        """A connection is up; returns the number of its link.

        0 if there are too many strangers already, or another application is meant (ALPN, RFC 7301): a certificate of
        one's own may be good for others as well.
        """
        is_flood = not connection.address and self._strangers() >= STRANGERS_MAX
        if self._is_over or is_flood or (self._accepting is not None and connection.application != ALPN):
            return 0
        self._link_numbers += 1
        number = self._link_numbers
        self._connections[number] = connection
        connection.link = number
        self.feed(LinkUp(number, connection.address))
        return number

    def frames_came(self, connection: Connection, frames: tuple[bytes, ...], size: int) -> None:
        """Frames of one link, in order."""
        self.bytes_received += size
        if connection.link in self._connections:
            self.feed(FramesReceived(connection.link, frames))

    def went_down(self, connection: Connection) -> None:
        """A connection is gone; one that was hung up from here is known to be."""
        if self._connections.pop(connection.link, None) is not None:
            if connection.address and self.node.is_greeting(connection.link):
                self._dial_failed(connection.address, connection.error)
            self.feed(LinkDown(connection.link))

    def _strangers(self) -> int:
        """How many connections are up on which nobody has greeted."""
        return len(self._connections) - len(self.node.peers)

    # -- what a person must be told ----------------------------------------------------------------------------------

    def _dial_failed(self, address: str, error: BaseException | None) -> None:
        """No link came of a dial; the node hears of it apart."""
        failure = failures.dialled(error, self._tls_setting, DIAL_S)
        if failure.kind in failures.HANDSHAKES:
            self.node.counts["failed_handshakes"] += 1
        self.troubles.failed(address, failure)

    def _turned_away(self, host: str, error: OSError) -> None:
        """Somebody came to this node's port and did not prove to be a member."""
        failure = failures.of_a_stranger(error, self._tls_setting)
        if failure is None or self._is_over:
            return
        self.node.counts["failed_handshakes"] += 1
        if self.troubles.is_news(f"{failure.kind} {host}", self._owner.clock_ms()):
            self._warn(f"a connection from {host} was turned away: {failure.problem}; {failure.remedy}")

    def _note(self, note: Note) -> None:
        """The node notes something: for a person to act on, or only for one who wants to know more."""
        about = {name: plain(value) for name, value in note.about.items()}
        text = f"{note.event} " + " ".join(f"{name}={value}" for name, value in about.items())
        now_ms = self._owner.clock_ms()
        if note.event in _WARNED and self.troubles.is_news(text, now_ms):
            self._warn(text)
        else:
            _LOG.debug("%s: %s", self.node.name, text)
        if note.event == "refused":
            self.troubles.refused(about["name"], about["reason"], about["remedy"], now_ms)
        if note.event == "refused" or about.get("after") == Standing.DEAD.value:
            self._look()

    def _look(self) -> None:
        """Tell of what is wrong with others, and of what is well again; and look again later."""
        if self._looking is not None:
            self._looking.cancel()
        membership = self.node.membership
        now_ms = self._owner.clock_ms()
        for line in self.troubles.look(membership.unlinked(), membership.linked_at(), membership.named, now_ms):
            self._warn(line)
        self._looking = self.loop.call_later(LOOK_S, self._look)

    def _warn(self, text: str) -> None:
        _LOG.warning("%s: %s", self.node.name, text)
