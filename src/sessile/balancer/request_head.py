"""What the balancer knows of a request: its head, whose connection it came over, and llhttp's word that it is one.

Pure: no IO, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import httptools

from sessile.balancer.refusals import Refusal

__all__ = ["Grammar", "Peer", "RequestHead"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a client connection, as the next hop is told. `trusted` peers may speak for others."""

    address: str
    is_trusted: bool = False
    is_https: bool = False
    ours: bytes = b""
    """The added fields up to the host, for a request whose peer is not trusted; made once per connection."""

    here: bytes = b"localhost"
    """The address at which it reached us, as a Host: for HTTP/1.0 requests that have none."""

    @classmethod
    def of(cls, address: str, *, is_trusted: bool = False, is_https: bool = False, here: str = "localhost") -> Peer:
        proto = b"https" if is_https else b"http"
        ours = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: " % (address.encode(), proto)
        return cls(address, is_trusted, is_https, ours, here.encode())


class RequestHead:
    """What the proxy needs to know of a head it accepted, and the head to send to the server.

    The usual values stand in the class, so that the usual head sets three.
    """

    is_http_10 = False
    is_https = False
    keep_alive = True
    is_upgrade = False
    expects_continue = False
    """The client waits for an interim response before it sends the body."""
    body = 0
    """Its length in bytes, or CHUNKED."""
    is_overruled = False
    """A peer that is not trusted says that its client speaks https, and the server is told http."""
    affinity: tuple[bytes, ...] = ()
    """What the request says of the server it belongs to; not judged here."""
    elsewhere: tuple[bytes, ...] = ()
    """What it says by cookies that a balancer like us set, with another secret or at another port. Some are another service's."""

    def __init__(self, method: bytes, forward: bytes = b"") -> None:
        self.method = method
        self.forward = forward


class Grammar:
    """llhttp, fed one head at a time. `renew` after a head that leaves it inside a body, or closed, or failed."""

    __slots__ = ("_due", "_parser")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        hooks = _Hooks()
        self._due = hooks.due
        self._parser = httptools.HttpRequestParser(hooks)

    def demand_one_head(self, head: bytes) -> None:
        due = self._due
        due.append(None)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self.renew()
            raise Refusal(400, _why(error)) from None
        if due:
            self.renew()
            raise Refusal(400, "not exactly one request head")


class _Hooks:
    """What llhttp calls: each head takes away the one entry that is due, in C; a second one finds none and is an error."""

    __slots__ = ("due", "on_headers_complete")

    def __init__(self) -> None:
        self.due: list[None] = []
        self.on_headers_complete = self.due.pop


def _why(error: Exception) -> str:
    text = str(error)
    return text if text.isascii() and text.isprintable() and len(text) < 80 else "malformed request head"
