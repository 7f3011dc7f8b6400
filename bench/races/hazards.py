"""The hazards, each a play of requests at one site; what went wrong is told in a few words, nothing if it is safe.

Whoever is asked must keep what it says was kept: a change that is answered with 200 and is then nowhere counts as wrong, one
that is refused (400, 409) does not. What comes back of parallel requests may take `SETTLE_S` to be everywhere.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from bench.peers.workload import Browser

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.races.requests import Answer, Held

SETTLE_S: Final = 1.0
GRACE_S: Final = 1.0
"""So long a rotated session of ours may be looked at here; nothing of it may be open when this is over."""
SLACK_S: Final = 0.5
OKAY: Final = 200

SAFE: Final = ""
NO_API: Final = "no API"
NOT_FOUND: Final = 404


class Site(Protocol):
    """What `bench.races.requests.Site` is."""

    servers: list[Any]
    records: Callable[[], int]

    def ask(self, place: int, path: str, browser: Browser) -> Answer: ...

    def begin(self, place: int, path: str, browser: Browser) -> Held: ...


class BrokenError(Exception):
    """A site that does not even keep sessions when nothing overlaps; its hazards would say nothing."""


def copy_of(browser: Browser) -> Browser:
    """Another one with the same cookies, as they are now."""
    other = Browser()
    other.jar = dict(browser.jar)
    other.cookie = browser.cookie
    return other


def shown(site: Site, place: int, browser: Browser) -> dict[str, Any]:
    """What a server shows to these cookies; the browser itself is left as it is."""
    answer = site.ask(place, "/show", copy_of(browser))
    return answer.told if isinstance(answer.told, dict) and answer.status == OKAY else {}


def begun(site: Site) -> Browser:
    """A browser whose session holds `mine`."""
    browser = Browser()
    answer = site.ask(0, "/set?name=mine&value=1", browser)
    found = shown(site, 0, browser)
    if answer.status != OKAY or found.get("mine") != "1":
        raise BrokenError(f"a session that was just begun shows {found}, after {answer.status} {answer.told}")
    return browser


def lacking(site: Site, browser: Browser, wanted: dict[str, str]) -> list[str]:
    """What some server does not show of this, when it had its time."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        views = [shown(site, place, browser) for place in range(len(site.servers))]
        missing = [name for name, value in wanted.items() if any(view.get(name) != value for view in views)]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.02)


def opening(site: Site, browser: Browser, *names: str) -> bool:
    """Whether any server shows one of these fields to these cookies."""
    return any(shown(site, place, browser).keys() & set(names) for place in range(len(site.servers)))


def two_writers(site: Site) -> str:
    """Two overlapping writers, different keys."""
    browser = begun(site)
    first = site.begin(1, "/set?name=a&value=1", browser)
    second = site.begin(2, "/set?name=b&value=2", browser)
    answers = [first.finish(), second.finish()]
    kept = {"mine": "1"}
    for answer, (name, value) in zip(answers, (("a", "1"), ("b", "2")), strict=True):
        if answer.status == OKAY:
            kept[name] = value
    if len(kept) < 3:
        return f"refused {[answer.status for answer in answers]}"
    return "LOST" if lacking(site, browser, kept) else SAFE


def slow_writer_after_logout(site: Site) -> str:
    """A slow writer, and meanwhile a logout."""
    browser = begun(site)
    stolen = copy_of(browser)
    slow = site.begin(1, "/set?name=late&value=1", browser)
    site.ask(2, "/logout", browser)
    answer = slow.finish()
    if opening(site, stolen, "mine", "late") or opening(site, browser, "mine"):
        return "RESURRECTED"
    is_dropped = answer.status == OKAY and not opening(site, browser, "late")
    return "dropped with 200" if is_dropped else SAFE


def unknown_id(site: Site) -> str:
    """An id that nobody gave: whoever chose it must not get what the user puts into it."""
    known = begun(site)
    chosen = Browser()
    for name, value in known.jar.items():
        chosen.set_cookie(f"{name}={value[::-1]}")  # well-formed, and never issued
    attacker = copy_of(chosen)
    site.ask(1, "/set?name=secret&value=1", chosen)
    return "ADOPTED" if opening(site, attacker, "secret") else SAFE


def old_id_after_rotation(site: Site) -> str:
    """The id of before a login: it shows and changes nothing of after, and soon opens nothing at all."""
    browser = begun(site)
    old = copy_of(browser)
    if site.ask(1, "/rotate", browser).status == NOT_FOUND:
        return NO_API
    site.ask(2, "/set?name=secret&value=1", browser)
    site.ask(0, "/set?name=intruder&value=1", copy_of(old))
    if opening(site, old, "secret") or opening(site, browser, "intruder"):
        return "old id ALIVE"
    if lacking(site, browser, {"mine": "1", "user": "ann", "secret": "1"}):
        return "LOST"
    time.sleep(GRACE_S + SLACK_S)
    return "old id ALIVE" if opening(site, old, "mine", "user", "intruder") else SAFE


def slow_reader(site: Site) -> str:
    """A slow reader, and meanwhile a writer."""
    browser = begun(site)
    slow = site.begin(1, "/show", browser)
    site.ask(2, "/set?name=b&value=2", browser)
    slow.finish()
    return "LOST" if lacking(site, browser, {"mine": "1", "b": "2"}) else SAFE


def anonymous_request(site: Site) -> str:
    """A request of somebody without a session, to a handler that wants none."""
    before = site.records()
    answer = site.ask(0, "/plain", Browser())
    found = (["STORED"] if site.records() > before else []) + (["cookie"] if answer.cookies else [])
    return "+".join(found)


def slow_request_after_rotation(site: Site) -> str:
    """A slow writer, and meanwhile a login: the browser stays logged in, and the old id stays dead."""
    browser = begun(site)
    slow = site.begin(1, "/set?name=late&value=1", browser)
    old = copy_of(browser)
    if site.ask(2, "/rotate", browser).status == NOT_FOUND:
        slow.finish()
        return NO_API
    given = dict(browser.jar)
    answer = slow.finish()
    found = []
    if any(
        browser.jar.get(name) != value and browser.jar.get(name) == old.jar.get(name) for name, value in given.items()
    ):
        found.append("OLD cookie back")
    if lacking(site, browser, {"mine": "1", "user": "ann"}):
        found.append("signed out")
    if answer.status == OKAY and lacking(site, browser, {"late": "1"}):
        found.append("dropped with 200")
    time.sleep(GRACE_S + SLACK_S)
    if opening(site, old, "mine", "late"):
        found.insert(0, "old id ALIVE")
    return ", ".join(found)


HAZARDS: Final[dict[str, Callable[[Site], str]]] = {
    "T1": two_writers,
    "T2": slow_writer_after_logout,
    "T3": unknown_id,
    "T4": old_id_after_rotation,
    "T5": slow_reader,
    "T6": anonymous_request,
    "T8": slow_request_after_rotation,
}
"""By their numbers in the comparison of Python's session libraries; T7, which only concerns locks, is none of these."""


def play_all(site: Site) -> dict[str, str]:
    """What went wrong in each of them; empty for what is safe."""
    return {name: play(site) for name, play in HAZARDS.items()}
