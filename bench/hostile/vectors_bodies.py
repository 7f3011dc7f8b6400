"""Chunked bodies: sizes, extensions, line ends, trailers, and bodies that never end."""

from __future__ import annotations

from bench.hostile.vector import Vector, cut, either, forwarded, head, post, refused

__all__ = ["vectors"]

CODING = b"Transfer-Encoding: chunked"
SECOND = b"GET /v/@M@-second HTTP/1.1\r\nHost: a.example\r\n\r\n"


def vectors() -> list[Vector]:
    """Chunk sizes, extensions, data, trailers, expectations, and bodies that stop."""
    return [*_sizes(), *_extensions(), *_data(), *_trailers(), *_expectations(), *_unfinished()]


def chunks(body: bytes) -> bytes:
    return post(CODING, body=body)


def _sizes() -> list[Vector]:
    rule = "chunk-size: 1*HEXDIG, capped (RFC 9112 §7.1)"
    wrong = {
        "0x": b"0x5", "plus": b"+5", "minus": b"-5", "underscore": b"0_5", "empty": b"", "letter": b"g", "leading-space": b" 5",
        "trailing-space": b"5 ", "trailing-tab": b"5\t", "overflow-64": b"10000000000000005", "overflow-32-digits": b"0" * 31 + b"5",
        "max-64": b"ffffffffffffffff", "comma": b"5,5", "decimal": b"5.0", "nul": b"5\0", "cr": b"5\r", "nbsp": b"\xa05",
        "fullwidth": b"\xef\xbc\x95", "vertical-tab": b"5\x0b", "hash": b"5#x", "quoted": b'"5"',
    }  # fmt: skip
    return [
        *(cut(f"size-{name}", chunks(size + b"\r\nhello\r\n0\r\n\r\n" + SECOND), rule) for name, size in wrong.items()),
        *(cut(f"size-last-{name}", chunks(b"5\r\nhello\r\n" + size + b"\r\n\r\n"), rule) for name, size in {"0x": b"0x0", "minus": b"-0", "plus": b"+0", "empty": b""}.items()),
        forwarded("size-leading-zeros", chunks(b"0005\r\nhello\r\n000\r\n\r\n"), rule, must=(b"hello",)),
        forwarded("size-upper-case", chunks(b"A\r\nhellohello\r\n0\r\n\r\n"), rule, must=(b"hellohello",)),
        forwarded("size-lower-case", chunks(b"a\r\nhellohello\r\n0\r\n\r\n"), rule, must=(b"hellohello",)),
    ]  # fmt: skip


def _extensions() -> list[Vector]:
    rule = "chunk-ext: bounded, ended by CRLF, dropped (RFC 9112 §7.1.1)"
    rest = b"\r\nhello\r\n0\r\n\r\n"
    lf = b"5;a\nb" + rest
    return [
        forwarded("ext-dropped", chunks(b"5;secret-ext=1" + rest), rule, must=(b"hello",), must_not=(b"secret-ext",)),
        forwarded("ext-quoted", chunks(b'5;a="b;c"' + rest), rule, must_not=(b'"b;c"',)),
        forwarded("ext-on-last", chunks(b"5\r\nhello\r\n0;secret-ext\r\n\r\n"), rule, must_not=(b"secret-ext",)),
        cut("ext-lf", chunks(lf), rule),
        cut("ext-term-lf", chunks(b"5;\nhello\r\n0\r\n\r\n"), rule),
        cut("ext-cr", chunks(b"5\r\r;a" + rest), rule),
        cut("ext-cr-inside", chunks(b"5;a\rb" + rest), rule),
        cut("ext-nul", chunks(b"5;a\0b" + rest), rule),
        cut("ext-endless", chunks(b"5;" + b"a" * 20_000 + rest), rule),
        cut("ext-without-semicolon", chunks(b"5 a=b" + rest), rule),
        cut("ext-many-long", chunks((b"1;" + b"a" * 4_000 + b"\r\nx\r\n") * 64 + b"0;" + b"a" * 5_000 + b"\r\n\r\n"), rule),
    ]  # fmt: skip


