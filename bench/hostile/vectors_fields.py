"""Field lines: names, values, line ends, folding, and the fields that Connection may not take away."""

from __future__ import annotations

from bench.hostile.vector import Vector, either, forwarded, head, post, refused

__all__ = ["vectors"]


def vectors() -> list[Vector]:
    """Names, values, line ends, folds, and what Connection may not nominate."""
    return [*_names(), *_values(), *_ends(), *_folds(), *_nominations()]


def _names() -> list[Vector]:
    before_colon = "smuggling: no blank before the colon (RFC 9112 §5.1)"
    token = "RFC 9110 §5.1: a field name is a token"
    underscore = "our rule: names with _ are refused"
    wrong = {
        "blank-before-colon": (b"X-A : b", before_colon),
        "tab-before-colon": (b"X-A\t: b", before_colon),
        "blank-before-colon-length": (b"Content-Length : 5", before_colon),
        "blank-before-colon-coding": (b"Transfer-Encoding : chunked", before_colon),
        "empty-name": (b": b", token),
        "no-colon": (b"X-A", token),
        "name-with-space": (b"X A: b", token),
        "name-with-nul": (b"X\0A: b", token),
        "name-with-vertical-tab": (b"X-A\x0b: b", token),
        "name-with-nel": (b"X-A\x85: b", token),
        "name-with-nbsp": (b"Transfer-Encoding\xa0: chunked", token),
        "name-with-utf8": (b"X-\xc3\x84: b", token),
        "name-with-cr": (b"X\rA: b", token),
        "name-quoted": (b'"X-A": b', token),
        "name-bracket": (b"X[A]: b", token),
        "name-slash": (b"X/A: b", token),
        "underscore": (b"X_Forwarded_For: 10.9.9.9", underscore),
        "underscore-length": (b"Content_Length: 5", underscore),
        "underscore-coding": (b"Transfer_Encoding: chunked", underscore),
        "underscore-host": (b"X_Host: b", underscore),
        "underscore-first": (b"_x: b", underscore),
    }
    return [
        *(refused(f"name-{name}", head(line), rule) for name, (line, rule) in wrong.items()),
        refused("name-blank-line-first", head(host=b" Host: a.example"), "smuggling: no blank before the first field (RFC 9112 §2.2)"),
        refused("name-tab-first", head(b"X-A: b", host=b"\tHost: a.example"), "smuggling: no blank before the first field"),
        forwarded("name-odd-token", head(b"!#$%&'*+-.^`|~: b"), token, must=(b"!#$%&'*+-.^`|~: b",)),
        forwarded("name-longer-than-known", head(b"Content-Lengthy: 9", b"X-Content-Length: 9", b"Hosts: b"), "a known name is matched whole", must=(b"content-lengthy: 9", b"x-content-length: 9", b"hosts: b")),
    ]  # fmt: skip


def _values() -> list[Vector]:
    rule = "smuggling: CR, LF and NUL in a value are refused (RFC 9110 §5.5)"
    control = "RFC 9110 §5.5: a value holds visible characters, blanks and obs-text"
    wrong = {
        "nul": b"a\0b",
        "nul-first": b"\0a",
        "nul-last": b"a\0",
        "cr": b"a\rb",
        "cr-last": b"a\r",
        "only-nul": b"\0",
    }
    controls = {
        "vertical-tab": b"a\x0bb",
        "form-feed": b"a\x0cb",
        "escape": b"a\x1bb",
        "delete": b"a\x7fb",
        "bell": b"\x07",
    }
    return [
        *(refused(f"value-{name}", head(b"X-A: " + value), rule) for name, value in wrong.items()),
        *(refused(f"value-{name}", head(b"X-A: " + value), control) for name, value in controls.items()),
        refused("value-nul-in-cookie", head(b"Cookie: a=\0b"), rule),
        refused("value-cr-in-forwarded", head(b"X-Forwarded-For: 1.2.3.4\rX: y"), rule),
        forwarded("value-empty", head(b"X-Empty:", b"X-Blank: \t "), "RFC 9110 §5.5: a value may be empty", must=(b"x-empty:",)),
        forwarded("value-obs-text", head(b"X-A: \xe9\x85z\xa0"), "RFC 9110 §5.5: obs-text passes untouched", must=(b"\xe9\x85z\xa0",)),
        forwarded("value-looks-like-field", head(b"X-A: Content-Length: 5, Host: b.example"), "a name counts at the start of a line only", must=(b"content-length: 5, host: b.example",)),
        forwarded("value-escaped-crlf", head(b"X-A: %0d%0aX-Forwarded-For: 1"), "escapes are data", must=(b"%0d%0ax-forwarded-for: 1",)),
    ]  # fmt: skip


