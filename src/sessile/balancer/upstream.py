"""One connection to a server: sends a request, reads its response, hands it to the client as it comes.

Between two requests it lies idle with its server. Any byte that arrives then, or beyond the end of a response, is not
an answer to anything: the connection is closed, never reused. How a response is framed for the client is decided here;
whether a lost request is sent again is the client's side's decision (`client.py`).
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, cast

from sessile.balancer.bodies import BodyError, BodyReader, UntilCloseReader, chunk, reader_for
from sessile.balancer.flow import ASIDE_BYTES_MAX
from sessile.balancer.refusals import UpstreamFault

if TYPE_CHECKING:
    from sessile.balancer.client import Client
    from sessile.balancer.responses import ResponseHead
    from sessile.balancer.servers import Server
    from sessile.balancer.worker import Worker

__all__ = ["Upstream"]

INTERIM_MAX = 32
"""1xx responses before the final one."""


class Upstream(asyncio.Protocol):
    """A connection to `server`; `client` is whose request it carries, None while idle."""

    __slots__ = (
        "_arrivals", "_buffer", "_chunking", "_interim", "_is_paused", "_is_waiting", "_keep_alive", "_reader", "_worker",
        "carried", "client", "has_begun", "idle_since", "is_reused", "server", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, worker: Worker, server: Server) -> None:
        self._worker = worker
        self._arrivals = worker.arrivals
        self.server = server
        self.carried = 0
        """How many requests it has carried, the one under way included."""
        self.client: Client | None = None
        self.is_reused = False
        self.has_begun = False
        """A byte of the final response has arrived: the request cannot be sent again."""
        self.idle_since = 0.0
        self._buffer = b""
        self._reader: BodyReader | None = None
        self._chunking = False
        self._keep_alive = False
        self._is_paused = False
        """The client takes no more."""
        self._is_waiting = False
        """This connection has had its share of the turn."""
        self._interim = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it

    # --- carrying a request

    def carry(self, client: Client, data: bytes) -> None:
        """Send a request's head, and what there is of its body, for `client`."""
        self.client = client
        self.carried += 1
        self.transport.write(data)

    def is_silent(self) -> bool:
        """Nothing has arrived on this idle connection: no end, no error, no byte."""
        file = self.transport.get_extra_info("socket")
        if self.transport.is_closing() or file is None:
            return False
        poll = select.poll()
        poll.register(file.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not poll.poll(0)

    def close(self) -> None:
        """Be gone, whatever is under way; the client hears nothing of it."""
        self.client = None
        self.transport.abort()

    def pause(self) -> None:
        if not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            if not self._is_waiting:
                self.transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if not self._is_waiting and not self.transport.is_closing():
                self.transport.resume_reading()

    def wait_turn(self) -> None:
        """This connection has had its share of the turn: the others first."""
        if not self._is_waiting and not self.transport.is_closing():
            self._is_waiting = True
            if not self._is_paused:
                self.transport.pause_reading()
            self._worker.later(self)

    def catch_up(self) -> None:
        """The next turn: go on with what is here, then read on."""
        self._is_waiting = False
        if self._is_behind:
            self._take_any(b"", self.carried)
        if not self._is_waiting and not self._is_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def _is_behind(self) -> bool:
        return self.client is not None and self._reader is not None and self._reader.is_behind

    # --- what the transport says

    def data_received(self, data: bytes) -> None:
        if self.client is None:
            self._stray()
        elif self._arrivals and len(data) <= ASIDE_BYTES_MAX:  # as with clients
            self._arrivals.append((self, data, self.carried))
        else:
            self._worker.arrived(self, data, self.carried)

    def take(self, data: bytes, carried: int) -> None:
        """Look at what arrived while the request of that number was carried, in the worker's turn.

        Here the usual exchange ends: the whole response has come in one piece and needs nothing from us. What `_take_head`
        and all it calls would do for it stands here in a row.
        """
        client, worker = self.client, self._worker
        if client is None or not client.is_plain or carried != self.carried or self._reader is not None or self._buffer:
            self._take_any(data, carried)
            return
        usual = worker.responses.usual.match(data)
        end = usual.end() if usual is not None else 0
        if usual is None or end > worker.head_bytes_max or end + int(usual[2]) != len(data):
            self._take_any(data, carried)
            return
        client.transport.write(data)
        self.client = client.upstream = client.server = None
        self._interim = 0
        self.idle_since = worker.now
        self.is_reused = True
        server = self.server
        server.active -= 1
        if self._is_paused:
            self.resume()
        if len(server.idle) < server.idle_max and not server.is_down:
            server.idle.append(self)
        else:
            self.transport.abort()
        client.go_on()

    def _take_any(self, data: bytes, carried: int) -> None:
        """What may have arrived besides a usual response."""
        client = self.client
        if client is None:
            self._stray()
            return
        if carried != self.carried:  # it came before this request was sent, so it answers nothing
            self.close()
            client.upstream_lost(self)
            return
        try:
            if self._reader is None:
                self._take_head(data, client)
            elif client.is_tunnel:
                client.tunnel(data)
            else:
                self._take_body(data, client, b"")
        except UpstreamFault as fault:
            self._faulty(client, fault.reason, fault.setting)
        except BodyError as error:
            self._faulty(client, str(error), "")

    def pause_writing(self) -> None:
        if self.client is not None:
            self.client.hold_for_upstream()

    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.release_for_upstream()

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.drain()
        while self._is_behind:
            self._take_any(b"", self.carried)
        client, self.client = self.client, None
        if client is None:
            if self in self.server.idle:
                self.server.idle.remove(self)
        elif exc is None and isinstance(self._reader, UntilCloseReader) and not client.is_tunnel:
            client.write(chunk(b"", is_last=True) if self._chunking else b"")
            self._reader = None
            client.response_done()
        else:
            client.upstream_lost(self)

    # --- reading a response

    def _stray(self) -> None:
        if self in self.server.idle:
            self.server.idle.remove(self)
        self.transport.abort()

    def _faulty(self, client: Client, reason: str, setting: str) -> None:
        self.close()
        reason = f"server {self.server.name}: {reason}"
        self._worker.warn(reason, setting)
        client.upstream_faulty(reason)

    def _take_head(self, data: bytes, client: Client) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        limit = self._worker.head_bytes_max
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > limit:
                self._await_head(data, limit)
                return
            request = client.request
            response = self._worker.responses.parse(data[: end + 4], is_head=request.method == b"HEAD")
            if response.status >= 200 or response.status == 101:
                break
            self._interim += 1
            if self._interim > INTERIM_MAX:
                raise UpstreamFault("too many interim responses")
            is_said = response.status == 100 and request.body and self._worker.collects_bodies
            if not request.is_http_10 and not is_said:  # RFC 9110 section 15.2
                client.write(response.lines + b"\r\n")
            data = data[end + 4 :]
            if not data:
                return
        end += 4
        if response.body > 0 and end == len(data) and client.is_repeatable:
            self._await_body(data, client)
            return
        self.has_begun = True
        if response.status == 101:
            self._switch(response, data[end:], client)
        else:
            self._begin(response, data, end, client)

    def _await_head(self, data: bytes, limit: int) -> None:
        """Keep a piece of a head until the rest comes, if it can still become one."""
        if len(data) > limit:
            raise UpstreamFault(f"the response head is longer than {limit} bytes", "head_bytes")
        if not data.startswith(b"HTTP/1."[: len(data)]):
            raise UpstreamFault("the response does not begin with HTTP/1")
        self._buffer = data
        self.has_begun = self.has_begun or not data.startswith(b"HTTP/1.1 1"[: len(data)])

    def _await_body(self, data: bytes, client: Client) -> None:
        """Keep a head until something of the body that it announces is here.

        Servers write the two one after the other. If this one dies in between, the client has nothing of the answer yet,
        and another server may give it.
        """
        self._buffer = data
        client.deadline = self._worker.now + self._worker.settings.timeouts.stream_s

    def _begin(self, response: ResponseHead, data: bytes, end: int, client: Client) -> None:
        extra = client.response_begun(response, self.server)
        self._keep_alive = response.keep_alive
        body = response.body
        self._chunking = False
        if body < 0:
            self._chunking = not client.request.is_http_10
            if self._chunking:
                extra += b"Transfer-Encoding: chunked\r\n"
        elif body == len(data) - end:
            if extra or not response.is_untouched:
                data = b"".join((response.lines, extra, b"\r\n", data[end:]))
            client.write(data)
            self._finish(client, is_clean=True)
            return
        reader = self._reader = reader_for(body)
        head = b"".join((response.lines, extra, b"\r\n"))
        if reader.is_done:  # bytes after a response without a body
            client.write(head)
            self._finish(client, is_clean=False)
        else:
            self._take_body(data[end:], client, head)

    def _take_body(self, data: bytes, client: Client, before: bytes) -> None:
        reader = self._reader
        assert reader is not None
        payload = reader.feed(data) if data or reader.is_behind else b""
        if reader.is_behind:
            self.wait_turn()
        if self._chunking:
            payload = chunk(payload, is_last=reader.is_done)
        client.stream(before + payload if before else payload)
        if reader.is_done:
            self._finish(client, is_clean=not reader.rest)

    def _finish(self, client: Client, *, is_clean: bool) -> None:
        """The response has ended: lie idle, or close, and let the client go on."""
        self._reader = None
        self.client = None
        self.resume()
        if self._keep_alive and is_clean and client.is_request_sent and not self.transport.is_closing():
            self._lie_idle()
        else:
            self.transport.abort()
        client.response_done()

    def _lie_idle(self) -> None:
        self.has_begun = False
        self._interim = 0
        self.idle_since = self._worker.now
        self.is_reused = True
        if not self.server.keep_idle(self):
            self.transport.abort()

    def _switch(self, response: ResponseHead, rest: bytes, client: Client) -> None:
        """101: both connections become one pipe, but only if this is what the client asked for."""
        if not client.request.is_upgrade or response.upgrade != b"websocket":
            raise UpstreamFault("101 to a request that asked for no WebSocket")
        extra = client.response_begun(response, self.server)
        self._reader = UntilCloseReader()
        client.write(b"%b%bConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%b" % (response.lines, extra, rest))
        client.open_tunnel()
