"""The fields of one request head on their way to the next hop: what they say, what is cut, what is added.

`Fields` holds the walk that `requests.py` makes over a head: the values that matter and the slices that are joined
again. The functions judge the whole: where the body ends (RFC 9112 section 6.3), which target goes on (section 3.2),
which X-Forwarded-* fields are ours to add. A head has passed llhttp when it comes here, so every line feed begins a
field. Doubt raises `Refusal`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sessile.balancer.bodies import CHUNKED
from sessile.balancer.refusals import Refusal
from sessile.cookies import says_https

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sessile.balancer.request_head import Peer, RequestHead

__all__ = ["Fields", "added", "host_of", "judge_framing", "origin_form"]

_HOST: Final = re.compile(rb"[ \t]*((?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)[ \t]*\r\n")
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?@]+)([/?].*)?")
_LENGTH: Final = re.compile(rb"[ \t]*(0|[1-9][0-9]{0,17})[ \t]*\r\n")
_CHUNKED: Final = re.compile(rb"[ \t]*chunked[ \t]*\r\n")
_PLAIN_CONNECTION: Final = re.compile(rb"[ \t]*(keep-alive|close)[ \t]*\r\n")
_NO_TOKEN: Final = re.compile(rb"[^!#$%&'*+.^_`|~0-9a-z-]")
_ADDRESSES: Final = re.compile(rb"[0-9A-Za-z._:\[\], \t-]{1,1024}")
_SCHEMES: Final = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}
"""What a proxy may call the scheme; some say that of WebSocket for a handshake."""
# One parameter of a Forwarded element, its value a token or quoted (RFC 7239 section 4), and what follows it. Characters
# beyond tokens, such as the colon of an address, are let pass unquoted. Nothing is matched twice: a run of blanks takes linear time.
_PARAMETER: Final = re.compile(
    rb'[ \t]*+(?:([^\s=;,"]++)=(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^\s=;,"]*+)))?+[ \t]*+(;|,|\Z)'
)
_NOT_TO_NOMINATE: Final = frozenset({b"host", b"cookie", b"content-length", b"transfer-encoding"})


class Fields:
    """The walk over one head: what the known fields said, and the slices that will be joined again."""

    __slots__ = (
        "at", "chunked", "extra", "forwarded", "head", "host", "length", "line", "lower", "nominated", "pieces",
        "start", "upgrade", "wants_upgrade",
    )  # fmt: skip

    def __init__(self, head: bytes, start: int) -> None:
        self.head = head
        self.lower = head.lower()
        self.start = start
        self.at = start - 2
        self.line = b""
        self.pieces: list[bytes] = []
        self.extra: list[bytes] = []
        self.host: bytes | None = None
        self.length: int | None = None
        self.chunked = False
        self.wants_upgrade = False
        self.upgrade: list[bytes] = []
        self.nominated: set[bytes] = set()
        self.forwarded: dict[bytes, list[bytes]] = {}

    def take_host(self, end: int) -> None:
        value = _HOST.match(self.head, end)
        if value is None or self.host is not None:
            raise Refusal(400, "Host is not exactly one valid host")
        self.host = value.group(1)

    def take_length(self, end: int) -> None:
        value = _LENGTH.match(self.head, end)
        if value is None or self.length is not None:
            raise Refusal(400, "Content-Length is not exactly one number")
        self.length = int(value.group(1))

    def take_encoding(self, newline: int, end: int) -> None:
        if self.chunked or _CHUNKED.match(self.lower, end) is None:
            raise Refusal(400, "Transfer-Encoding is not exactly `chunked`")
        self.chunked = True
        self.cut(newline)

    def value(self, end: int) -> bytes:
        return self.head[end : self.head.find(b"\r", end)]

    def cut_span(self, start: int, stop: int) -> None:
        if start > self.at:
            self.pieces.append(self.head[self.at : start])
        self.at = stop

    def replace_span(self, start: int, stop: int, value: bytes) -> None:
        self.cut_span(start, stop)
        self.pieces.append(value)

    def cut(self, newline: int) -> bytes:
        """Cut the whole field whose line begins after the line feed at `newline`; returns its raw value."""
        stop = self.head.find(b"\r", newline)
        self.cut_span(newline - 1, stop)
        return self.head[self.head.find(b":", newline) + 1 : stop]

    def cut_known(self, name: bytes, newline: int) -> None:
        """Cut a field by its lower-cased name as it was matched."""
        value = self.cut(newline)
        if name.startswith(b"\nx-forwarded-"):
            self.forwarded.setdefault(name[13:-1], []).append(value.strip(b" \t"))
        elif name == b"\nforwarded:":
            self.forwarded.setdefault(b"", []).append(value)

    def claims_https(self) -> bool:
        """Whether X-Forwarded-Proto, or Forwarded, says that a browser speaks https."""
        return any(map(says_https, (*self.forwarded.get(b"proto", ()), *self.forwarded.get(b"", ()))))

    def connection(self, newline: int, end: int, request: RequestHead) -> None:
        plain = _PLAIN_CONNECTION.match(self.lower, end)
        self.cut(newline)
        if plain is not None:
            options = {plain.group(1)}
        else:
            value = self.lower[end : self.lower.find(b"\r", end)]
            options = {option.strip(b" \t") for option in value.split(b",")} - {b""}
            # Judged joined: one expression for the whole list would try every way to divide its blanks.
            if _NO_TOKEN.search(b"".join(options)) is not None:
                raise Refusal(400, "Connection is not a list of tokens")
        if b"close" in options:
            request.keep_alive = False
        elif request.is_http_10 and b"keep-alive" in options:
            request.keep_alive = True
        self.wants_upgrade |= b"upgrade" in options
        self.nominated |= options - {b"close", b"keep-alive", b"upgrade"}
        if self.nominated & _NOT_TO_NOMINATE:
            raise Refusal(400, "Connection names a field that must not be dropped")

    def cut_nominated(self) -> None:
        """Cut the fields that Connection names. Rare, so the head is simply walked line by line once more."""
        rest = b"".join([*self.pieces, self.head[self.at : -2]])
        lines = rest.split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in self.nominated or line is lines[0]]
        self.pieces, self.at = [b"\r\n".join(kept)], len(self.head) - 2

    def joined(self, added: bytes) -> bytes:
        pieces = self.pieces
        pieces.append(self.head[self.at : -2])
        pieces.extend(self.extra)
        pieces.append(added)
        if self.line:
            rest = b"".join(pieces)
            return self.line + rest
        return self.head[: self.start - 2] + b"".join(pieces)


def judge_framing(fields: Fields, request: RequestHead) -> None:
    """Where the body ends, beyond doubt (RFC 9112 section 6.3), and whether this is a WebSocket handshake."""
    if request.method == b"CONNECT":
        raise Refusal(400, "CONNECT is not served here")
    if fields.chunked:
        if fields.length is not None:
            raise Refusal(400, "both Content-Length and Transfer-Encoding")
        if request.is_http_10:
            raise Refusal(400, "Transfer-Encoding in HTTP/1.0")
        request.body = CHUNKED
        fields.extra.append(b"Transfer-Encoding: chunked\r\n")
    elif fields.length:
        request.body = fields.length
    if fields.wants_upgrade and fields.upgrade == [b"websocket"]:
        bodyless = not fields.length and not fields.chunked
        if request.method == b"GET" and bodyless and not request.is_http_10:
            request.is_upgrade = True
            fields.nominated.add(b"content-length")  # a length of 0 says nothing here, and some servers stumble over it
            fields.extra.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")


def origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    """The target as an origin server wants it; absolute form must agree with Host (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or _without_port(absolute.group(1)) != _without_port(host):
        raise Refusal(400, "the target is neither a path nor a URL of this Host")
    rest: bytes = absolute.group(2) or b""
    if not rest and method == b"OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest


def host_of(target: bytes, peer: Peer) -> bytes:
    """Whom an HTTP/1.0 request without Host means: the host in its target, else the address it came to (RFC 9112 section 3.3)."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return peer.here
    if _HOST.fullmatch(absolute.group(1) + b"\r\n") is None:
        raise Refusal(400, "the target names no valid host")
    return bytes(absolute.group(1))


def _without_port(authority: bytes) -> bytes:
    lowered = authority.lower()
    for port in (b":80", b":443"):
        if lowered.endswith(port):
            return lowered[: -len(port)]
    return lowered


def added(fields: Fields, request: RequestHead, peer: Peer) -> bytes:
    """The fields that are ours. What a trusted peer forwarded is continued, what anybody else sent is gone."""
    assert fields.host is not None
    if not peer.is_trusted:
        request.is_overruled = not peer.is_https and fields.claims_https()
        return peer.ours + fields.host + b"\r\n\r\n"
    before = fields.forwarded.get(b"for", [])
    chain = _joined_if(_ADDRESSES, before)
    proto = _scheme(fields.forwarded) or (b"https" if peer.is_https else b"http")
    hosts = fields.forwarded.get(b"host", [])
    host = hosts[0] if len(hosts) == 1 and _HOST.fullmatch(hosts[0] + b"\r\n") else fields.host
    request.is_https = proto == b"https"
    client = (chain + b", " if chain else b"") + peer.address.encode()
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n\r\n" % (client, proto, host)


def _joined_if(pattern: re.Pattern[bytes], values: Sequence[bytes]) -> bytes:
    joined = b", ".join(value for value in values if value)
    return joined if pattern.fullmatch(joined) else b""


def _scheme(forwarded: Mapping[bytes, Sequence[bytes]]) -> bytes:
    """What the proxies in front say that the browser speaks: http or https; empty if they do not say, or disagree.

    Of a list the first counts, which the proxy next to the browser said. Forwarded counts where X-Forwarded-Proto says
    nothing. Two fields that contradict each other are nobody's word.
    """
    said = {value.partition(b",")[0].strip(b" \t").lower() for value in forwarded.get(b"proto", ())} - {b""}
    if not said:
        said = {_forwarded_proto(value) for value in forwarded.get(b"", ())[:1]}
    return _SCHEMES.get(said.pop(), b"") if len(said) == 1 else b""


def _forwarded_proto(value: bytes) -> bytes:
    """The parameter `proto` of the first element of a Forwarded field, or an empty value."""
    at = 0
    while (parameter := _PARAMETER.match(value, at)) is not None:
        name, quoted, token, then = parameter.groups()
        if name is not None and name.lower() == b"proto":
            return bytes(quoted if quoted is not None else token).lower()
        if then != b";":
            break
        at = parameter.end()
    return b""
