"""One recorded request: what was sent, when, what came back. Nothing is judged here."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from sessile.lab.trace import PREFIX
from sessile.token import ID_BYTES, key_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sessile.token import SessionKey

__all__ = ["Operation", "Verb", "header_of"]

_VERSION_SUFFIX: Final = b"_v"


class Verb(Enum):
    """What a request asks for."""

    READ = "read"
    SET = "set"
    COUNT = "count"
    INCREMENT = "increment"
    LOGIN = "login"
    LOGOUT = "logout"

    @property
    def ends(self) -> bool:
        """Whether the session that it came with is over afterwards."""
        return self in {Verb.LOGIN, Verb.LOGOUT}


@dataclass(slots=True)
class Operation:
    """One request of a history. Times are milliseconds since it began."""

    number: int
    verb: Verb
    name: str = ""
    value: str = ""
    cookies: Mapping[bytes, bytes] = field(default_factory=dict)
    """Those it was sent with."""
    sent_ms: int = 0
    answered_ms: int = 0
    """When its answer was there, or it was given up."""
    status: int = 0
    """0 without an answer."""
    told: dict[str, Any] | None = None
    given: Mapping[bytes, bytes] = field(default_factory=dict)
    """The cookies that the answer set."""

    def __repr__(self) -> str:
        server = (self.told or {}).get("server", "nobody")
        return f"<{self.verb.value} {self.number} at {self.sent_ms}, answered by {server} with {self.status}>"

    @property
    def trace(self) -> str:
        """The name of the field that it leaves."""
        return f"{PREFIX}{self.number}"

    @property
    def key(self) -> SessionKey | None:
        """Of the session that its cookies name."""
        for name, value in self.cookies.items():
            if not name.endswith(_VERSION_SUFFIX):
                return key_of(base64.urlsafe_b64decode(value)[-ID_BYTES:])  # what stands before it is its MAC
        return None

    @property
    def header(self) -> bytes:
        return header_of(self.cookies)

    @property
    def method(self) -> str:
        return "GET" if self.verb is Verb.READ else "POST"

    @property
    def path(self) -> str:
        """What is asked of the demo's app."""
        match self.verb:
            case Verb.READ:
                return "/api/session?trace=1"
            case Verb.SET:
                asked = f"set?name={self.name}&value={self.value}"
            case Verb.LOGIN:
                asked = f"login?user={self.value}"
            case Verb.LOGOUT:
                asked = "logout?"
            case _:
                asked = f"{self.verb.value}?name={self.name}"
        return f"/api/{asked}&trace={self.trace}"


def header_of(cookies: Mapping[bytes, bytes]) -> bytes:
    """The Cookie header that carries these."""
    return b"; ".join(b"%b=%b" % pair for pair in cookies.items())
