"""The lies an origin can tell: answers that end elsewhere than they say, or that nobody asked for.

`@SERIAL@` and `@MARKER@` are filled in by the origin. `POISON` stands wherever bytes must never become anybody's
answer; what stands for `expect` is what the client who asked may see. Nobody else may see anything of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

__all__ = ["EARLY", "LATE_BODY", "POISON", "SWITCH", "HostileAnswer", "Seen", "all_answers"]

POISON: Final = b"POISON"
EVIL: Final = b"HTTP/1.1 200 OK\r\nX-Serial: 0\r\nContent-Length: 6\r\n\r\nPOISON"
OK: Final = b"HTTP/1.1 200 OK\r\nX-Serial: @SERIAL@\r\n"


class Seen(Enum):
    """What the client who asked may see."""

    CLEAN = "one whole answer, nothing else"
    REFUSED = "502 or 503 by the proxy"
    CUT = "no whole answer: 502, or one that visibly breaks off"
    ANY = "a clean answer, or no whole one"


@dataclass(frozen=True, slots=True)
class HostileAnswer:
    """One lie; `later` is sent after the answer, `closes` and `switches` say what becomes of the connection."""

    name: str
    raw: bytes
    rule: str
    seen: Seen
    body: bytes | None = None
    """What a clean answer's body must be, when it is known."""
    request: bytes = b"GET @T@ HTTP/1.1\r\nHost: a.example\r\n\r\n"
    later: bytes = b""
    later_s: float = 0.02
    closes: bool = False
    switches: bool = False
    early: bool = False
    """Whether it comes when the head of the request is there, before its body."""
    must_not: tuple[bytes, ...] = ()
    must_close: bool = False
    """Whether the connection that carried it must not be used again."""
    served_max: int = 4
    """How often the request may be served: a request that may be repeated is, within bounds."""

    @property
    def target(self) -> bytes:
        return b"/answer/" + self.name.encode()


SWITCH: Final = HostileAnswer(
    "switch",
    b"HTTP/1.1 101 Switching Protocols\r\nX-Serial: @SERIAL@\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "our rule: a tunnel is a tunnel until it ends, and its connection serves nobody else",
    Seen.CLEAN,
    request=b"GET @T@ HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    switches=True,
)
"""The one 101 that was asked for; what follows is echoed, and is nobody's request."""
LATE_BODY: Final = b"x, GET /probe/inside HTTP/1.1\r\nHost: a.example\r\n\r\n"
"""What is left of the body when an early answer comes; it looks like a request, and is none."""
_EARLY_RULE: Final = "RFC 9112 §9.3: what is left of a body after an early answer is never a request"
_UPLOAD: Final = b"POST @T@ HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\nhello" % (5 + len(LATE_BODY))
_CHUNKED_UPLOAD: Final = b"POST @T@ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\nhello" % (
    5 + len(LATE_BODY)
)
EARLY: Final = (
    HostileAnswer("early", OK + b"Content-Length: 5\r\n\r\nhello", _EARLY_RULE, Seen.ANY, request=_UPLOAD, early=True),
    HostileAnswer(
        "early-chunked",
        OK + b"Content-Length: 5\r\n\r\nhello",
        _EARLY_RULE,
        Seen.ANY,
        request=_CHUNKED_UPLOAD,
        early=True,
    ),
    HostileAnswer(
        "early-close",
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        _EARLY_RULE,
        Seen.ANY,
        request=_UPLOAD,
        early=True,
        closes=True,
    ),
    HostileAnswer(
        "early-then-more",
        OK + b"Content-Length: 5\r\n\r\nhello" + EVIL,
        _EARLY_RULE,
        Seen.ANY,
        request=_UPLOAD,
        early=True,
    ),
)
HEAD: Final = b"HEAD @T@ HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST: Final = b"POST @T@ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
OLD: Final = b"GET @T@ HTTP/1.0\r\nHost: a.example\r\n\r\n"


