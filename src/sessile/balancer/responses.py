"""A response head from a server: checked, its body's end found, and rewritten for the client.

The same way as with requests: one strict expression judges the whole head, one finds the few fields that matter, and
what remains is joined from slices; a head in which nothing has to go is passed on as it came. A server's nonsense
raises `UpstreamFault` and becomes a 502. No IO, no clock.
"""

from __future__ import annotations

import re
from typing import Final

from sessile.balancer.bodies import CHUNKED, UNTIL_CLOSE
from sessile.balancer.refusals import UpstreamFault

__all__ = ["ResponseHead", "ResponseParser", "without_caching"]


_HEAD: Final = re.compile(
    rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*)?\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*\r\n"
)
_KNOWN: Final = (
    rb"\n(?:connection|content-length|transfer-encoding|upgrade|keep-alive|proxy-connection|te|trailer|"
    rb"proxy-auth[^:\r]*|http2-settings%b):"
)
_LENGTH: Final = re.compile(rb"[ \t]*(0|[1-9][0-9]{0,17})[ \t]*\r\n")
# A field line that cannot be one of those above, in any case of letters.
_INNOCENT: Final = (
    rb"(?:[^CcHhKkPpSsTtUu\x00-\x20\x7f-\xff:]|[Cc](?![Oo][Nn][Nn]|[Oo][Nn][Tt][Ee][Nn][Tt]-[Ll])|[Ss](?![Ee][Tt]-))"
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*+:[\t -~\x80-\xff]*+\r\n"
)
# What servers send: 2xx with one Content-Length and nothing else that matters. Only a short cut.
_USUAL: Final = (
    rb"HTTP/1\.1 (20[0-35-9])(?: [\t -~]*)?\r\n%(any)b[Cc]ontent-[Ll]ength: (0|[1-9][0-9]{0,17})\r\n%(any)b\r\n"
)
_NEVER: Final = re.compile(rb"(?!)")
_CHUNKED: Final = re.compile(rb"[ \t]*chunked[ \t]*\r\n")
_CACHE_CONTROL: Final = re.compile(rb"\n(?:cache-control|expires|pragma):")


class ResponseHead:
    """What the proxy needs to know of a response, and its head without the blank line.

    The usual values stand in the class, so that the usual head sets three.
    """

    is_http_10 = False
    keep_alive = True
    body = UNTIL_CLOSE
    is_untouched = True
    """Nothing was cut: the head may be passed on as it came."""
    upgrade = b""
    learned = b""
    """The value of the affinity field, where affinity is by a field that servers set."""

    def __init__(self, status: int, lines: bytes = b"") -> None:
        self.status = status
        self.lines = lines


