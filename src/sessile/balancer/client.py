"""One client connection: requests are read one after the other, each is served whole before the next is looked at.

The life of a request: its head is judged, its body is collected, a server is chosen, an idle or new connection carries
it, the response streams back. Until the first byte of a response a request may be sent once more: to anybody if no byte
of it left, else only if its method is idempotent and what was sent of its body is still here. Nothing a client sends is
kept beyond the limits: reading pauses instead. Every wait has a deadline, looked at by the worker's sweep.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from sessile.balancer.bodies import CHUNKED, BodyError
from sessile.balancer.flow import ASIDE_BYTES_MAX, FOR_CATCHING_UP, FOR_DIAL, FOR_PIPELINE, FOR_TURN, FOR_UPSTREAM, Flow
from sessile.balancer.phases import BODY, HEAD, IDLE, LINGER, STREAM, TUNNEL, WAIT
from sessile.balancer.refusals import CONTINUE, Refusal, answer
from sessile.balancer.request_body import RequestBody
from sessile.balancer.requests import IDEMPOTENT

if TYPE_CHECKING:
    from sessile.balancer.request_head import Peer, RequestHead
    from sessile.balancer.responses import ResponseHead
    from sessile.balancer.servers import Server
    from sessile.balancer.upstream import Upstream
    from sessile.balancer.worker import Worker

__all__ = ["Client"]

AHEAD_BYTES: Final = 16 * 1024
"""At most this much of what was read ahead is parsed at a time: a request out of it costs no copy of all that follows."""
PIECES_PER_TURN: Final = 4
"""Of a collected body, sent in one turn."""


class Client(Flow, asyncio.Protocol):
    """A client's connection and the request on it."""

    __slots__ = (
        "_ahead", "_arrivals", "_buffer", "_is_blocked", "_is_collecting", "_is_eof", "_is_full", "_owner", "_tried",
        "attempt", "is_plain", "is_tunnel", "peer", "request", "server", "upstream",
    )  # fmt: skip

    peer: Peer
    request: RequestHead

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self._arrivals = worker.arrivals
        self.is_tunnel = self.is_plain = False
        """`is_plain`: the response to this GET needs no lines of ours and leaves the connection open: it may pass as it came."""
        self.server: Server | None = None
        """Where the request under way was sent, or is being sent."""
        self.upstream: Upstream | None = None
        self.attempt = 0
        """Counts the tries to serve; a connection made for an earlier one comes too late."""
        self._buffer = b""
        """The beginning of a head; while a request is served, what came right after it."""
        self._ahead = bytearray()
        """What was read after that."""
        self._is_collecting = False
        """The request waits for its body, and no server has heard of it."""
        self._tried: tuple[Server, ...] = ()
        self._owner: Server | None = None
        self._is_eof = False
        self._is_full = self._is_blocked = False

    # --- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self.deadline = self._worker.now + self._worker.settings.timeouts.head_s
        peer = self._worker.admit(self, self.transport)
        if peer is None:
            self._say(503, "too many connections")
            if self._worker.is_crowded:
                self.transport.close()
        else:
            self.peer = peer

    def data_received(self, data: bytes) -> None:
        arrivals = self._arrivals
        if arrivals and len(data) <= ASIDE_BYTES_MAX:  # the turn is on: as `arrived` would, without the call
            arrivals.append((self, data, 0))
        else:
            self._worker.arrived(self, data, 0)

    def take(self, data: bytes, carried: int) -> None:
        """Look at what arrived, in the worker's turn.

        The usual exchange begins here and ends in `Upstream.take`: a GET with our cookie, to a server that has an idle
        connection. What `_take_head` and all it calls would do for it stands here in a row.
        """
        del carried
        worker = self._worker
        if self.phase != IDLE or self._buffer or self._ahead or len(data) > worker.head_bytes_max:
            self._take_any(data)
            return
        try:
            request = worker.requests.usual.read(data, self.peer)
        except Refusal as refusal:
            self._say(refusal.status, refusal.reason)
            return
        if request is None:
            self._take_head(data)
            return
        affinity = request.affinity
        server = worker.servers.tokens.get(affinity[0]) if affinity else None
        if server is None or not server.idle or not worker.is_plain or request.method != b"GET":
            self._begin(request, b"")
            return
        self.request = request
        self.server = self._owner = server
        server.active += 1
        self.is_plain = True
        self.phase = WAIT
        self.deadline = worker.response_by
        upstream = self.upstream = server.idle.pop()
        upstream.client = self
        upstream.carried += 1
        upstream.transport.write(request.forward)

    def _take_any(self, data: bytes) -> None:
        """What may have arrived besides the first piece of a head."""
        phase = self.phase
        if self._ahead and phase < TUNNEL:
            self._take_ahead(data)
        elif phase <= HEAD:
            self._take_head(data)
        elif self._is_body_due:
            self._take_body(data)
        elif phase == TUNNEL:
            self._into_tunnel(data)
        elif phase != LINGER:
            self._take_ahead(data)

    def _take_ahead(self, data: bytes) -> None:
        """It comes after the request that is being served: keep it, and read no more once it is enough."""
        room = self._worker.room
        room.ahead_bytes -= len(data)
        self._ahead += data
        if room.ahead_bytes < 0:
            self._refuse_ahead()
        elif len(self._ahead) > self._worker.settings.limits.pipelined_bytes:
            self._hold(FOR_PIPELINE)

    def _refuse_ahead(self) -> None:
        """All connections together sent too much ahead: keep nothing of this one's, and close it after the answer under way.

        A client that pipelines must be ready for that (RFC 9112 section 9.3.2). What belongs to the request itself, the rest
        of its body or of what will be a tunnel, cannot be left out: that request fails.
        """
        worker, request = self._worker, self.request
        reason = "clients sent too much ahead of their answers"
        worker.warn(f"{reason}: connections that send more are closed after an answer", "pipelined_bytes")
        self._drop_ahead()
        if self.phase < STREAM and (self._is_body_due or request.is_upgrade):
            self._drop_upstream()
            self._say(503, reason)
        elif self._is_body_due:
            self._drop_upstream()
            self.transport.abort()
        else:
            request.keep_alive = self.is_plain = False
            self._hold(FOR_PIPELINE)

    def _drop_ahead(self) -> None:
        self._worker.room.ahead_bytes += len(self._ahead)
        self._ahead.clear()

    def _read_on(self) -> None:
        """Look at what was read ahead, up to the end of the next request."""
        ahead = self._ahead
        if self.phase == IDLE and self._buffer:
            data, self._buffer = self._buffer, b""
            self._take_head(data)
        while ahead and (self.phase <= HEAD or (self._is_body_due and not self._held & FOR_TURN)):
            data = bytes(ahead[:AHEAD_BYTES])
            del ahead[:AHEAD_BYTES]
            self._worker.room.ahead_bytes += len(data)
            if self.phase <= HEAD:
                self._take_head(data)
            else:
                self._take_body(data)
        if not ahead:
            self._release(FOR_PIPELINE)

    def wait_turn(self) -> None:
        """This connection has had its share of the turn: the others first."""
        if not self._held & FOR_TURN:
            self._hold(FOR_TURN)
            self._worker.later(self)

    def catch_up(self) -> None:
        """The next turn: go on with what is here, then read on."""
        self._held &= ~FOR_TURN
        self._held |= FOR_CATCHING_UP
        body = self._body
        if body is not None and self.phase == BODY:
            if body.is_behind:
                self._take_body(b"")
            elif not self._is_collecting:
                self._pump()
        self._read_on()
        self._end_if_cut()
        self._release(FOR_CATCHING_UP)

    def eof_received(self) -> bool:
        """A client may close its sending half and still read its responses: those to requests that came whole."""
        self._worker.drain()
        if self.phase in {BODY, WAIT, STREAM} and not self._is_body_due:
            self._is_eof = True
            self.is_plain = False
            return True
        return False

    @property
    def _is_last(self) -> bool:
        """The client has ended, and what is here holds no further head."""
        if not self._is_eof:
            return False
        return b"\r\n\r\n" not in self._buffer and b"\r\n\r\n" not in self._buffer[-3:] + self._ahead

    def _end_if_cut(self) -> None:
        """Close, if the client has ended and the rest of the request that is looked at will never come."""
        if self._is_eof and (self.phase <= HEAD or (self._is_body_due and not self._held & FOR_TURN)):
            self._drop_upstream()
            self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._worker.drain()
        self._worker.dismiss(self)
        self._drop_upstream()
        self._end_body()
        self._drop_ahead()
        self.phase = LINGER

    def pause_writing(self) -> None:
        self._is_full = True
        if self.upstream is not None:
            self.upstream.pause()

    def resume_writing(self) -> None:
        self._is_full = False
        self._touch()
        if self.upstream is not None:
            self.upstream.resume()
        elif self._is_blocked:
            self._is_blocked = False
            self.go_on()

    # --- reading a request

    def _take_head(self, data: bytes) -> None:
        worker = self._worker
        searched = len(self._buffer)
        if searched:
            data, self._buffer = self._buffer + data, b""
        try:
            end = data.find(b"\r\n\r\n", max(0, searched - 3)) + 4
            if not 4 <= end <= worker.head_bytes_max or data[0] < 0x41:
                data = self._incomplete(data)
                if not data:
                    return
                end = data.find(b"\r\n\r\n") + 4
            request = worker.requests.parse(data[:end], self.peer)
        except Refusal as refusal:
            if refusal.setting:
                worker.warn(refusal.reason, refusal.setting)
            self._say(refusal.status, refusal.reason)
            return
        if request.is_overruled:
            worker.warn_of_overruled(self.peer)
        self._begin(request, data[end:])

    def _begin(self, request: RequestHead, rest: bytes) -> None:
        """A head is accepted: send it on. `rest` is what came after it: of its body, or of the next request."""
        worker = self._worker
        self.request = request
        if request.body:
            self._body = RequestBody(request.body, worker.room, worker.settings.limits.replay_bytes)
            self._received, self._since = 0, worker.now
            self.phase = BODY
            self.deadline = worker.now + worker.settings.timeouts.body_s
            # What is malformed in a chunked body shows in its first chunk, and then no server hears of the request.
            self._is_collecting = worker.collects_bodies or (request.body == CHUNKED and not request.expects_continue)
            if not self._is_collecting:
                self._dispatch()
            if rest and self._is_body_due:
                self._take_body(rest)
            elif request.expects_continue and worker.collects_bodies:
                self.transport.write(CONTINUE)
        else:
            self.phase = WAIT
            self.deadline = worker.response_by
            if len(rest) <= AHEAD_BYTES:
                self._buffer = rest
            else:
                self._take_ahead(rest)
                if self.phase == LINGER:  # there was no room for it, and the request was refused
                    return
            self._dispatch()

    def _incomplete(self, data: bytes) -> bytes:
        """Not a usable head yet: wait for more, or refuse; returns the data only if there is a head in it after all."""
        worker = self._worker
        if data.startswith(b"\r\n"):  # RFC 9112 section 2.2: an empty line before the request line is skipped, once
            data = data[2:]
        elif data == b"\r":
            self._buffer = data
            return b""
        if data and not 0x41 <= data[0] <= 0x5A:
            raise Refusal(400, "this is not an HTTP/1.1 request")
        end = data.find(b"\r\n\r\n")
        limit = worker.settings.limits.head_bytes
        if end + 4 > limit or (end < 0 and len(data) > limit):
            if b"\r\n" not in data[:limit]:
                raise Refusal(414, f"the request line is longer than {limit} bytes", "head_bytes")
            raise Refusal(431, f"the request head is longer than {limit} bytes", "head_bytes")
        if end >= 0:
            return data
        self._buffer = data
        if self.phase == IDLE and data:
            self.phase = HEAD
            self.deadline = worker.now + worker.settings.timeouts.head_s
        return b""

    def _take_body(self, data: bytes) -> None:
        worker, body = self._worker, self._body
        assert body is not None
        self._received += len(data)
        try:
            body.take(data)
        except BodyError as error:
            self._drop_upstream()
            self._fail(400, str(error))
            return
        if body.is_behind:
            self.wait_turn()
        elif body.is_whole:
            self._keep_rest(body.rest)
        if self._is_collecting:
            if not self._collects_more(body) or body.is_whole:
                self._is_collecting = False
                self._dispatch()
        elif self.upstream is not None:
            self._pump()
        elif body.in_memory > worker.settings.limits.replay_bytes or worker.room.memory_bytes < 0:
            self._hold(FOR_DIAL)
        if self.phase == BODY:
            self._touch()

    def _collects_more(self, body: RequestBody) -> bool:
        """Whether to wait for more of the body before a server is asked."""
        return body.make_room() if self._worker.collects_bodies else not body.size

    def _keep_rest(self, rest: bytes) -> None:
        """What came after a body. It comes before what was read ahead."""
        if len(rest) <= AHEAD_BYTES:
            self._buffer = rest
        else:
            rest += bytes(self._ahead)
            self._drop_ahead()
            self._take_ahead(rest)

    def _pump(self) -> None:
        """Send what is here of the body, as long as the server takes it; a share of it in each turn."""
        body, upstream = self._body, self.upstream
        if body is None or upstream is None:
            return
        try:
            for _ in range(PIECES_PER_TURN):
                if self._held & FOR_UPSTREAM:
                    return
                piece = body.next()
                if not piece:
                    break
                upstream.transport.write(piece)
            else:
                self.wait_turn()
        except BodyError as error:
            self._drop_upstream()
            self._fail(503, str(error))
            return
        if body.is_sent and self.phase == BODY:
            self.phase = WAIT
            self.deadline = self._worker.response_by

    def release_for_upstream(self) -> None:
        super().release_for_upstream()
        if self.phase == BODY and not self._is_collecting:
            self._pump()

    def _end_body(self) -> None:
        """The request is done with: its body may go."""
        self._is_collecting = False
        if self._body is not None:
            self._body.close()
            self._body = None

    # --- sending it to a server

    @property
    def is_request_sent(self) -> bool:
        return self._body is None or self._body.is_sent

    @property
    def is_repeatable(self) -> bool:
        """The request may be executed twice and all that was read of it is still here."""
        return self.request.method in IDEMPOTENT and (self._body is None or self._body.can_rewind)

    @property
    def is_waiting(self) -> bool:
        """A server has the request, or is about to get it, and nothing of its response has come."""
        return self.server is not None and (self.upstream is None or not self.upstream.has_begun)

    def _dispatch(self) -> None:
        """Send the request on its first try."""
        worker, request = self._worker, self.request
        servers = worker.servers
        owner = self._owner = servers.owner(request) if request.affinity else None
        is_known = owner is not None
        if owner is None and worker.sets_cookie and (request.affinity or request.elsewhere):
            owner = servers.former_owner(request)
        if owner is None or owner.is_down:
            server = servers.choose(request, None, self.peer.address)
            if server is None:
                self._fail(503, "no server is available")
                return
            self.is_plain = False
        else:
            server = owner
            self.is_plain = (worker.is_plain and is_known and request.method == b"GET" and request.keep_alive) and not (
                request.is_http_10 or request.body or self._is_eof
            )
        self._send_to(server)

    def _send_to(self, server: Server) -> None:
        self.server = server
        server.active += 1
        request = self.request
        upstream = server.take_idle(self._worker.now, is_repeatable=not request.body and request.method in IDEMPOTENT)
        if upstream is None:
            self.attempt += 1
            self._worker.dial(self, server, self.attempt)
        else:
            self.attach(upstream)

    def attach(self, upstream: Upstream) -> None:
        """A connection is there: send the head and what is here of the body."""
        self.upstream = upstream
        request, body = self.request, self._body
        if body is None:
            upstream.carry(self, request.forward)
            return
        body.rewind()
        if request.method not in IDEMPOTENT:
            body.forget()
        if self.phase == WAIT:  # it was sent before, to another server
            self.phase = BODY
        self._touch()
        try:
            upstream.carry(self, request.forward + body.next())
        except BodyError as error:
            self._drop_upstream()
            self._fail(503, str(error))
            return
        self._release(FOR_DIAL)
        self._pump()

    def _drop_upstream(self) -> None:
        """Leave the server the request was sent to."""
        self.attempt += 1
        if self.server is not None:
            self.server.active -= 1
            self.server = None
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        self._release(FOR_UPSTREAM)

    def not_connected(self, reason: str) -> None:
        """No connection to the server could be made; nothing was sent, so any request may go elsewhere."""
        assert self.server is not None
        self._tried += (self.server,)
        self._again(502, reason)

    def given_up(self) -> None:
        """The health checks gave the server up: another one gets the request. With no other it waits on: slow may do."""
        if self.server is not None and self.is_waiting and (self.upstream is None or self.is_repeatable):
            tried = (*self._tried, self.server)
            if self._worker.servers.has_other(tried):
                self._tried = tried
                self._again(502, f"server {self.server.name} does not answer")

    def upstream_lost(self, upstream: Upstream) -> None:
        """The server's connection ended before the response did."""
        self.upstream = None
        if self.is_tunnel:
            self._drop_upstream()
            self.transport.close()
        elif self.phase >= STREAM or self.server is None:
            self._worker.warn(f"server {upstream.server.name} closed the connection in the middle of a response")
            self._drop_upstream()
            self.transport.abort()
        elif upstream.has_begun or not self.is_repeatable:
            self._drop_upstream()
            self._fail(502, f"server {upstream.server.name} closed the connection before it answered")
        elif upstream.is_reused:
            # It hung up on an idle connection, as servers do: ask the same server over a new one, once.
            server = self.server
            self._drop_upstream()
            server.close_idle()
            self._send_to(server)
        else:
            self._tried += (self.server,)
            self._again(502, f"server {upstream.server.name} closed the connection before it answered")

    def upstream_faulty(self, reason: str) -> None:
        """What the server sent is not a response."""
        self.upstream = None
        has_begun = self.phase >= STREAM
        self._drop_upstream()
        if has_begun:
            self.transport.abort()
        else:
            self._say(502, reason, is_head=self.request.method == b"HEAD")

    def _again(self, status: int, reason: str) -> None:
        """Send the request to a server that was not tried yet; with none left, say why."""
        self._drop_upstream()
        self.is_plain = False
        server = self._worker.servers.choose(self.request, self._owner, self.peer.address, self._tried)
        if server is None:
            self._fail(status, reason)
        else:
            self._worker.retried += 1
            self._send_to(server)

    # --- the response

    def response_begun(self, response: ResponseHead, server: Server) -> bytes:
        """The final response's head is there; returns the lines to add to it, and may change those it has."""
        worker, request = self._worker, self.request
        if self._is_body_due or self._is_last or worker.is_stopping or (response.body < 0 and request.is_http_10):
            request.keep_alive = False
        self.phase = STREAM
        self._touch()
        extra = b""
        if response.learned:
            worker.servers.learned.learn(response.learned, server.name)
        if worker.sets_cookie and (server is not self._owner or worker.refreshes_always):
            extra = worker.affinity_lines(response, server, is_https=request.is_https)
        if not request.keep_alive:
            if response.status != 101:
                extra += b"Connection: close\r\n"
        elif request.is_http_10:
            extra += b"Connection: keep-alive\r\n"
        return extra

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def stream(self, data: bytes) -> None:
        """A piece of a response that comes in several."""
        self.deadline = self._worker.now + self._worker.settings.timeouts.stream_s
        if data:
            self.transport.write(data)

    def response_done(self) -> None:
        """The response has been handed to the transport whole: on to the next request, or close."""
        if self.server is not None:
            self.server.active -= 1
            self.server = None
        self.upstream = None
        self._tried = ()
        if self._body is not None:
            if self._is_body_due:
                self.request.keep_alive = False
            self._end_body()
        self.go_on()

    def go_on(self) -> None:
        """On to the next request, if the connection stays open."""
        if not self.request.keep_alive or self._worker.is_stopping:
            self._linger()
        elif self._is_full:
            # A client that does not read its responses gets no more of them. The wait is for the client, not for a server.
            self._is_blocked = True
            self.phase = STREAM
            self._touch()
        else:
            self._next()

    def _next(self) -> None:
        self.phase = IDLE
        self.deadline = self._worker.idle_by
        if self._held:
            self._release(FOR_UPSTREAM | FOR_DIAL)
        if self._buffer or self._ahead:
            self._read_on()
        if self._is_eof:
            self._end_if_cut()

    def _fail(self, status: int, reason: str, setting: str = "") -> None:
        """End the request with an answer of our own; once a response has begun, which nothing may be put into, with none."""
        if status >= 500:
            self._worker.warn(reason, setting)
        if self.phase >= STREAM:
            self.phase = LINGER
            self._end_body()
            self.transport.abort()
            return
        self._say(status, reason, is_head=self.request.method == b"HEAD")

    def _say(self, status: int, reason: str, *, is_head: bool = False) -> None:
        """An answer of our own; it is the last on this connection."""
        if not self.transport.is_closing():
            self._worker.answered(status)
            self.transport.write(answer(status, reason, is_head=is_head))
        self._linger()

    def _linger(self) -> None:
        """Close our half and read on for a moment: closing at once would reset the answer away (RFC 9112 section 9.6)."""
        self.phase = LINGER
        self._end_body()
        self._buffer = b""
        self._drop_ahead()
        self.deadline = self._worker.now + self._worker.settings.timeouts.linger_s
        self._release(FOR_UPSTREAM | FOR_PIPELINE | FOR_DIAL)
        if self._is_eof:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()

    # --- WebSocket

    def open_tunnel(self) -> None:
        self.is_tunnel = True
        self.phase = TUNNEL
        self._touch()
        self._release(FOR_PIPELINE)
        if self._buffer or self._ahead:
            data, self._buffer = self._buffer + bytes(self._ahead), b""
            self._drop_ahead()
            self._into_tunnel(data)

    def tunnel(self, data: bytes) -> None:
        """Bytes from the server's side of a tunnel."""
        self._touch()
        self.transport.write(data)

    def _into_tunnel(self, data: bytes) -> None:
        self._touch()
        if self.upstream is not None:
            self.upstream.transport.write(data)

    # --- waiting

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self.phase
        if phase == HEAD or (phase == BODY and self._is_clients_turn):
            self._drop_upstream()
            self._say(408, "the request did not arrive in time")
        elif phase in {BODY, WAIT}:
            name = self.server.name if self.server is not None else "?"
            self._drop_upstream()
            self._fail(504, f"server {name} did not answer in time", "response_s")
        elif phase == IDLE:
            self.transport.close()
            self.deadline = self._worker.now + self._worker.settings.timeouts.linger_s
            self.phase = LINGER
        else:
            self._drop_upstream()
            self.transport.abort()
