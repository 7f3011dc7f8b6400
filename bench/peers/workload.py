"""What every contender is asked to do: the session's content, the requests, and the browsers that send them.

A browser presents in its next request what the last answer set, and forgets what an answer deleted. Some dozens of
browsers take turns, so that no contender lives off the last cookie it saw.
"""

from __future__ import annotations

from typing import Any

BROWSERS = 64
MANY_BROWSERS = 10_000
"""More than any contender remembers the cookies of."""
SECRET = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
LIFETIME_S = 3_600

DATA: dict[str, Any] = {
    "user_id": 184_213,
    "name": "Wilhelmina Ost",
    "csrf_token": "nR4vYk2mQe8sLx0ZbT6uWc1pJd9hGf3a5KiOoVtE7rM",
    "cart": [{"sku": "TEA-0042", "n": 2}, {"sku": "CUP-0007", "n": 1}, {"sku": "POT-1311", "n": 3}],
    "preferences": {"locale": "en-DK", "theme": "dark", "digest": False, "page": 50},
}
"""Five keys, 285 bytes as JSON; a counter comes with the first write."""

READ, WRITE, FILL = "/read", "/write", "/fill"

HEADERS: tuple[tuple[str, str], ...] = (
    ("host", "shop.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,da;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://shop.example/tea"),
    ("connection", "keep-alive"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-mode", "navigate"),
)
"""What a browser sends besides its cookies."""


class Browser:
    """A cookie jar for one site; `cookie` is the header it would send."""

    def __init__(self) -> None:
        self.jar: dict[str, str] = {}
        self.cookie = ""

    def set_cookie(self, header: str) -> None:
        """Obey one `Set-Cookie` (RFC 6265 §5.3, as far as one site and one path go)."""
        pair, _, attributes = header.partition(";")
        name, _, value = pair.partition("=")
        lowered = attributes.lower()
        if "max-age=0" in lowered or "01 jan 1970" in lowered:
            self.jar.pop(name, None)
        else:
            self.jar[name] = value
        self.cookie = "; ".join([f"{name}={value}" for name, value in self.jar.items()])

    def forged(self) -> Browser:
        """A browser that presents the same cookies, each changed in one character."""
        forger = Browser()
        for name, value in self.jar.items():
            middle = len(value) // 2
            other = "A" if value[middle] != "A" else "B"
            forger.set_cookie(f"{name}={value[:middle]}{other}{value[middle + 1 :]}")
        return forger


def read(session: Any) -> str:
    """What the read handler does with its session."""
    return str(session.get("user_id"))


def write(session: Any) -> str:
    """What the write handler does: one field gets a new value."""
    session["counter"] = count = session.get("counter", 0) + 1
    return str(count)


def fill(session: Any) -> str:
    """What the handler of a browser's first request does."""
    for name, value in DATA.items():
        session[name] = value
    return "filled"


HANDLERS = {READ: read, WRITE: write, FILL: fill}
