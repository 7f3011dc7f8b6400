"""The short way for the head that browsers send, taken before the full judgement and with the same result.

A usual head has a method and a path, Host, and fields that do not matter to a proxy, among them perhaps
`Connection: keep-alive` and, after it, one Cookie. A few calls into C tell: one expression looks at the first letters of
each line and names every line that could matter; no more than these two and the blank one may be among them. Whatever is
out of the ordinary gives None, and the long way (`requests.py`) judges it; llhttp has the last word on the grammar in both.
Nothing is remembered between two heads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sessile.balancer.request_head import RequestHead

if TYPE_CHECKING:
    from sessile.balancer.request_head import Grammar, Peer

__all__ = ["UsualHeads"]

_START: Final = re.compile(
    rb"((?!CONNECT)[A-Z]{1,16}) /[!\"$-~]{0,8000} HTTP/1\.1\r\n"
    rb"[Hh]ost: ((?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)\r\n"
)
# A line whose first two letters are those of a field that matters, but for a few innocent ones that browsers send, and
# blank lines. A little more is taken of the two that may be there, to tell them from their likes, and of the blank line
# that ends everything, to tell it from one before more bytes.
_MATTERS: Final = re.compile(
    rb"\n[CcFfHhKkPpTtUuXx\r](?=[OoEeRrPpTt\n-])(?!pgrade-I|riority:|ragma:|-Req|-Real-)"
    rb"(?:onnection: keep-alive\r|ookie: |\n\Z)?"
)
_END: Final = b"\n\r\n"
_CONNECTION: Final = b"\nConnection: keep-alive\r"
_COOKIE: Final = b"\nCookie: "
_MOST: Final = [_CONNECTION, _COOKIE, _END]
_LESS: Final = ([_END], [_CONNECTION, _END], [_COOKIE, _END])
# What the end of a name with "_" looks like, and hardly any value. No second "_" in it: each is looked at once.
_UNDERSCORED: Final = re.compile(rb"_[!#$%&'*+.^`|~0-9A-Za-z-]*:")


class UsualHeads:
    """Recognises usual heads and rewrites them; `mark` is our cookie's name and `=`, empty for no cookie.

    A head without ours, but with a cookie whose name begins with `others`, is not usual.
    """

    __slots__ = ("_grammar", "_lines_max", "_mark", "_others")

    def __init__(self, mark: bytes, fields_max: int, grammar: Grammar, others: bytes = b"") -> None:
        self._mark = mark
        self._others = others
        self._lines_max = fields_max + 2
        self._grammar = grammar

    def read(self, head: bytes, peer: Peer) -> RequestHead | None:
        """The request if `head`, which may be whatever was read, is exactly one usual head; None: judge it the long way.

        Raises Refusal where llhttp does not accept what looked usual.
        """
        start = _START.match(head)
        if start is None or peer.is_trusted or head.count(b"\r\n") > self._lines_max:
            return None
        at, end = start.end(), len(head) - 2
        found = _MATTERS.findall(head, at - 1)
        if found != _MOST and found not in _LESS:
            return None
        field = head.rfind(_COOKIE, at - 1)
        if field < 0:
            field = stop = end
        else:
            stop = head.find(b"\r", field)
        underscore = head.find(b"_", at)
        if underscore > 0 and _is_name_underscored(head, at, underscore):
            return None
        method, host = start.groups()
        if found[0] is not _CONNECTION and found[0] != _CONNECTION:
            before, at = b"", 0
        else:
            cut = head.find(_CONNECTION, at - 1) + 1
            before, at = head[: cut - 2], cut + 22
        mark = self._mark
        value = head.find(mark, field, stop) if mark else -1
        if value < 0:
            if self._others and head.find(self._others, field, stop) > 0:
                return None
            request = RequestHead(method, b"".join((before, head[at:end], peer.ours, host, b"\r\n\r\n")))
        else:
            past = head.find(b";", value, stop)
            past = stop if past < 0 else past
            if head[value - 2 : value] != b"; " or head.find(mark, value + 1, stop) > 0:
                return None
            pieces = (before, head[at : value - 2], head[past:end], peer.ours, host, b"\r\n\r\n")
            request = RequestHead(method, b"".join(pieces))
            request.affinity = (head[value + len(mark) : past],)
        if peer.is_https:
            request.is_https = True
        self._grammar.demand_one_head(head)
        return request


def _is_name_underscored(head: bytes, at: int, underscore: int) -> bool:
    """Some line from `at` on has "_" before its first colon; the first "_" stands at `underscore`."""
    suspect = _UNDERSCORED.search(head, underscore)
    while suspect is not None:
        underscore = suspect.start()
        if head.rfind(b":", at, underscore) <= head.rfind(b"\n", at - 1, underscore):
            return True
        # It stands in a value, and so does the rest of the line.
        suspect = _UNDERSCORED.search(head, head.find(b"\n", underscore))
    return False
