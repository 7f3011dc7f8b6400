"""Request lines, targets, versions, Host and limits: what makes a head one head of one request."""

from __future__ import annotations

from bench.hostile.vector import Vector, either, forwarded, head, refused

__all__ = ["vectors"]


def vectors() -> list[Vector]:
    """Request lines, targets, hosts, limits, and other protocols."""
    return [*_lines(), *_targets(), *_hosts(), *_limits(), *_other_protocols()]


def _lines() -> list[Vector]:
    rule = "RFC 9112 §3: method SP target SP version, single spaces, nothing else"
    wrong = {
        "two-spaces": b"GET  /v/@M@ HTTP/1.1",
        "tab-for-space": b"GET\t/v/@M@ HTTP/1.1",
        "vertical-tab-for-space": b"GET\x0b/v/@M@ HTTP/1.1",
        "form-feed-for-space": b"GET /v/@M@\x0cHTTP/1.1",
        "trailing-space": b"GET /v/@M@ HTTP/1.1 ",
        "leading-space": b" GET /v/@M@ HTTP/1.1",
        "no-version": b"GET /v/@M@",
        "no-target": b"GET HTTP/1.1",
        "space-in-target": b"GET /v/@M@ x HTTP/1.1",
        "method-with-colon": b"GET: /v/@M@ HTTP/1.1",
        "method-with-nul": b"GE\0T /v/@M@ HTTP/1.1",
        "empty-method": b" /v/@M@ HTTP/1.1",
        "cr-in-target": b"GET /v/@M@\rX HTTP/1.1",
        "cr-before-version": b"GET /v/@M@ \rHTTP/1.1",
        "nul-in-target": b"GET /v/@M@\0 HTTP/1.1",
        "nbsp-in-target": b"GET /v/@M@\xa0 HTTP/1.1",
        "nel-in-target": b"GET /v/@M@\x85 HTTP/1.1",
        "utf8-in-target": b"GET /v/@M@\xc3\xa9 HTTP/1.1",
        "quoted-target": b'GET "/v/@M@" HTTP/1.1',
    }
    version_rule = "our rule: version is 1.0 or 1.1 (RFC 9112 §2.3, case-sensitive HTTP-name)"
    versions = {
        "version-0.9": b"HTTP/0.9", "version-1.2": b"HTTP/1.2", "version-2.0": b"HTTP/2.0", "version-1": b"HTTP/1",
        "version-1.10": b"HTTP/1.10", "version-01.1": b"HTTP/01.1", "version-lower-case": b"http/1.1",
        "version-comma": b"HTTP/1,1", "version-other-protocol": b"ICY/1.1", "version-rtsp": b"RTSP/1.0",
        "version-fullwidth": b"HTTP/1.\xef\xbc\x91", "version-trailing": b"HTTP/1.1x",
    }  # fmt: skip
    return [
        *(refused(f"line-{name}", head(line=line), rule) for name, line in wrong.items()),
        *(refused(f"line-{name}", head(line=b"GET /v/@M@ " + text), version_rule) for name, text in versions.items()),
        refused("line-http-0.9", b"GET /v/@M@\r\n\r\n", "our rule: a request without a version is HTTP/0.9"),
        refused("line-no-line", head(line=b"", host=b"Host: a.example"), "RFC 9112 §2.2: field lines without a request line"),
        refused("line-nul-first", b"\0" + head(), "RFC 9112 §2.2: only CRLF may stand before a request line"),
        forwarded("line-empty-line-first", b"\r\n" + head(), "RFC 9112 §2.2: an empty line before is ignored"),
        either("line-empty-lines-first", b"\r\n\r\n\r\n" + head(), "RFC 9112 §2.2: at least one empty line is ignored"),
        refused("line-ends-in-lf", head().replace(b" HTTP/1.1\r\n", b" HTTP/1.1\n"), "RFC 9112 §2.2: no bare LF in a head"),
        refused("line-ends-in-cr", head().replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r"), "RFC 9112 §2.2: no bare CR"),
        refused("line-all-lf", head().replace(b"\r\n", b"\n"), "RFC 9112 §2.2: a head of bare LF is no head"),
        refused("line-cr-cr-lf", head().replace(b"\r\n", b"\r\r\n"), "RFC 9112 §2.2: no bare CR"),
    ]  # fmt: skip


def _targets() -> list[Vector]:
    host = b"Host: a.example"
    forms = "our rule: absolute form names the Host (RFC 9112 §3.2.2)"
    wrong = {
        "absolute-other-host": (b"GET http://b.example/v/@M@ HTTP/1.1", forms),
        "absolute-userinfo": (b"GET http://a.example@b.example/v/@M@ HTTP/1.1", forms),
        "absolute-host-as-user": (b"GET http://b.example@a.example/v/@M@ HTTP/1.1", "RFC 9110 §4.2.4: no userinfo in http URLs"),
        "absolute-other-port": (b"GET http://a.example:81/v/@M@ HTTP/1.1", forms),
        "absolute-no-host": (b"GET http:///v/@M@ HTTP/1.1", "RFC 9110 §4.2.1: an http URL without host is invalid"),
        "absolute-backslash": (b"GET http://a.example\\@b.example/v/@M@ HTTP/1.1", forms),
        "absolute-ftp": (b"GET ftp://a.example/v/@M@ HTTP/1.1", "RFC 9112 §3.2.2: this is no proxy for other schemes"),
        "connect": (b"CONNECT a.example:443 HTTP/1.1", "our rule: CONNECT is refused"),
        "connect-path": (b"CONNECT /v/@M@ HTTP/1.1", "our rule: CONNECT is refused"),
        "authority-get": (b"GET a.example:80 HTTP/1.1", "RFC 9112 §3.2.3: authority form is for CONNECT only"),
        "asterisk-get": (b"GET * HTTP/1.1", "RFC 9112 §3.2.4: asterisk form is for OPTIONS only"),
        "relative": (b"GET v/@M@ HTTP/1.1", "RFC 9112 §3.2: none of the four forms"),
        "query-only": (b"GET ?v=@M@ HTTP/1.1", "RFC 9112 §3.2: none of the four forms"),
        "fragment": (b"GET /v/@M@#/public HTTP/1.1", "Host confusion: # in a path (RFC 9112 §3.2)"),
        "fragment-absolute": (b"GET http://a.example/v/@M@#x HTTP/1.1", "Host confusion: # in a target"),
        "fragment-only": (b"GET # HTTP/1.1", "Host confusion: # in a target"),
    }  # fmt: skip
    return [
        *(refused(f"target-{name}", head(line=line, host=host), rule) for name, (line, rule) in wrong.items()),
        forwarded(
            "target-absolute-same-host", head(line=b"GET http://a.example/v/@M@?q=1 HTTP/1.1"), forms,
            must=(b"GET /v/@M@?q=1 HTTP/1.1\r\n",), must_not=(b"http://a.example/",),
        ),
        forwarded(
            "target-absolute-no-path", head(b"X-Marker: @M@", line=b"GET HTTP://A.Example?q HTTP/1.1"),
            "RFC 9112 §3.2.1: an empty path is /", must=(b"GET /?q HTTP/1.1\r\n",),
        ),
        forwarded("target-asterisk-options", head(b"X-Marker: @M@", line=b"OPTIONS * HTTP/1.1"), "RFC 9112 §3.2.4", must=(b"OPTIONS * HTTP/1.1",)),
        forwarded("target-double-slash", head(line=b"GET //b.example/v/@M@ HTTP/1.1"), "RFC 9112 §3.2.1: a path may begin with //", must=(b"GET //b.example/v/@M@ HTTP/1.1",)),
        forwarded("target-escapes", head(line=b"GET /v/@M@/%2e%2e/%00%0d%0a HTTP/1.1"), "a target passes as it came", must=(b"/%2e%2e/%00%0d%0a ",)),
    ]  # fmt: skip


def _hosts() -> list[Vector]:
    rule = "our rule: exactly one valid Host (RFC 9112 §3.2)"
    wrong = {
        "none": head(host=b""),
        "two-http-1.0": head(b"Host: b.example", line=b"GET /v/@M@ HTTP/1.0"),
        "empty-http-1.0": head(host=b"Host:", line=b"GET /v/@M@ HTTP/1.0"),
        "none-http-1.0-userinfo": head(line=b"GET http://b.example@a.example/v/@M@ HTTP/1.0", host=b""),
        "two": head(b"Host: b.example"),
        "two-equal": head(b"Host: a.example"),
        "two-cases": head(b"hOST: b.example"),
        "empty": head(host=b"Host:"),
        "list": head(host=b"Host: a.example, b.example"),
        "space": head(host=b"Host: a.example b.example"),
        "tab": head(host=b"Host: a.example\tb.example"),
        "userinfo": head(host=b"Host: user@a.example"),
        "path": head(host=b"Host: a.example/path"),
        "fragment": head(host=b"Host: a.example#b"),
        "query": head(host=b"Host: a.example?b"),
        "backslash": head(host=b"Host: a.example\\b"),
        "port-letters": head(host=b"Host: a.example:http"),
        "two-ports": head(host=b"Host: a.example:80:81"),
        "quote": head(host=b'Host: "a.example"'),
        "utf8": head(host=b"Host: \xc3\xa4.example"),
        "nbsp": head(host=b"Host: a.example\xa0"),
        "open-bracket": head(host=b"Host: [::1"),
        "underscored-name": head(host=b"_Host: a.example"),
        "nul": head(host=b"Host: a.example\0b"),
        "angle": head(host=b"Host: <script>"),
    }
    return [
        *(refused(f"host-{name}", raw, rule) for name, raw in wrong.items()),
        forwarded(
            "host-none-http-1.0",
            head(line=b"GET /v/@M@ HTTP/1.0", host=b""),
            "RFC 9112 §3.2: HTTP/1.1 only must have a Host",
            must=(b"host: 127.0.0.1:",),
        ),
        forwarded(
            "host-none-http-1.0-check",
            head(line=b"OPTIONS /v/@M@ HTTP/1.0", host=b""),
            "HAProxy's default check",
            must=(b"host: 127.0.0.1:",),
        ),
        forwarded(
            "host-none-http-1.0-absolute",
            head(line=b"GET http://a.example/v/@M@ HTTP/1.0", host=b""),
            "RFC 9112 §3.3: the target names the host",
            must=(b"\r\nhost: a.example\r\n",),
        ),
        forwarded("host-ipv6", head(host=b"Host: [::1]:8080"), rule, must=(b"host: [::1]:8080\r\n",)),
        forwarded(
            "host-blanks-around", head(host=b"Host: \t a.example \t"), "RFC 9112 §5.1: OWS is no part of a value"
        ),
        forwarded("host-last-field", head(b"Accept: */*", b"Host: a.example", host=b""), rule),
    ]


def _limits() -> list[Vector]:
    many = [b"X-%d: y" % number for number in range(130)]
    fitting = [b"X-%d: y" % number for number in range(95)]
    return [
        refused("limit-fields", head(*many), "our rule: at most 100 fields"),
        forwarded("limit-fields-under", head(*fitting), "our rule: 96 fields are not too many"),
        refused("limit-head", head(b"X-Long: " + b"y" * 17_000), "our rule: a head of at most 16 KB"),
        refused(
            "limit-head-endless",
            head()[:-2] + b"X-Long: " + b"y" * 40_000,
            "our rule: a head of at most 16 KB, ended or not",
        ),
        forwarded(
            "limit-target-under",
            head(line=b"GET /v/@M@" + b"y" * 12_000 + b" HTTP/1.1"),
            "our rule: a request line may be as long as a head",
        ),
        refused(
            "limit-target",
            head(line=b"GET /v/@M@" + b"y" * 20_000 + b" HTTP/1.1"),
            "our rule: a head of at most 16 KB",
        ),
        refused("limit-name", head(b"X" * 17_000 + b": y"), "our rule: a head of at most 16 KB"),
        refused("limit-empty-fields", head(*[b"a:"] * 3_000), "our rule: at most 100 fields"),
        forwarded("limit-head-under", head(b"X-Long: " + b"y" * 12_000), "our rule: 12 KB are not too many"),
    ]


def _other_protocols() -> list[Vector]:
    rule = "not HTTP/1.1: refused without a word to a server"
    return [
        refused("other-h2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "H2 downgrade: no h2 here (RFC 9113 §3.4)"),
        refused("other-h2-frames", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + head(), "H2 downgrade"),
        refused("other-pseudo-fields", head(b":path: /v/@M@"), "H2 downgrade: no pseudo fields in HTTP/1.1"),
        refused("other-pseudo-line", b":method: GET\r\n:path: /v/@M@\r\n\r\n", "H2 downgrade"),
        refused("other-tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x41" * 64 + b"\r\n\r\n", rule),
        refused("other-socks", b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\1\0\x50\r\n\r\n", rule),
        refused("other-proxy-protocol", b"PROXY TCP4 10.0.0.9 10.0.0.1 1 80\r\n" + head(), rule),
        refused("other-smtp", b"EHLO a.example\r\nMAIL FROM:<a@a.example>\r\n\r\n", rule),
        refused("other-response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", rule),
        either("other-h2c", head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"), "our rule: Upgrade only to websocket", must_not=(b"h2c", b"http2-settings")),
    ]  # fmt: skip
