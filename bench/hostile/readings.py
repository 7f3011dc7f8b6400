"""The same bytes, read by others: h11, and llhttp as httptools wraps it.

Each function reads a stream as a server would that answers every request at once, and says the same as
`grammar.read_requests`: the whole requests and how the stream ends. A difference between the three is what request
smuggling is made of.
"""

from __future__ import annotations

import h11
import httptools

from bench.hostile.grammar import End, Reading, Request, read_requests

__all__ = ["READERS", "disagreement", "read_with_h11", "read_with_httptools"]


def read_with_h11(data: bytes) -> Reading:
    """As a server on h11 reads it: a request that closes is the last."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
    told: list[Request] = []
    request, parts = None, list[bytes]()
    try:
        if data:  # nothing at all would mean the end of the connection
            connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, parts = event, []
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                told.append(_of_h11(request, b"".join(parts)))
                request = None
                if told[-1].closes or not _answer(connection):
                    return Reading(tuple(told), End.CLOSED)
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                rest = connection.trailing_data[0]
                inside = request is not None or bool(rest)
                return Reading(tuple(told), End.INSIDE if inside else End.BOUNDARY)
    except h11.RemoteProtocolError as error:
        return Reading(tuple(told), End.FAULT, str(error))


def _of_h11(event: h11.Request, body: bytes) -> Request:
    fields = tuple((bytes(name), bytes(value)) for name, value in event.headers)
    return Request(bytes(event.method), bytes(event.target), bytes(event.http_version), fields, body)


def _answer(connection: h11.Connection) -> bool:
    """Refuse in h11's mind, so that it reads the next request, also after CONNECT; False when there can be none."""
    connection.send(h11.Response(status_code=400, headers=[(b"content-length", b"0")]))
    connection.send(h11.EndOfMessage())
    if connection.our_state is not h11.DONE:
        return False
    connection.start_next_cycle()
    return True


class _Heard:
    """What llhttp calls back."""

    def __init__(self) -> None:
        self.told: list[Request] = []
        self.is_inside = False
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.is_inside = True
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.in_body = False
        self.parts: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:
            self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_body = True
        self.version = self.parser.get_http_version().encode()
        self.method = self.parser.get_method()

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.is_inside = False
        fields = tuple(self.fields)
        self.told.append(Request(self.method, self.target, self.version, fields, b"".join(self.parts)))


def read_with_httptools(data: bytes) -> Reading:
    """As a server on llhttp reads it that refuses every upgrade."""
    told: list[Request] = []
    while True:
        heard = _Heard()
        try:
            heard.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            told += heard.told
            data = data[upgrade.args[0] :]
            continue
        except httptools.HttpParserError as error:
            told += heard.told
            if heard.told and heard.told[-1].closes and not heard.is_inside:
                return Reading(tuple(told), End.CLOSED)
            return Reading(tuple(told), End.FAULT, str(error))
        told += heard.told
        if heard.is_inside:
            return Reading(tuple(told), End.INSIDE)
        return Reading(tuple(told), End.CLOSED if told and told[-1].closes else End.BOUNDARY)


def _strictly(data: bytes) -> Reading:
    return read_requests(data, skip_empty_lines=False)


READERS = {"RFC 9112": _strictly, "h11": read_with_h11, "httptools": read_with_httptools}


def disagreement(data: bytes) -> str:
    """What the readers make of these bytes, when it is not the same; nothing when it is."""
    readings = {name: reader(data) for name, reader in READERS.items()}
    first = readings["RFC 9112"]
    if first.end is End.FAULT:
        return f"RFC 9112: no request: {first.why}"
    for name, reading in readings.items():
        if reading.end is not first.end:
            return f"RFC 9112 ends {first.end.value}, {name} {reading.end.value} {reading.why}"
        if reading.requests != first.requests:
            return f"RFC 9112 reads {first.requests}, {name} {reading.requests}"
    return ""
