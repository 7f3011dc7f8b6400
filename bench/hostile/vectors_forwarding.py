"""What must reach the server, and what must not: hop-by-hop fields, forwarding fields, Upgrade, affinity."""

from __future__ import annotations

from bench.hostile.vector import Vector, either, forwarded, head, post

__all__ = ["vectors"]

WEBSOCKET = (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")


def vectors() -> list[Vector]:
    """What is cut, what is added, what passes."""
    return [*_hop_by_hop(), *_forwarding(), *_upgrades(), *_affinity(), *_plain()]


def _hop_by_hop() -> list[Vector]:
    rule = "our rule: hop-by-hop fields are cut (RFC 9110 §7.6.1)"
    fields = {
        "keep-alive": b"Keep-Alive: timeout=99", "proxy-connection": b"Proxy-Connection: keep-alive", "te": b"TE: trailers, deflate",
        "trailer": b"Trailer: X-A", "proxy-authorization": b"Proxy-Authorization: Basic evil", "proxy-authenticate": b"Proxy-Authenticate: Basic",
    }  # fmt: skip
    nominated = "our rule: what Connection nominates is cut, before ours is added"
    return [
        *(forwarded(f"hop-{name}", head(line), rule, must_not=(line.lower(),)) for name, line in fields.items()),
        forwarded("hop-nominated", head(b"Connection: X-A, x-b", b"X-A: 1", b"X-B: 2", b"X-C: 3"), nominated, must=(b"x-c: 3",), must_not=(b"x-a:", b"x-b:")),
        forwarded("hop-nominated-before", head(b"X-A: 1", b"X-A: 2", b"Connection: x-a"), nominated, must_not=(b"x-a:",)),
        forwarded("hop-nominated-two-lines", head(b"Connection: X-A", b"Connection: X-B", b"X-A: 1", b"X-B: 2"), nominated, must_not=(b"x-a:", b"x-b:")),
        forwarded("hop-nominated-forwarded", head(b"Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host"), nominated, must=(b"x-forwarded-for: 127.0.0.1\r\n", b"x-forwarded-proto: http\r\n", b"x-forwarded-host: a.example\r\n")),
        either("hop-nominated-coding", post(b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), "smuggling: framing is not nominated away"),
        forwarded("hop-nominated-similar", head(b"Connection: X-A", b"X-A: 1", b"X-AB: 2", b"A: 3"), nominated, must=(b"x-ab: 2", b"a: 3")),
        forwarded("hop-nominated-itself", head(b"Connection: Connection, keep-alive"), nominated),
        forwarded("hop-close", head(b"Connection: close", b"X-Close: 1"), rule, must=(b"x-close: 1",)),
        forwarded("hop-keep-alive-1.0", head(b"Connection: Keep-Alive", line=b"GET /v/@M@ HTTP/1.0"), rule, must=(b"HTTP/1.1\r\n",)),
        forwarded("hop-all", head(b"Connection: close, X-A", *fields.values(), b"X-A: 1", b"X-Z: 9"), rule, must=(b"x-z: 9",), must_not=(b"x-a:", b"evil")),
    ]  # fmt: skip


def _forwarding() -> list[Vector]:
    rule = "our rule: Forwarded and X-Forwarded-* of a client are cut, ours added"
    lines = {
        "for": b"X-Forwarded-For: 10.9.9.9", "for-list": b"X-Forwarded-For: 10.9.9.9, 127.0.0.1", "proto": b"X-Forwarded-Proto: evil",
        "host": b"X-Forwarded-Host: evil.example", "port": b"X-Forwarded-Port: 10999", "prefix": b"X-Forwarded-Prefix: /evil",
        "forwarded": b"Forwarded: for=10.9.9.9;proto=evil", "cased": b"x-FORWARDED-for:10.9.9.9", "server": b"X-Forwarded-Server: evil",
    }  # fmt: skip
    ours = (b"x-forwarded-for: 127.0.0.1\r\n", b"x-forwarded-proto: http\r\n", b"x-forwarded-host: a.example\r\n")
    return [
        *(forwarded(f"forwarding-{name}", head(line), rule, must=ours, must_not=(b"10.9.9.9", b"evil", b"10999")) for name, line in lines.items()),
        forwarded("forwarding-many", head(*lines.values(), *lines.values()), rule, must=ours, must_not=(b"10.9.9.9", b"evil")),
        forwarded("forwarding-none", head(), rule, must=ours),
        forwarded("forwarding-similar", head(b"X-Forward: 1", b"XX-Forwarded-For: 2"), "a known name is matched whole", must=(b"x-forward: 1", b"xx-forwarded-for: 2")),
    ]  # fmt: skip


def _upgrades() -> list[Vector]:
    rule = "our rule: Upgrade only to websocket, on a bodyless GET (RFC 9110 §7.8)"
    up = b"Connection: Upgrade"
    other = {
        "h2c": b"Upgrade: h2c",
        "tls": b"Upgrade: TLS/1.0",
        "two": b"Upgrade: websocket, h2c",
        "versioned": b"Upgrade: websocket/13",
        "list": b"Upgrade: h2c, websocket",
    }
    return [
        *(either(f"upgrade-{name}", head(up, line, *WEBSOCKET), rule, must_not=(b"h2c", b"tls/1.0", b"websocket/13")) for name, line in other.items()),
        either("upgrade-without-connection", head(b"Upgrade: websocket", *WEBSOCKET), rule, must_not=(b"upgrade: websocket",)),
        either("upgrade-connection-only", head(up, *WEBSOCKET), rule, must_not=(b"connection: upgrade",)),
        either("upgrade-post", post(up, b"Upgrade: websocket", *WEBSOCKET), rule, must_not=(b"upgrade: websocket",)),
        either("upgrade-1.0", head(up, b"Upgrade: websocket", *WEBSOCKET, line=b"GET /v/@M@ HTTP/1.0"), rule, must_not=(b"upgrade: websocket",)),
        either("upgrade-chunked", head(up, b"Upgrade: websocket", *WEBSOCKET, b"Transfer-Encoding: chunked") + b"0\r\n\r\n", rule, must_not=(b"upgrade: websocket",)),
        either("upgrade-two-lines", head(up, b"Upgrade: h2c", b"Upgrade: websocket", *WEBSOCKET), rule, must_not=(b"h2c",)),
        forwarded("upgrade-length-0", head(up, b"Upgrade: websocket", *WEBSOCKET, b"Content-Length: 0"), "RFC 9110 §8.6: a length of 0 is no body", must=(b"upgrade: websocket\r\n",)),
        forwarded("upgrade-websocket", head(b"Connection: keep-alive, UPGRADE", b"Upgrade: WebSocket", *WEBSOCKET), rule, must=(b"upgrade: websocket\r\n", b"connection: upgrade\r\n")),
    ]  # fmt: skip


def _affinity() -> list[Vector]:
    rule = "our rule: affinity parts are cut, and nothing else of a Cookie"
    kept = {
        "alone": (b"Cookie: @AFFINITY@", (), (b"cookie:",)),
        "first": (b"Cookie: @AFFINITY@; a=1; b=2", (b"a=1; b=2",), ()),
        "middle": (b"Cookie: a=1; @AFFINITY@; b=2", (b"a=1", b"b=2"), ()),
        "last": (b"Cookie: a=1; b=2; @AFFINITY@", (b"a=1; b=2",), ()),
        "no-blanks": (b"Cookie:a=1;@AFFINITY@;b=2", (b"a=1", b"b=2"), ()),
        "twice": (b"Cookie: @AFFINITY@; a=1; @COOKIE@=forged", (b"a=1",), (b"forged",)),
        "thrice": (b"Cookie: @COOKIE@=x; @COOKIE@=forged; @AFFINITY@; a=1", (b"a=1",), (b"forged",)),
        "forged": (b"Cookie: @COOKIE@=forged", (), (b"cookie:", b"forged")),
        "empty": (b"Cookie: a=1; @COOKIE@=; b=2", (b"a=1", b"b=2"), ()),
        "empty-last": (b"Cookie: a=1; @COOKIE@=", (b"a=1",), ()),
        "quoted": (b'Cookie: a=1; @COOKIE@="forged"', (b"a=1",), (b"forged",)),
        "obs-text": (b"Cookie: a=1; @COOKIE@=\xff\xfeforged", (b"a=1",), (b"forged",)),
        "other-cookies-only": (b"Cookie: a=1; b=2", (b"a=1; b=2",), ()),
        "longer-name": (b"Cookie: x@COOKIE@=1; @COOKIE@x=2; @COOKIE@-b=3", (b"x@COOKIE@=1", b"@COOKIE@x=2", b"@COOKIE@-b=3"), ()),
        "name-in-value": (b"Cookie: a=@COOKIE@=kept; b=2", (b"a=@COOKIE@=kept", b"b=2"), ()),
        "name-after-colon": (b"Cookie: a=x:@COOKIE@=kept; b=2", (b"a=x:@COOKIE@=kept", b"b=2"), ()),
        "name-after-colon-last": (b"Cookie: b=2; a=x: @COOKIE@=kept", (b"b=2", b"a=x: @COOKIE@=kept"), ()),
        "name-after-comma": (b"Cookie: a=x,@COOKIE@=kept", (b"a=x,@COOKIE@=kept",), ()),
        "name-after-both": (b"Cookie: a=x:@COOKIE@=kept; @AFFINITY@; b=2", (b"a=x:@COOKIE@=kept", b"b=2"), ()),
        "no-value": (b"Cookie: @COOKIE@; a=1", (b"a=1",), ()),
        "semicolons": (b"Cookie: ;; @AFFINITY@ ;; a=1;", (b"a=1",), ()),
        "other-field": (b"X-Cookie: @COOKIE@=kept", (b"x-cookie: @COOKIE@=kept",), ()),
    }  # fmt: skip
    return [
        *(forwarded(f"affinity-{name}", head(line), rule, must=must, must_not=must_not) for name, (line, must, must_not) in kept.items()),
        forwarded("affinity-two-lines", head(b"Cookie: a=1; @AFFINITY@", b"Cookie: @COOKIE@=forged; b=2"), rule, must=(b"a=1", b"b=2"), must_not=(b"forged",)),
        forwarded("affinity-two-lines-empty", head(b"Cookie: @AFFINITY@", b"Cookie: @AFFINITY@", b"Cookie: c=3"), rule, must=(b"c=3",)),
        forwarded("affinity-cased-field", head(b"cOOKIE: a=1; @AFFINITY@"), rule, must=(b"a=1",)),
        forwarded("affinity-oversized", head(b"Cookie: a=1; @COOKIE@=" + b"Z" * 6_000), rule, must=(b"a=1",), must_not=(b"zzzz",)),
        forwarded("affinity-hundreds", head(b"Cookie: " + b"; ".join([b"@COOKIE@=forged"] * 300) + b"; a=1"), rule, must=(b"a=1",), must_not=(b"forged",)),
    ]  # fmt: skip


def _plain() -> list[Vector]:
    rule = "what breaks no rule passes"
    browser = (
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)", b"Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
        b"Accept-Language: ko-KR,ko;q=0.9", b"Accept-Encoding: gzip, deflate, br", b"Referer: http://a.example/", b"DNT: 1",
        b"Sec-Fetch-Dest: document", b"Cache-Control: max-age=0", b'If-None-Match: "x"', b"Cookie: a=1; theme=dark",
    )  # fmt: skip
    return [
        forwarded("plain-browser", head(*browser), rule, must=(b"theme=dark",)),
        forwarded("plain-repeated", head(b"X-A: 1", b"X-A: 2", b"x-a: 3"), "RFC 9110 §5.3: the order of equal names is kept"),
        forwarded("plain-http-1.0", head(line=b"GET /v/@M@ HTTP/1.0"), rule),
        forwarded("plain-put", head(b"Content-Length: 5", line=b"PUT /v/@M@ HTTP/1.1") + b"\0\r\n\r\n", "bodies are octets"),
        forwarded("plain-multipart", post(b"Content-Type: multipart/form-data; boundary=x", b"Content-Length: 40", body=b"--x\r\nContent-Disposition: form-data\r\n\r\n\r"[:40].ljust(40, b"-")), rule),
        forwarded("plain-big-body", post(b"Content-Length: 300000", body=b"GET / HTTP/1.1\r\n\r\n" * 16_667)[: -6], rule),
    ]  # fmt: skip
