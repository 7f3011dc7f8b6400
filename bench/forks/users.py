"""Users of a site that forks, and the results of their visits.

It also runs in the environments of other libraries, so it needs only the standard library.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Send = Callable[[str, str], "Answer"]

__all__ = ["FAILED", "REFUSED", "RIGHT", "UNKNOWN", "WRONG", "Answer", "User", "cookies_in", "verdict"]

RIGHT: Final = "right"
WRONG: Final = "wrong user"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown here"
"""No session, in a process at which the user has never logged in; only `sticky://` may answer so."""
MISTAKEN: Final = "Sessions are not available: see the log of this server.\n"
"""What is answered where the settings forbid the process to have sessions; the log names the remedy."""
REFUSED: Final = "refused"
"""The documented refusal: a child of a cluster's member is not a member."""
REFUSAL: Final = "run one worker for each server (--workers 1)"
_numbers: Final = itertools.count()


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    cookies: list[str]
    """The Set-Cookie values."""
    body: str


def cookies_in(headers: Iterable[tuple[str, str]]) -> list[str]:
    """The Set-Cookie values of these headers."""
    return [value for name, value in headers if name.lower() == "set-cookie"]


def verdict(answer: Answer, name: str, pids: set[int], *, is_sticky: bool) -> str:
    """Judge an answer to a user.

    Args:
        answer: the status, and as JSON the process that answered and the user whose session it found.
        name: the user who asked.
        pids: the processes that are known to have this session.
        is_sticky: whether a process has only the sessions that it made, or was forked with.
    """
    if answer.status != 200:
        return REFUSED if REFUSAL in answer.body or answer.body == MISTAKEN else FAILED
    told = json.loads(answer.body)
    if told["user"] == name:
        return RIGHT
    if told["user"] is not None:
        return WRONG
    return UNKNOWN if is_sticky and told["pid"] not in pids else FAILED


@dataclass
class User:
    """One user, with a browser.

    Args:
        is_sticky: as `verdict` has it.
    """

    is_sticky: bool = False
    name: str = field(default_factory=lambda: f"user-{next(_numbers)}")
    cookies: dict[str, str] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)
    why: str = ""
    """The last answer that was not right."""

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def path(self) -> str:
        """What to ask for next."""
        return "/who" if self.cookies else f"/login?user={self.name}"

    def take(self, answer: Answer) -> None:
        """Judge an answer; a user without a session logs in again."""
        is_login = not self.cookies
        for text in answer.cookies:
            name, _, value = text.partition(";")[0].partition("=")
            self.cookies[name] = value
        came = verdict(answer, self.name, self.pids, is_sticky=self.is_sticky)
        self.found[came] += 1
        if came in {WRONG, FAILED}:
            self.why = f"{answer.status} {answer.body[:300]}"
        if came == UNKNOWN:
            self.cookies.clear()
        if came == RIGHT and is_login:
            self.pids = {json.loads(answer.body)["pid"]}

    def forked(self, pid: int) -> None:
        """Note that this user is a twin in a forked child, which has copies of the parent's sessions."""
        self.found = Counter()
        self.pids.add(pid)

    def visit(self, send: Send) -> None:
        """One request."""
        try:
            answer = send(self.path(), self.cookie)
        except Exception as error:  # noqa: BLE001  # whatever it is, the visit failed
            answer = Answer(0, [], f"{type(error).__name__}: {error}")
        self.take(answer)
