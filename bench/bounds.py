"""Every setting with values at its bounds and just beyond them; a test and a show use the table."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sessile.errors import SettingsError
from sessile.settings import Settings

__all__ = ["BOUNDS", "Bound", "is_taken", "refusal"]

SECRET: Final = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
CLUSTER = {"url": "all-to-all://?members=a,b", "secret": SECRET}
COPIES = {"url": "primary-backup://?members=a,b", "secret": SECRET}
STORE = {"url": "redis://h", "secret": SECRET}
LONG = {"idle_timeout": "3650d", "absolute_timeout": "3650d"}
ROOMY = {"session_bytes_max": "2MiB", "bytes_max": "1024GiB"}
SMALL = {"value_bytes_max": 1, "session_bytes_max": 1}
KEPT = {"tombstone_keep": "1d"}
FILES = {"tls": "files", "tls_cert": "c.pem", "tls_key": "k.pem", "tls_ca": "a.pem"}


class Bound(NamedTuple):
    """The lowest and highest values of a setting, and values just outside."""

    inside: tuple[Any, ...]
    outside: tuple[Any, ...]
    given: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default
    """Other settings without which these would be refused."""


def _members(number: int) -> str:
    return ",".join(f"h{each}:7400" for each in range(number))


def _file(name: str) -> Bound:
    return Bound(("c.pem", "/" + 4_095 * "x"), ("/" + 4_096 * "x", "a\nb"), FILES | {name: "c.pem"})


BOUNDS: Final[dict[str, Bound]] = {
    "url": Bound(("sticky://",), ("", "sticky:", "redis://" + 4_096 * "h")),
    "secret": Bound(
        (SECRET[:16], SECRET + (4_096 - len(SECRET)) * "s", [f"{SECRET}{n}" for n in range(8)]),
        (SECRET[:15], SECRET + (4_097 - len(SECRET)) * "s", 9 * [SECRET], 16 * "s", "correct horse battery staple"),
    ),
    "cluster": Bound(("a", 64 * "a"), ("", 65 * "a", "a\n")),
    "cookie_name": Bound(("a", 64 * "a"), ("", 65 * "a", "a;")),
    "secure": Bound(("auto", True, False), ("sometimes",)),
    "samesite": Bound(("lax", "strict", "none"), ("", "off")),
    "path": Bound(("/", "/" + 1_023 * "x"), ("", "x", "/" + 1_024 * "x", "/;")),
    "partitioned": Bound((True, False), ("auto",)),
    "idle_timeout": Bound(("1s", "3650d"), ("999ms", 0, "3650d1", 3_650 * 86_400 + 1), {"absolute_timeout": "3650d"}),
    "anonymous_timeout": Bound(("0s", "3650d"), (-1, "3650d1", 3_650 * 86_400 + 1), LONG),
    "absolute_timeout": Bound(("1s", "3650d"), ("999ms", 3_650 * 86_400 + 1), {"idle_timeout": "1s"}),
    "rotation_grace": Bound(("0s", "5m"), (-1, 301)),
    "tombstone_keep": Bound(
        ("1s", "1d"), ("999ms", 86_401), {"rotation_grace": 0, "ack_timeout": 0.1, "pull_timeout": 0.1}
    ),
    "sessions_max": Bound((1, 10**9), (0, 10**9 + 1, 1.5)),
    "bytes_max": Bound((1, 2**40), (0, 2**40 + 1), SMALL),
    "session_bytes_max": Bound((1, "2MiB"), (0, 2 * 2**20 + 1, "64MiB"), {"value_bytes_max": 1}),
    "value_bytes_max": Bound((1, "1984KiB"), (0, 1984 * 2**10 + 1, "2MiB"), ROOMY),
    "fields_max": Bound((1, 4_096), (0, 4_097, 65_535)),
    "exclude": Bound(((), ["/x"] * 256, ["/" + 1_023 * "x"]), (["/x"] * 257, ["/" + 1_024 * "x"], ["x"])),
    "ack": Bound(("none", "one", "all"), ("two",)),
    "ack_timeout": Bound(("1ms", "1m"), (0, 0.0009, 60.001)),
    "degraded": Bound(("serve", "refuse"), ("",)),
    "pull_timeout": Bound(("1ms", "1m"), (0, 60.001)),
    "stale": Bound(("serve", "refuse"), ("no",)),
    "members": Bound(("h:1", _members(1_024), "h:65535"), (_members(1_025), "h:65536", "h:0"), CLUSTER),
    "me": Bound(("h:1", "h:65535"), ("h:0", "h:65536", "0.0.0.0"), CLUSTER),
    "serves": Bound(("h:1", "h:65535"), ("h:0", "h:65536"), CLUSTER),
    "node_listen": Bound(("0.0.0.0:1", "[::]:65535"), ("h", "h:65536"), CLUSTER),
    "host_id": Bound(("", "h", 253 * "h"), (254 * "h", "h\n"), CLUSTER),
    "copies": Bound((2, 16), (1, 17), COPIES),
    "directory": Bound(("none", "keys"), ("values",), CLUSTER),
    "tls": Bound(("secret",), ("none",), CLUSTER),
    "tls_cert": _file("tls_cert"),
    "tls_key": _file("tls_key"),
    "tls_ca": _file("tls_ca"),
    "drain_grace": Bound(("0s", "10m"), (-1, 601), CLUSTER),
    "cache": Bound(("leased", "checked", "off"), ("on",), STORE),
    "outage": Bound(("serve", "refuse"), ("wait",), STORE),
    "store_timeout": Bound(("10ms", "1m"), (0, 0.009, 61), STORE),
    "failover_window": Bound(("0s", "1h"), (-1, 3_601), STORE),
    "beat": Bound(("10ms", "1m"), (0, 0.009, 61), CLUSTER | KEPT | {"suspect_after": "2m", "dead_after": "3m"}),
    "suspect_after": Bound(("20ms", "10m"), (0, 601), CLUSTER | KEPT | {"beat": "10ms", "dead_after": "11m"}),
    "dead_after": Bound(("30ms", "1h"), (0, 3_601), CLUSTER | KEPT | {"beat": "10ms", "suspect_after": "20ms"}),
}
for _name in ("tls_cert", "tls_key", "tls_ca"):
    BOUNDS[_name] = BOUNDS[_name]._replace(given=CLUSTER | FILES)


def is_taken(name: str, value: Any) -> bool:
    """Whether settings can be made with this value."""
    return refusal(name, value) == ""


def refusal(name: str, value: Any) -> str:
    """The line with which this value is refused; empty for one that is taken."""
    try:
        Settings.load(environ={}, **{**BOUNDS[name].given, name: value})
    except SettingsError as error:
        return str(error)
    return ""
