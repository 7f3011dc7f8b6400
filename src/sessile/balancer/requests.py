"""A request head: judged by RFC 9110 and 9112, stricter where smuggling lives, and rewritten for the next hop.

One object serves a worker. `parse` takes the bytes of exactly one head, blank line included, and gives a `RequestHead`
or raises `Refusal`. llhttp judges the grammar (no callback per field); then every line feed begins a field, so one
regular expression over the lower-cased head finds the few fields that matter and the new head is joined from slices.
What is cut: hop-by-hop fields and those that Connection nominates (RFC 9110 section 7.6.1), Forwarded, X-Forwarded-*,
our part of Cookie. What is added, last: X-Forwarded-For, -Proto and -Host. No IO, no clock; nothing is remembered
between two heads.
"""

from __future__ import annotations

import re
from typing import Final

from sessile.balancer.refusals import Refusal
from sessile.balancer.request_fields import Fields, added, host_of, judge_framing, origin_form
from sessile.balancer.request_head import Grammar, Peer, RequestHead
from sessile.balancer.usual import UsualHeads

__all__ = ["IDEMPOTENT", "RequestParser"]

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})  # RFC 9110 section 9.2.2

# The target is visible ASCII without "#", which no client may send (RFC 9112 section 3.2).
_LINE: Final = re.compile(rb"([!$%&'*+.^`|~0-9A-Za-z-]{1,32}) ([!\"$-~]+) HTTP/1\.([01])\r\n")

_CUT: Final = rb"keep-alive|proxy-connection|te|trailer|proxy-auth[^:\r]*|http2-settings|forwarded|x-forwarded-[^:\r]*"
_KNOWN: Final = rb"host|connection|cookie|content-length|transfer-encoding|upgrade|expect|" + _CUT
# Field lines, at most so many. A name with "_" is the same as one with "-" to a CGI-like server: it does not pass.
# (Atomic groups, not possessive ones: before CPython 3.11.5 those fail around what can backtrack, gh-106052.)
_FIELDS: Final = rb"[^\n]*+\n(?>(?:[^:_\n]++:[^\n]*+\n){0,%d})\r\n"

(_IS_HOST, _IS_CONNECTION, _IS_COOKIE, _IS_LENGTH, _IS_ENCODING, _IS_UPGRADE, _IS_EXPECT, _IS_AFFINITY, _IS_CUT) = (
    range(9)
)
_KINDS: Final = {
    b"\nhost:": _IS_HOST,
    b"\nconnection:": _IS_CONNECTION,
    b"\ncookie:": _IS_COOKIE,
    b"\ncontent-length:": _IS_LENGTH,
    b"\ntransfer-encoding:": _IS_ENCODING,
    b"\nupgrade:": _IS_UPGRADE,
    b"\nexpect:": _IS_EXPECT,
}