def all_answers() -> list[HostileAnswer]:
    """Every lie, each under a name of its own."""
    return [*_beyond(), *_framing(), *_heads(), *_bodiless(), *_broken(), *_fields()]


def _beyond() -> list[HostileAnswer]:
    rule = "our rule: any byte beyond an answer closes the connection"
    hello = OK + b"Content-Length: 5\r\n\r\nhello"
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    clean = partial(HostileAnswer, rule=rule, seen=Seen.CLEAN, body=b"hello", must_close=True)
    idle = "our rule: any byte on an idle upstream connection closes it"
    return [
        clean("beyond-length", hello + EVIL),
        clean("beyond-length-one-byte", hello + b"\n"),
        clean("beyond-length-crlf", hello + b"\r\n"),
        clean("beyond-chunks", chunked + EVIL),
        clean("beyond-half-an-answer", hello + EVIL[:20], later=EVIL[20:]),
        HostileAnswer("beyond-later", hello, idle, Seen.CLEAN, b"hello", later=EVIL, later_s=0.005, must_close=True),
        HostileAnswer(
            "beyond-at-once-later", hello, idle, Seen.CLEAN, b"hello", later=EVIL, later_s=0.0, must_close=True
        ),
        clean("beyond-many", hello + EVIL * 50),
        clean("beyond-100", hello + b"HTTP/1.1 100 Continue\r\n\r\n" + EVIL),
    ]