class ResponseParser:
    """Judges and rewrites response heads; `cookie` is our cookie's name, `header` the affinity field to learn from."""

    __slots__ = ("_cookie", "_fields_max", "_header", "_known", "usual")

    def __init__(self, *, cookie: bytes = b"", header: bytes = b"", fields_max: int = 200) -> None:
        self._cookie = re.compile(rb"[ \t]*%b[ \t]*=" % re.escape(cookie)) if cookie else None
        self._header = b"\n%b:" % header.lower() if header else b"\n"
        more = (b"|set-cookie" if cookie else b"") + (b"|" + re.escape(header.lower()) if header else b"")
        self._known = re.compile(_KNOWN % more)
        # Atomic, not possessive: before CPython 3.11.5 that fails around what can backtrack (gh-106052).
        innocent = rb"(?>(?:%b){0,%d})" % (_INNOCENT, (fields_max - 1) // 2)
        self.usual = _NEVER if header or fields_max < 1 else re.compile(_USUAL % {b"any": innocent})
        self._fields_max = fields_max

    def parse(self, head: bytes, *, is_head: bool = False) -> ResponseHead:
        """Raises UpstreamFault. `is_head`: the request was HEAD, so no body follows whatever the fields say."""
        usual = self.usual.fullmatch(head)
        if usual is not None and not is_head:
            response = ResponseHead(int(usual.group(1)), head[:-2])
            response.body = int(usual.group(2))
            return response
        valid = _HEAD.fullmatch(head)
        if valid is None:
            raise UpstreamFault("the response head is malformed")
        if head.count(b"\n") - 2 > self._fields_max:
            raise UpstreamFault(f"the response has more than {self._fields_max} header fields", "fields")
        return self._any(head, valid.group(1), is_head=is_head)

    def _any(self, head: bytes, status: bytes, *, is_head: bool) -> ResponseHead:
        response = ResponseHead(int(status))
        if head[7] == 0x30:  # "0": HTTP/1.0
            response.is_http_10, response.keep_alive = True, False
        length, chunked, pieces, at = self._walk(head, response)
        self._frame(response, length, chunked=chunked, is_head=is_head)
        pieces.append(head[at:-2])
        response.lines = b"".join(pieces)
        if response.is_http_10:  # the version is that of the hop: what we send is HTTP/1.1 (RFC 9110 section 6.2)
            response.lines = b"HTTP/1.1" + response.lines[8:]
            response.is_untouched = False
        return response

    def _walk(self, head: bytes, response: ResponseHead) -> tuple[int | None, bool, list[bytes], int]:
        length, chunked, at = None, False, 0
        pieces: list[bytes] = []
        nominated: set[bytes] = set()
        lower = head.lower()
        for match in self._known.finditer(lower):
            name, end = match.group(), match.end()
            if name == b"\ncontent-length:":
                value = _LENGTH.match(head, end)
                if value is None or length is not None:
                    raise UpstreamFault("Content-Length of the response is not exactly one number")
                length = int(value.group(1))
                if response.status >= 200 and response.status != 204:
                    continue  # RFC 9110 section 8.6: neither 1xx nor 204 has one
            elif name == self._header:
                response.learned = head[end : head.find(b"\r", end)].strip(b" \t")
                continue
            elif name == b"\nset-cookie:":
                if self._cookie is None or self._cookie.match(head, end) is None:
                    continue
            elif name == b"\ntransfer-encoding:":
                if chunked or _CHUNKED.match(lower, end) is None:
                    raise UpstreamFault("Transfer-Encoding of the response is not exactly `chunked`")
                chunked = True
            elif name == b"\nconnection:":
                nominated |= _options(lower, end, response)
            elif name == b"\nupgrade:":
                response.upgrade = lower[end : lower.find(b"\r", end)].strip(b" \t")
            pieces.append(head[at : match.start() - 1])
            at = head.find(b"\r", end)
        response.is_untouched = not pieces
        if nominated:
            rest = b"".join([*pieces, head[at:-2]])
            lines = rest.split(b"\r\n")
            kept = [line for line in lines if line.partition(b":")[0].lower() not in nominated]
            return length, chunked, [b"\r\n".join(kept)], len(head) - 2
        return length, chunked, pieces, at

    @staticmethod
    def _frame(response: ResponseHead, length: int | None, *, chunked: bool, is_head: bool) -> None:
        if chunked and (length is not None or response.is_http_10):
            raise UpstreamFault("the length of the response is ambiguous")
        if is_head or response.status < 200 or response.status in {204, 304}:
            response.body = 0
        elif chunked:
            response.body = CHUNKED
        elif length is not None:
            response.body = length
        else:
            response.keep_alive = False


def _options(lower: bytes, end: int, response: ResponseHead) -> set[bytes]:
    """Read a Connection field; returns the names of the fields it nominates."""
    options = {option.strip(b" \t") for option in lower[end : lower.find(b"\r", end)].split(b",")}
    if b"close" in options:
        response.keep_alive = False
    elif response.is_http_10 and b"keep-alive" in options:
        response.keep_alive = True
    # A server cannot make us lose what frames the message or who the user is.
    return options - {b"", b"close", b"keep-alive", b"upgrade", b"content-length", b"set-cookie"}


def without_caching(lines: bytes) -> bytes:
    """The head's lines without what says that the response may be kept; for one that carries a cookie of ours."""
    lower, pieces, at = lines.lower(), [], 0
    for match in _CACHE_CONTROL.finditer(lower):
        pieces.append(lines[at : match.start() - 1])
        at = lines.find(b"\r", match.end())
    return b"".join([*pieces, lines[at:]]) if pieces else lines