class RequestParser:
    """Judges and rewrites request heads.

    `affinity` says where a request names its server: ("cookie", name) takes the cookie out of the head,
    ("header", name) and ("query", name) leave it in, None looks for nothing. `others` begins
    the names of cookies that are looked at, and left in, where ours is not.
    """

    __slots__ = (
        "_cookie_mark",
        "_fields",
        "_fields_max",
        "_grammar",
        "_kinds",
        "_known",
        "_others",
        "_query",
        "usual",
    )

    def __init__(
        self, affinity: tuple[str, bytes] | None = None, *, others: bytes = b"", fields_max: int = 100
    ) -> None:
        kind, name = affinity or ("", b"")
        known, self._kinds = _KNOWN, dict(_KINDS)
        if kind == "header":
            lowered = name.lower()
            known = re.escape(lowered) + b"|" + known
            self._kinds[b"\n%b:" % lowered] = _IS_AFFINITY
        # The look-ahead spares the alternation at fields whose first letter is nobody's: it halves the time.
        letters = {alternative[0] for alternative in _KNOWN.split(b"|")} | set(name[:1].lower() * (kind == "header"))
        self._known = re.compile(rb"\n(?=[%b])(?:%b):" % (re.escape(bytes(sorted(letters))), known))
        self._cookie_mark = name + b"=" if kind == "cookie" else b""
        self._others = others
        self._query = re.compile(rb"[?&]%b=([^&]*)" % re.escape(name)) if kind == "query" else None
        self._fields = re.compile(_FIELDS % fields_max)
        self._fields_max = fields_max
        self._grammar = Grammar()
        # Where affinity is by header or query every head has to be looked at for it: none is usual.
        self.usual = UsualHeads(self._cookie_mark, fields_max if kind in {"", "cookie"} else -1, self._grammar, others)
        """The short way; None from it says nothing of a head."""

    def parse(self, head: bytes, peer: Peer) -> RequestHead:
        """Raises Refusal (400, 431) for anything that is not one well-formed, unambiguous head."""
        request = self.usual.read(head, peer)
        if request is not None:
            return request
        if self._fields.fullmatch(head) is None:
            self._refuse_fields(head)
        self._grammar.renew()
        self._grammar.demand_one_head(head)
        self._grammar.renew()  # whatever this head is may have left it in the middle of something
        return self._any(head, peer)

    def _refuse_fields(self, head: bytes) -> None:
        """Say what is wrong with the fields as lines; what is only malformed llhttp explains better."""
        if head.count(b"\n") - 2 > self._fields_max:
            raise Refusal(431, f"the request has more than {self._fields_max} header fields", "fields")
        self._grammar.demand_one_head(head)
        self._grammar.renew()
        raise Refusal(400, "a header field name contains `_`")

    def _any(self, head: bytes, peer: Peer) -> RequestHead:
        """Any head that llhttp accepts: the full judgement."""
        line = _LINE.match(head)
        if line is None:
            raise Refusal(400, "the request line is not `METHOD target HTTP/1.1`")
        method, target, minor = line.groups()
        request = RequestHead(method)
        request.is_https = peer.is_https
        if minor == b"0":
            request.is_http_10, request.keep_alive = True, False
        fields = Fields(head, line.end())
        self._walk(fields, request)
        if fields.host is None:
            if not request.is_http_10:
                raise Refusal(400, "no Host field")
            fields.host = host_of(target, peer)  # HTTP/1.1 demands it, and so do we speak to servers
            fields.extra.append(b"Host: %b\r\n" % fields.host)
        judge_framing(fields, request)
        if fields.nominated:
            fields.cut_nominated()
        if target[0] != 0x2F or minor == b"0":  # "/"
            fields.line = b"%b %b HTTP/1.1" % (method, origin_form(method, target, fields.host))
        if self._query is not None:
            request.affinity = tuple(self._query.findall(target))
        request.forward = fields.joined(added(fields, request, peer))
        return request

    def _walk(self, fields: Fields, request: RequestHead) -> None:
        """Visit each known field once, in order; note what it says and cut what must not pass."""
        kinds = self._kinds
        for match in self._known.finditer(fields.lower, fields.start - 1):
            kind = kinds.get(match.group(), _IS_CUT)
            end = match.end()
            if kind == _IS_HOST:
                fields.take_host(end)
            elif kind == _IS_CONNECTION:
                fields.connection(match.start(), end, request)
            elif kind == _IS_COOKIE:
                self._take_cookie(fields, match.start(), end, request)
            elif kind == _IS_LENGTH:
                fields.take_length(end)
            elif kind == _IS_ENCODING:
                fields.take_encoding(match.start(), end)
            elif kind == _IS_UPGRADE:
                fields.upgrade.append(fields.cut(match.start()).strip(b" \t").lower())
            elif kind == _IS_EXPECT:
                is_expected = fields.value(end).strip(b" \t").lower() == b"100-continue"
                request.expects_continue = is_expected and not request.is_http_10  # RFC 9110 section 10.1.1
            elif kind == _IS_AFFINITY:
                request.affinity += (fields.value(end).strip(b" \t"),)
            else:
                fields.cut_known(match.group(), match.start())

    def _take_cookie(self, fields: Fields, start: int, end: int, request: RequestHead) -> None:
        """Cut our cookie out of a Cookie field, however often it is there; a field that held nothing else goes too."""
        mark = self._cookie_mark
        if not mark:
            return
        stop = fields.head.find(b"\r", end)
        pairs = fields.head[end:stop].split(b";")
        others = [pair for pair in pairs if not pair.lstrip(b" \t").startswith(mark)]
        if self._others:
            foreign = (pair.strip(b" \t").partition(b"=") for pair in others)
            request.elsewhere += tuple(value for name, _, value in foreign if name.startswith(self._others))
        if len(others) == len(pairs):
            return
        stripped = (pair.lstrip(b" \t") for pair in pairs)
        request.affinity += tuple(pair[len(mark) :] for pair in stripped if pair.startswith(mark))
        if any(pair.strip(b" \t") for pair in others):
            fields.replace_span(end, stop, b";".join(others))
        else:
            fields.cut(start)
