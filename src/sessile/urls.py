"""The URL of a strategy: which schemes there are, and how a URL and its query are told apart.

A refusal is a ValueError as in `sessile.kinds`, and never repeats the URL: a wrong one may hold a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from sessile.kinds import nearest
from sessile.strategies import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLUSTERS", "SCHEMES", "SCHEMES_TO_COME", "STORES", "split_url", "with_parameters"]

CLUSTERS: Final = ("all-to-all", "primary-backup")
"""The schemes under which servers hold sessions for each other."""
STORES: Final = tuple(scheme for it in STRATEGIES for scheme in it.schemes if it.name == "store")
"""The schemes under which sessions are in a store. Their URLs name a place, and may carry parameters of its driver."""
SCHEMES: Final = tuple(scheme for it in STRATEGIES for scheme in it.schemes if it.is_available or scheme in STORES)
SCHEMES_TO_COME: Final = ("agent", *(scheme for it in STRATEGIES for scheme in it.schemes if scheme not in SCHEMES))
EXAMPLES: Final = {"sqlite": "sqlite:////var/lib/service/sessions.db"}


def split_url(value: object) -> tuple[str, dict[str, str]]:
    """The URL without its query, and the query's parameters, which for a store are its driver's as well.

    Raises:
        ValueError: it is no URL of a strategy that there is.
    """
    scheme, separator, _ = value.partition("://") if isinstance(value, str) else ("", "", "")
    scheme = scheme.lower()
    if not separator or not isinstance(value, str):
        raise ValueError("is no URL with a scheme: write sticky://")
    if scheme in SCHEMES_TO_COME:
        raise ValueError(f"has the scheme {scheme}, which is not in this version: write sticky://")
    if scheme not in SCHEMES:
        raise ValueError(f"has an unknown scheme; did you mean {nearest(scheme, SCHEMES + SCHEMES_TO_COME)}://?")
    try:
        parts = urlsplit(value)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        raise ValueError(f"is malformed: write {scheme}://, or {scheme}://?name=value&name=value") from None
    if scheme in STORES:
        if parts.fragment or not (parts.netloc or parts.path.strip("/")):
            raise ValueError(f"names no place, or a fragment: write {EXAMPLES.get(scheme, scheme + '://host')}")
    elif parts.netloc or parts.path or parts.fragment:
        if scheme in CLUSTERS:
            where, remedy = "the servers stand in its query", f"{scheme}://?members=web1:7400,web2:7400"
        else:
            where, remedy = "a sticky session is nowhere but here", f"{scheme}://"
        raise ValueError(f"names a host, path or fragment, but {where}: write {remedy}")
    if len(dict(pairs)) < len(pairs):
        raise ValueError("gives a parameter twice: leave one out")
    place = value.partition("://")[2].partition("?")[0] if scheme in STORES else ""
    return f"{scheme}://{place}", dict(pairs)


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """The URL with this query."""
    return f"{url}?{urlencode(parameters)}" if parameters else url
