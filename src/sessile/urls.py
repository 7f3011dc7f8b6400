"""The URL of a strategy: which schemes there are, and how a URL and its query are told apart.

A refusal is a ValueError as in `sessile.kinds`, and never repeats the URL: a wrong one may hold a password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from sessile.kinds import nearest
from sessile.strategies import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CLUSTERS",
    "DRIVERS",
    "ESCAPES",
    "SCHEMES",
    "SCHEMES_TO_COME",
    "STORES",
    "query_of",
    "refuse_bare_at",
    "split_url",
    "unescaped",
    "with_parameters",
]

CLUSTERS: Final = ("all-to-all", "primary-backup")
"""The schemes under which servers hold sessions for each other."""
STORES: Final = tuple(scheme for it in STRATEGIES for scheme in it.schemes if it.name == "store")
"""The schemes under which sessions are in a store. Their URLs name a place, and may carry parameters of its driver."""
SCHEMES: Final = tuple(scheme for it in STRATEGIES for scheme in it.schemes if it.is_available or scheme in STORES)
SCHEMES_TO_COME: Final = ("agent", *(scheme for it in STRATEGIES for scheme in it.schemes if scheme not in SCHEMES))
ESCAPES: Final = "%40 for @, %2F for /, %3F for ?, %23 for #, %25 for %"
"""What a refusal tells people who wrote a password as it is."""
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
DRIVERS: Final = frozenset({"tls"})
"""Parameters of stores that are called as a setting is which does not concern them."""
_USUAL_PORTS: Final = {
    "6379": ("redis", "host:6379"),
    "26379": ("redis+sentinel", "host:26379/NAME"),
    "5432": ("postgresql", "user@host:5432/name"),
    "3306": ("mysql", "user@host:3306/name"),
}
"""The port on which a store usually listens → the scheme for it, and what follows there."""
_PORT: Final = re.compile(r":(\d+)(/[^:@]*)?")
EXAMPLES: Final = {"sqlite": "sqlite:////var/lib/service/sessions.db"}


def split_url(value: object) -> tuple[str, dict[str, str]]:
    """The URL without its query, and the query's parameters, which for a store are its driver's as well.

    Raises:
        ValueError: it is no URL of a strategy that there is.
    """
    scheme, separator, rest = value.strip().partition("://") if isinstance(value, str) else ("", "", "")
    scheme = scheme.lower()
    if not separator:
        raise ValueError(f"has no scheme: {_schemes_for(value)}")
    if scheme in SCHEMES_TO_COME:
        raise ValueError(f"has the scheme {scheme}, which is not in this version: write sticky://")
    if scheme not in SCHEMES:
        raise ValueError(f"has an unknown scheme; did you mean '{nearest(scheme, SCHEMES + SCHEMES_TO_COME)}://'?")
    whole, _, fragment = rest.partition("#")
    place, _, query = whole.partition("?")
    if scheme in STORES:
        if fragment or not place.strip("/"):
            example = EXAMPLES.get(scheme, scheme + "://host")
            raise ValueError(f"names no place, or a fragment: write {example}, and in a password {ESCAPES}")
        if scheme not in EXAMPLES:
            refuse_bare_at(place.partition("/")[2] + query)
    elif place or fragment:
        if scheme in CLUSTERS:
            where, remedy = "the servers stand in its query", f"{scheme}://?members=web1:7400,web2:7400"
        else:
            where, remedy = "a sticky session is nowhere but here", f"{scheme}://"
        raise ValueError(f"names a host, path or fragment, but {where}: write {remedy}")
    return f"{scheme}://{place if scheme in STORES else ''}", query_of(query)


def _schemes_for(value: object) -> str:
    """What to write instead of a text without a scheme. No part of it is repeated but a port."""
    found = _PORT.search(value.strip()) if isinstance(value, str) else None
    if found is not None and found.end() == len(str(value).strip()) and found[1] in _USUAL_PORTS:
        scheme, place = _USUAL_PORTS[found[1]]
        return f"with port {found[1]}, write {scheme}:// before it, as in {scheme}://{place}"
    return f"write one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"


def refuse_bare_at(behind: str) -> None:
    """Refuse what stands behind the hosts of a URL, if it holds an `@`.

    There, a password most likely holds a bare `/` or `?`, and what would be read as a host, a name or a parameter is a part
    of that password.
    """
    if "@" in behind:
        raise ValueError(f"has an @ behind its hosts: in a user, password or value write {ESCAPES}")


def query_of(query: str) -> dict[str, str]:
    """The parameters in a URL's query, unescaped (RFC 3986 §3.4); `+` is a plus.

    Raises:
        ValueError: it is malformed, or gives a parameter twice.
    """
    pairs = [pair.partition("=") for pair in query.split("&")] if query else []
    if not all(separator and name for name, separator, _ in pairs):
        raise ValueError("is malformed: write …://, or …://?name=value&name=value")
    parameters = {unescaped(name): unescaped(value) for name, _, value in pairs}
    if len(parameters) < len(pairs):
        raise ValueError("gives a parameter twice: leave one out")
    return parameters


def unescaped(text: str) -> str:
    """A part of a URL without its escapes (RFC 3986 §2.1).

    Raises:
        ValueError: a `%` begins no escape, or the escapes stand for no text. The part is not repeated.
    """
    if _BARE_PERCENT.search(text):
        raise ValueError(f"holds a % that begins no escape: write {ESCAPES}")
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("holds escapes that are no UTF-8: write % and two digits for each byte of the text") from None
    if "\0" in plain:
        raise ValueError("holds a NUL, which no driver takes: leave it out")
    return plain


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """The URL with this query."""
    pairs = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters.items()]
    return f"{url}?{'&'.join(pairs)}" if pairs else url
