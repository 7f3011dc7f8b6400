"""Where a request ends: Content-Length against Transfer-Encoding, each against itself, and bodies nobody expects."""

from __future__ import annotations

from bench.hostile.vector import Vector, either, forwarded, head, post, refused

__all__ = ["vectors"]

SMUGGLED = b"GET /v/smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"
"""A request inside another's body; without a marker, since a length counts it."""


def vectors() -> list[Vector]:
    """Both framings, either one malformed, bodies nobody expects, and what follows a request."""
    return [*_both(), *_codings(), *_lengths(), *_unexpected_bodies(), *_pipelines()]


def _both() -> list[Vector]:
    rule = "CL.TE/TE.CL: both is 400 (RFC 9112 §6.1, §6.3)"
    chunked = b"0\r\n\r\n" + SMUGGLED
    return [
        refused("both-cl-te", post(b"Content-Length: %d" % len(chunked), b"Transfer-Encoding: chunked", body=chunked), rule),
        refused("both-te-cl", post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"), rule),
        refused("both-te-cl-zero", post(b"Transfer-Encoding: chunked", b"Content-Length: 0", body=b"5\r\nhello\r\n0\r\n\r\n"), rule),
        refused("both-agreeing", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"), rule),
        refused("both-get", head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + chunked, rule),
        refused("both-far-apart", post(b"Content-Length: 5", *[b"X-%d: y" % i for i in range(60)], b"Transfer-Encoding: chunked", body=chunked), rule),
        refused("both-cased", post(b"cOnTeNt-LeNgTh: 5", b"tRaNsFeR-eNcOdInG: cHuNkEd", body=chunked), rule),
    ]  # fmt: skip


def _codings() -> list[Vector]:
    rule = "TE.TE: exactly one `chunked` (RFC 9112 §6.3)"
    body = b"0\r\n\r\n"
    values = {
        "xchunked": b"xchunked", "chunkedx": b"chunkedx", "comma-first": b",chunked", "comma-last": b"chunked,",
        "twice": b"chunked, chunked", "identity": b"identity", "identity-chunked": b"identity, chunked",
        "chunked-identity": b"chunked, identity", "gzip-chunked": b"gzip, chunked", "gzip": b"gzip", "quoted": b'"chunked"',
        "parameter": b"chunked;q=1", "semicolon": b"chunked;", "vertical-tab": b"\x0bchunked", "nbsp": b"\xa0chunked",
        "nel": b"chunked\x85", "nul": b"chunked\0", "cr": b"chunked\r", "empty": b"", "blank": b" ", "colon": b": chunked",
        "fullwidth": b"\xef\xbd\x83hunked", "long-s-like": b"chun\xe2\x84\xaaed", "space-inside": b"chun ked", "form-feed": b"\x0cchunked",
        "brackets": b"[chunked]", "deflate-case": b"CHUNKED, DEFLATE", "cow": b"cow",
    }  # fmt: skip
    two = {"chunked": b"chunked", "identity": b"identity", "x": b"x", "empty": b""}
    old = head(b"Transfer-Encoding: chunked", line=b"POST /v/@M@ HTTP/1.0") + body
    kept = (
        head(b"Connection: keep-alive", b"Transfer-Encoding: chunked", line=b"POST /v/@M@ HTTP/1.0") + body + SMUGGLED
    )
    lines = b"Transfer-Encoding: chunked"
    return [
        *(refused(f"coding-{name}", post(b"Transfer-Encoding: " + value, body=body), rule) for name, value in values.items()),
        *(refused(f"coding-two-lines-{name}", post(lines, b"Transfer-Encoding: " + value, body=body), rule) for name, value in two.items()),
        *(refused(f"coding-two-lines-{name}-first", post(b"Transfer-Encoding: " + value, lines, body=body), rule) for name, value in two.items()),
        refused("coding-http-1.0", old, "TE in HTTP/1.0 is faulty (RFC 9112 §6.1)"),
        refused("coding-http-1.0-kept", kept, "TE in HTTP/1.0 is faulty (RFC 9112 §6.1)"),
        forwarded("coding-cased", post(b"TRANSFER-ENCODING:chUNKed", body=b"5\r\nhello\r\n0\r\n\r\n"), rule, must=(b"hello",)),
        either("coding-tab", post(b"Transfer-Encoding:\tchunked \t", body=b"5\r\nhello\r\n0\r\n\r\n"), "RFC 9112 §5.1: OWS is no part of a value; a stricter reading does no harm"),
        forwarded("coding-get", head(b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", "RFC 9110 §9.3.1: a GET may have a body, and it is read", must=(b"hello",)),
    ]  # fmt: skip


def _lengths() -> list[Vector]:
    rule = "our rule: Content-Length is 0|[1-9]\\d* (RFC 9112 §6.3)"
    values = {
        "plus": b"+5", "minus": b"-5", "minus-zero": b"-0", "hex": b"0x5", "leading-zero": b"05", "zeros": b"00", "octal": b"010",
        "underscore": b"0_5", "empty": b"", "blank": b" ", "decimal": b"5.0", "exponent": b"5e0", "letters": b"five",
        "trailing-letter": b"5a", "list-equal": b"5, 5", "list-differing": b"5, 6", "list-empty": b"5,", "semicolon": b"5;",
        "inner-blank": b"5 5", "quoted": b'"5"', "nul": b"5\0", "vertical-tab": b"\x0b5", "form-feed": b"5\x0c", "nbsp": b"\xa05",
        "nel": b"5\x85", "arabic-digits": b"\xd9\xa5", "fullwidth": b"\xef\xbc\x95", "superscript": b"\xb2", "overflow-63": b"9223372036854775808",
        "overflow-64": b"18446744073709551621", "overflow-far": b"9" * 40, "true": b"true", "colon": b":5", "equals": b"=5",
    }  # fmt: skip
    two = {"differing": b"6", "zero": b"0", "empty": b"", "bad": b"x"}
    return [
        *(refused(f"length-{name}", post(b"Content-Length: " + value, body=b"hello"), rule) for name, value in values.items()),
        *(refused(f"length-two-{name}", post(b"Content-Length: 5", b"Content-Length: " + value, body=b"hello"), "CL.CL") for name, value in two.items()),
        *(refused(f"length-two-{name}-first", post(b"content-length: " + value, b"Content-Length: 5", body=b"hello"), "CL.CL") for name, value in two.items()),
        refused("length-two-equal", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), "our rule with RFC 9112 §6.3: two are not one, best refused"),
        refused("length-zero-then-body", post(b"Content-Length: 0", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), "CL.0"),
        forwarded("length-blanks", post(b"Content-Length: \t 5 \t", body=b"hello"), "RFC 9112 §5.1: OWS is no part of a value", must=(b"hello",)),
        forwarded("length-zero", post(b"Content-Length: 0"), rule),
        forwarded("length-none", post(), "RFC 9112 §6.3: a request without framing fields has no body"),
    ]  # fmt: skip


def _unexpected_bodies() -> list[Vector]:
    rule = "CL.0/0.CL: a body is read, whatever the method, and never taken for a request"
    length = b"Content-Length: %d" % len(SMUGGLED)
    methods = (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"PATCH")
    old = head(b"Content-Length: 5", line=b"POST /v/@M@ HTTP/1.0") + b"hello"
    return [
        *(
            forwarded(f"body-{method.decode().lower()}", head(length, line=method + b" /v/@M@ HTTP/1.1") + SMUGGLED, rule, must=(b"/v/smuggled",))
            for method in methods
        ),
        either("body-trace", head(length, line=b"TRACE /v/@M@ HTTP/1.1") + SMUGGLED, "RFC 9110 §9.3.8: TRACE has no body"),
        forwarded("body-http-1.0", old, "RFC 9112 §6.3: HTTP/1.0 with Content-Length has its body", must=(b"hello",)),
        forwarded("body-with-upgrade", post(b"Connection: Upgrade", b"Upgrade: websocket", length, body=SMUGGLED), "our rule: Upgrade only on a bodyless GET", must_not=(b"upgrade: websocket",)),
        forwarded("body-get-with-upgrade", head(b"Connection: Upgrade", b"Upgrade: websocket", length) + SMUGGLED, "our rule: Upgrade only on a bodyless GET", must_not=(b"upgrade: websocket",)),
    ]  # fmt: skip


def _pipelines() -> list[Vector]:
    rule = "RFC 9112 §9.3.2: pipelined requests are answered in order, each once"
    second = b"GET /v/@M@-second HTTP/1.1\r\nHost: a.example\r\n\r\n"
    chunked = post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")
    closing = head(b"Connection: close") + second
    fake = head(
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    return [
        forwarded("pipeline-two", head() + second, rule, whole=2),
        forwarded("pipeline-eight", head() + second * 7, rule, whole=8),
        forwarded("pipeline-after-length", post(b"Content-Length: 5", body=b"hello") + second, rule, whole=2),
        forwarded("pipeline-after-chunks", chunked + second, rule, whole=2),
        forwarded("pipeline-empty-line-between", head() + b"\r\n" + second, "RFC 9112 §2.2: an empty line is ignored", whole=2),
        forwarded("pipeline-after-head", head(line=b"HEAD /v/@M@ HTTP/1.1") + second, rule, whole=2),
        forwarded("pipeline-after-close", closing, "RFC 9112 §9.6: nothing after a request that closes is a request", must_not=(b"-second",)),
        forwarded("pipeline-after-1.0", head(line=b"GET /v/@M@ HTTP/1.0") + second, "RFC 9112 §9.3: HTTP/1.0 closes", must_not=(b"-second",)),
        forwarded("pipeline-fake-upgrade", fake + second, "our rule: a tunnel only after a 101 from the server", whole=2),
        refused("pipeline-then-rubbish", head() + b"\x01\x02rubbish\r\n\r\n", rule, whole=1),
        refused("pipeline-then-both", head() + post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), rule, whole=1),
        refused("pipeline-body-too-long", post(b"Content-Length: 5", body=b"hello, GET /v/x HTTP/1.1\r\n\r\n"), "smuggling: bytes after a body are the next request", whole=1),
        refused("pipeline-refused-then-good", head(b"X_A: b") + second, "smuggling: what is refused closes, or leaves the next request its own"),
    ]  # fmt: skip