def _ends() -> list[Vector]:
    rule = "smuggling: bare LF and bare CR in a head are refused (RFC 9112 §2.2)"
    whole = head(b"X-A: b", b"X-B: c")
    second = b"GET /v/@M@-second HTTP/1.1\r\nHost: a.example\r\n\r\n"
    return [
        refused("end-lf-in-fields", whole.replace(b"b\r\n", b"b\n"), rule),
        refused("end-lf-hides-field", head(b"X-A: b\nX-Forwarded-For: 10.9.9.9"), rule),
        refused("end-lf-hides-length", post(b"X-A: b\nContent-Length: 5", body=b"hello"), rule),
        refused("end-lf-hides-coding", post(b"X-A: b\nTransfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"), rule),
        refused("end-lf-lf", whole[:-4] + b"\n\n" + second, rule),
        refused("end-crlf-lf", whole[:-4] + b"\r\n\n" + second, rule),
        refused("end-lf-crlf", whole[:-4] + b"\n\r\n" + second, rule),
        refused("end-cr-cr", whole[:-4] + b"\r\r" + second, rule),
        refused("end-lf-cr", whole.replace(b"b\r\n", b"b\n\r"), rule),
        refused("end-cr-hides-field", head(b"X-A: b\rTransfer-Encoding: chunked"), rule),
        refused("end-nel", head(b"X-A: b\x85X-Forwarded-For: 1").replace(b"\x85", b"\r\x85\n"), rule),
        refused("end-lf-after-host", head(host=b"Host: a.example\n"), rule),
    ]  # fmt: skip


def _folds() -> list[Vector]:
    rule = "smuggling: obs-fold is 400, or one blank (RFC 9112 §5.2)"
    return [
        either("fold-space", head(b"X-A: b\r\n c"), rule, must_not=(b"\r\n c",)),
        either("fold-tab", head(b"X-A: b\r\n\tc"), rule, must_not=(b"\r\n\tc",)),
        either("fold-empty", head(b"X-A: b\r\n "), rule, must_not=(b"\r\n \r\n",)),
        refused("fold-coding", post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"), rule),
        refused("fold-coding-2", post(b"Transfer-Encoding: chunked\r\n , identity", body=b"0\r\n\r\n"), rule),
        refused("fold-length", post(b"Content-Length:\r\n 5", body=b"hello"), rule),
        refused("fold-length-2", post(b"Content-Length: 5\r\n 0", body=b"hello"), rule),
        refused("fold-host", head(host=b"Host: a.example\r\n b.example"), rule),
        refused("fold-after-line", head(b"Host: a.example", host=b" folded"), rule),
        refused("fold-hides-field", head(b"X-A: b\r\n Transfer-Encoding: chunked"), rule),
    ]


def _nominations() -> list[Vector]:
    rule = "our rule: Connection may not nominate Host, Cookie, Content-Length"
    cases = {
        "host": b"Connection: Host", "cookie": b"Connection: close, Cookie", "length": b"Connection: Content-Length",
        "cookie-case": b"connection: cOOkie", "cookie-no-blank": b"Connection: close,cookie", "host-tab": b"Connection: close,\tHost\t",
        "cookie-empty-members": b"Connection: ,, ,cookie, ,",
    }  # fmt: skip
    body = (b"Content-Length: 5", b"Cookie: a=b")
    return [
        *(refused(f"nominate-{name}", post(line, *body, body=b"hello"), rule) for name, line in cases.items()),
        refused(
            "nominate-second-line", post(b"Connection: keep-alive", b"Connection: cookie", *body, body=b"hello"), rule
        ),
        refused("nominate-no-token", head(b"Connection: a b"), "RFC 9110 §7.6.1: Connection is a list of tokens"),
        refused("nominate-quoted", head(b'Connection: "cookie"'), "RFC 9110 §7.6.1: Connection is a list of tokens"),
    ]