def _data() -> list[Vector]:
    rule = "smuggling: a chunk's data is followed by CRLF, nothing else (RFC 9112 §7.1)"
    wrong = {
        "longer-than-size": b"3\r\nhello\r\n0\r\n\r\n",
        "shorter-than-size": b"7\r\nhello\r\n0\r\n\r\nX\r\n\r\n",
        "lf-after-data": b"5\r\nhello\n0\r\n\r\n",
        "cr-after-data": b"5\r\nhello\r0\r\n\r\n",
        "lf-after-size": b"5\nhello\r\n0\r\n\r\n",
        "cr-after-size": b"5\rhello\r\n0\r\n\r\n",
        "nothing-after-data": b"5\r\nhello0\r\n\r\n",
        "lf-only": b"5\nhello\n0\n\n",
        "two-bytes-instead": b"5\r\nhelloXX0\r\n\r\n",
        "blank-line-between": b"5\r\nhello\r\n\r\n0\r\n\r\n",
    }
    second = b"0\r\n\r\nGET /v/inner HTTP/1.1\r\nHost: a.example\r\n\r\n"
    inner = b"%x\r\n%b\r\n0\r\n\r\n" % (len(second), second)
    return [
        *(cut(f"data-{name}", chunks(body), rule) for name, body in wrong.items()),
        forwarded("data-holds-end", chunks(inner) + SECOND, "a chunk's data is data", whole=2),
        forwarded("data-one-byte-each", chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello") + b"0\r\n\r\n"), rule),
        forwarded("data-binary", chunks(b"100\r\n" + bytes(range(256)) + b"\r\n0\r\n\r\n"), "bodies are octets (RFC 9110 §6.4)"),
    ]  # fmt: skip


def _trailers() -> list[Vector]:
    rule = "our rule: trailers are dropped (RFC 9110 §6.5.1)"
    names = (
        b"Content-Length: 5",
        b"Transfer-Encoding: identity",
        b"Host: b.example",
        b"Authorization: evil",
        b"X-Forwarded-For: 10.9.9.9",
        b"Cookie: evil=1",
    )
    start = b"5\r\nhello\r\n0\r\n"
    wrong = {
        "no-colon": b"Evil\r\n\r\n", "blank-before-colon": b"Evil : 1\r\n\r\n", "fold": b"X: 1\r\n evil\r\n\r\n",
        "lf": b"X: 1\nEvil: 2\r\n\r\n", "nul": b"X: a\0b\r\n\r\n", "endless": b"X: " + b"y" * 40_000, "request": SECOND,
    }  # fmt: skip
    return [
        *(
            forwarded(f"trailer-{line.split(b':')[0].decode().lower()}", chunks(start + line + b"\r\n\r\n"), rule, must_not=(line,))
            for line in names
        ),
        *(either(f"trailer-wrong-{name}", chunks(start + block), rule, must_not=(b"evil", b"-second")) for name, block in wrong.items()),
        forwarded("trailer-announced", post(CODING, b"Trailer: X-Sum", b"TE: trailers", body=start + b"X-Sum: 1\r\n\r\n") + SECOND, rule, must_not=(b"x-sum",), whole=2),
        either("trailer-lf-end", chunks(start[:-2] + b"\n\n") + SECOND, rule, must_not=(b"\n\n",)),
        either("trailer-many", chunks(start + b"X: y\r\n" * 2_000 + b"\r\n"), rule, must_not=(b"x: y",)),
    ]  # fmt: skip


def _expectations() -> list[Vector]:
    rule = "Expect: forwarded, its body never taken for a request (RFC 9110 §10.1.1)"
    expect = b"Expect: 100-continue"
    inner = SECOND.replace(b"@M@-second", b"inner")
    length = b"Content-Length: %d" % len(inner)
    return [
        forwarded("expect-length", post(expect, length, body=inner) + SECOND, rule, whole=2),
        forwarded("expect-chunked", post(expect, CODING, body=b"5\r\nhello\r\n0\r\n\r\n") + SECOND, rule, whole=2),
        forwarded("expect-no-body", head(expect) + SECOND, rule, whole=2),
        either("expect-unknown", post(b"Expect: 999-tea", length, body=inner), "RFC 9110 §10.1.1: 417 or forwarded"),
        either("expect-list", post(b"Expect: 100-continue, x", length, body=inner), rule),
        forwarded("expect-http-1.0", head(expect, b"Content-Length: 5", line=b"POST /v/@M@ HTTP/1.0") + b"hello", rule),
    ]


def _unfinished() -> list[Vector]:
    rule = "smuggling: a body that stops is never joined to another request"
    parts = {
        "length": post(b"Content-Length: 50", body=b"hello"),
        "length-nothing": post(b"Content-Length: 50"),
        "chunk-size": chunks(b"5"),
        "chunk-size-cr": chunks(b"5\r"),
        "chunk-data": chunks(b"5\r\nhe"),
        "chunk-end": chunks(b"5\r\nhello\r\n"),
        "last-chunk": chunks(b"5\r\nhello\r\n0\r\n"),
        "trailer": chunks(b"5\r\nhello\r\n0\r\nX: y\r\n"),
        "huge-length": post(b"Content-Length: 9223372036854775807", body=SECOND),
        "huge-chunk": chunks(b"7fffffffffffffff\r\n" + SECOND),
    }
    return [
        *(cut(f"unfinished-{name}", raw, rule) for name, raw in parts.items()),
        refused("unfinished-head", head()[:-2], "RFC 9112 §8: half a head is no request"),
        refused("unfinished-line", b"GET /v/@M@ HT", "RFC 9112 §8: half a head is no request"),
        refused("unfinished-crlf", head()[:-1], "RFC 9112 §8: half a head is no request"),
    ]