def _framing() -> list[HostileAnswer]:
    rule = "RFC 9112 §6.3: an answer of unsure length is 502, or read until close"
    differing = "RFC 9112 §6.3: invalid Content-Length in an answer is 502"
    body = b"5\r\nhello\r\n0\r\n\r\n"
    lengths = {
        "plus": b"+5",
        "hex": b"0x5",
        "minus": b"-1",
        "zeros": b"005",
        "empty": b"",
        "letters": b"five",
        "list": b"5, 6",
        "overflow": b"18446744073709551621",
        "nbsp": b"5\xa0",
    }
    codings = {
        "xchunked": b"xchunked",
        "twice": b"chunked, chunked",
        "then-identity": b"chunked, identity",
        "gzip": b"gzip",
        "nul": b"chunked\0",
    }
    return [
        *(HostileAnswer(f"length-{name}", OK + b"Content-Length: " + value + b"\r\n\r\nhello" + EVIL, differing, Seen.REFUSED) for name, value in lengths.items()),
        HostileAnswer("length-two-differing", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!" + EVIL, differing, Seen.REFUSED),
        HostileAnswer("length-two-equal", OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + EVIL, rule, Seen.ANY),
        HostileAnswer("both", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + body + EVIL, "RFC 9112 §6.3: handled as an error, or Content-Length removed", Seen.ANY),
        *(HostileAnswer(f"coding-{name}", OK + b"Transfer-Encoding: " + value + b"\r\n\r\n" + body, rule, Seen.ANY, closes=True) for name, value in codings.items()),
        HostileAnswer("chunk-size-0x", OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", rule, Seen.CUT),
        HostileAnswer("chunk-size-overflow", OK + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", rule, Seen.CUT),
        HostileAnswer("chunk-longer", OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n" + EVIL, rule, Seen.CUT),
        HostileAnswer("chunk-lf", OK + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n" + EVIL, rule, Seen.CUT),
        HostileAnswer("chunk-ext", OK + b"Transfer-Encoding: chunked\r\n\r\n5;secret-ext=1\r\nhello\r\n0\r\n\r\n", "our rule: extensions are dropped", Seen.CLEAN, b"hello", must_not=(b"secret-ext",)),
        HostileAnswer("chunk-ext-endless", OK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 30_000 + b"\r\nhello\r\n0\r\n\r\n", "our rule: bounded", Seen.CUT),
        HostileAnswer("chunk-trailers", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSet-Cookie: evil=1\r\n\r\n", "our rule: trailers are dropped", Seen.CLEAN, b"hello", must_not=(b"evil",)),
        HostileAnswer("chunked-for-1.0", OK + b"Transfer-Encoding: chunked\r\n\r\n" + body, "RFC 9112 §7.1: HTTP/1.0 is sent no chunks", Seen.CLEAN, b"hello", request=OLD, must_not=(b"transfer-encoding",)),
        HostileAnswer("until-close", OK + b"\r\nhello", "RFC 9112 §6.3: no length means until close", Seen.CLEAN, b"hello", closes=True),
    ]  # fmt: skip


def _heads() -> list[HostileAnswer]:
    rule = "RFC 9112 §4: what is no answer is 502"
    ok_end = b"Content-Length: 5\r\n\r\nhello"
    lines = {
        "version-2": b"HTTP/2.0 200 OK", "two-digits": b"HTTP/1.1 20 OK", "four-digits": b"HTTP/1.1 2000 OK", "no-status": b"HTTP/1.1 OK",
        "other-protocol": b"ICY 200 OK", "request": b"GET / HTTP/1.1", "status-0": b"HTTP/1.1 000 OK", "nul": b"HTTP/1.1 200 O\0K", "letters": b"HTTP/1.1 2x0 OK",
        "status-999": b"HTTP/1.1 999 OK", "binary": b"\x16\x03\x01\x02\x00",
    }  # fmt: skip
    framed = b"\r\nX-Serial: @SERIAL@\r\n" + ok_end
    asked = "our rule: tunnel only after a 101 that was asked for"
    return [
        *(HostileAnswer(f"line-{name}", line + framed, rule, Seen.REFUSED) for name, line in lines.items()),
        HostileAnswer("line-bare-lf", (OK + ok_end).replace(b"\r\n", b"\n"), "RFC 9112 §2.2: repaired or 502", Seen.ANY),
        HostileAnswer("field-bare-lf", OK + b"X-A: b\nX-B: c\r\n" + ok_end, "RFC 9112 §2.2: repaired or 502", Seen.ANY),
        HostileAnswer("field-bare-cr", OK + b"X-A: b\rX-B: c\r\n" + ok_end, "RFC 9112 §2.2: never passed on", Seen.ANY),
        HostileAnswer("field-nul", OK + b"X-A: b\0c\r\n" + ok_end, "RFC 9110 §5.5: never passed on", Seen.ANY),
        HostileAnswer("field-fold", OK + b"X-A: b\r\n c\r\n" + ok_end, "RFC 9112 §5.2: 502, or one blank", Seen.ANY),
        HostileAnswer("field-fold-length", OK + b"Content-Length: 5\r\n 0\r\n\r\nhello" + EVIL, "RFC 9112 §5.2: 502", Seen.REFUSED),
        HostileAnswer("field-blank-before-colon", OK + b"X-A : b\r\n" + ok_end, "RFC 9112 §5.1: removed, or 502", Seen.ANY),
        HostileAnswer("field-no-colon", OK + b"X-A\r\n" + ok_end, rule, Seen.ANY),
        HostileAnswer("head-too-long", OK + b"X-A: " + b"a" * 40_000 + b"\r\n" + ok_end, "our rule: heads are bounded", Seen.REFUSED),
        HostileAnswer("head-endless", OK + b"X-A: b\r\n" * 20_000, "our rule: heads are bounded", Seen.REFUSED),
        HostileAnswer("switch-unasked", b"HTTP/1.1 101 Switching Protocols\r\nX-Serial: @SERIAL@\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + EVIL, asked, Seen.REFUSED),
        HostileAnswer("switch-for-post", b"HTTP/1.1 101 Switching Protocols\r\nX-Serial: @SERIAL@\r\n\r\n" + EVIL, asked, Seen.REFUSED, request=POST),
        HostileAnswer("interim-many", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20 + OK + ok_end, "RFC 9110 §15.2: interim answers come before the final one", Seen.ANY, b"hello"),
        HostileAnswer("interim-endless", b"HTTP/1.1 102 Processing\r\n\r\n" * 20_000, "interim answers are bounded", Seen.CUT, closes=True),
        HostileAnswer("interim-for-1.0", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + ok_end, "RFC 9110 §15.2: no interim answer to HTTP/1.0", Seen.CLEAN, b"hello", request=OLD, must_not=(b"103 early",)),
    ]  # fmt: skip


def _bodiless() -> list[HostileAnswer]:
    rule = "our rule: answers to HEAD, 204 and 304 end at the head (RFC 9112 §6.3)"
    long = b"Content-Length: %d\r\n\r\n" % len(EVIL) + EVIL
    chunked = b"Transfer-Encoding: chunked\r\n\r\n6\r\nPOISON\r\n0\r\n\r\n"
    no_content = OK.replace(b"200 OK", b"204 No Content")
    not_modified = OK.replace(b"200 OK", b"304 Not Modified")
    clean = partial(HostileAnswer, rule=rule, seen=Seen.ANY, body=b"")
    return [
        clean("head-with-body", OK + long, request=HEAD),
        clean("head-with-chunks", OK + chunked, request=HEAD),
        HostileAnswer("head-length-only", OK + b"Content-Length: 50\r\n\r\n", rule, Seen.CLEAN, b"", request=HEAD),
        HostileAnswer(
            "head-chunked-only", OK + b"Transfer-Encoding: chunked\r\n\r\n", rule, Seen.CLEAN, b"", request=HEAD
        ),
        clean("204-with-body", no_content + long),
        clean("204-with-chunks", no_content + chunked),
        clean("204-then-body-later", no_content + b"\r\n", later=EVIL),
        clean("304-with-body", not_modified + long),
        HostileAnswer("304-length-only", not_modified + b"Content-Length: 50\r\n\r\n", rule, Seen.CLEAN, b""),
    ]


def _broken() -> list[HostileAnswer]:
    rule = "RFC 9112 §8: a truncated answer must not look whole"
    once = "RFC 9110 §9.2.2: what may have been executed is not repeated unless idempotent"
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    return [
        HostileAnswer("truncated-length", OK + b"Content-Length: 50\r\n\r\nhello", rule, Seen.CUT, closes=True),
        HostileAnswer("truncated-chunk", chunked + b"50\r\nhello", rule, Seen.CUT, closes=True),
        HostileAnswer("truncated-chunks", chunked + b"5\r\nhello\r\n", rule, Seen.CUT, closes=True),
        HostileAnswer("truncated-last-chunk", chunked + b"5\r\nhello\r\n0\r\n", rule, Seen.CUT, closes=True),
        HostileAnswer("truncated-head", OK, rule, Seen.CUT, closes=True),
        HostileAnswer("no-answer-get", b"", once, Seen.REFUSED, closes=True),
        HostileAnswer("no-answer-post", b"", once, Seen.REFUSED, request=POST, closes=True, served_max=1),
        HostileAnswer("half-answer-post", b"HTTP/1.1 20", once, Seen.REFUSED, request=POST, closes=True, served_max=1),
        HostileAnswer("rubbish-post", b"\0\1\2\3\r\n\r\n", once, Seen.REFUSED, request=POST, served_max=1),
    ]  # fmt: skip


def _fields() -> list[HostileAnswer]:
    end = b"Content-Length: 5\r\n\r\nhello"
    hop = "RFC 9110 §7.6.1: hop-by-hop fields of an answer end here"
    return [
        HostileAnswer("hop-by-hop", OK + b"Connection: X-Secret, keep-alive\r\nX-Secret: evil\r\nKeep-Alive: timeout=9\r\nProxy-Connection: evil\r\n" + end, hop, Seen.CLEAN, b"hello", must_not=(b"evil", b"timeout=9")),
        HostileAnswer("upgrade-offered", OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + end, hop, Seen.CLEAN, b"hello", must_not=(b"h2c",)),
        HostileAnswer("close-then-more", OK + b"Connection: close\r\n" + end + EVIL, "RFC 9112 §9.6: nothing after close", Seen.CLEAN, b"hello"),
    ]  # fmt: skip
