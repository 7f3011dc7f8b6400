"""Settings from TOML and command line text."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sessile.balancer.health import HealthPolicy
from sessile.balancer.settings import (
    Affinity,
    BalancerSettings,
    Limits,
    ServerAddress,
    Timeouts,
    affinity_of,
    parse_server,
)
from sessile.errors import BalancerError

TOML = """
listen = "[::1]:8081"
algorithm = "two-choices"
affinity = "cookie"
cookie_name = "stay"
affinity_refresh = "always"
affinity_samesite = "none"
affinity_partitioned = true
secret = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
trusted = ["10.0.0.0/8"]
[servers]
s1 = "127.0.0.1:9001"
s2 = { address = "localhost:9002", weight = 3 }
[timeouts]
response_s = 5
[limits]
fields = 50
[health]
interval_s = 1.5
"""


def test_a_whole_file(tmp_path: Path) -> None:
    """Every kind of setting arrives where it belongs."""
    path = tmp_path / "balancer.toml"
    path.write_text(TOML)
    settings = BalancerSettings.load(path)
    assert settings.listen == ("::1", 8081) and settings.secrets == ("k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja",)
    assert settings.servers == (ServerAddress("s1", "127.0.0.1", 9001), ServerAddress("s2", "localhost", 9002, 3))
    assert settings.affinity == Affinity("cookie", "stay", "always", "auto", "none", partitioned=True)
    assert (settings.timeouts.response_s, settings.limits.fields, settings.health.interval_s) == (5, 50, 1.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"algoritm": "x"}, "did you mean algorithm"),
        ({"timeouts": {"respons_s": 1}}, "did you mean timeouts.response_s"),
        ({"servers": {"s1": {"address": "a:1", "wight": 2}}}, "did you mean servers.s1.weight"),
        ({"secret": "short"}, "secret is shorter than 16 bytes: draw one"),
        ({"secrets": ["s" * 32]}, "secrets is made of words or repetitions"),
        ({"secret": "s", "secrets": ["s"]}, "leave one of them out"),
        ({"cluster": "a\nb"}, "cluster is no name"),
        ({"algorithm": "random"}, "must be one of round-robin"),
        ({"algorithm": 5}, "must be a string"),
        ({"listen": "8080"}, "HOST:PORT"),
        ({"listen": "a:99999"}, "HOST:PORT"),
        ({"servers": {"s1": "nowhere"}}, "servers.s1"),
        ({"servers": {"s1": "a:0"}}, "port 0"),
        ({"servers": {"s 1": "a:1"}}, "server name"),
        ({"servers": {"s1": {"address": "a:1", "weight": 0}}}, "weight 0"),
        ({"servers": ["a:1"]}, "must be a table"),
        ({"affinity": "header"}, "needs a name"),
        ({"affinity": "query:room", "workers": 2}, "workers = 1"),
        ({"affinity": "ip"}, "must be one of cookie"),
        ({"affinity": "cookie:a b"}, "not a name"),
        ({"affinity_refresh": "never"}, "when-needed"),
        ({"affinity_samesite": "Lax"}, "one of lax, strict, none"),
        ({"affinity_partitioned": "yes"}, "must be true or false"),
        (
            {"affinity_samesite": "none", "affinity_secure": "never"},
            "affinity_samesite = none needs Secure.*affinity_secure",
        ),
        ({"affinity_partitioned": True, "affinity_secure": "never"}, "affinity_partitioned needs Secure"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": True}, "must be a number"),
        ({"trusted": ["everyone"]}, "not an address or a network"),
        ({"trusted": "10.0.0.0/8"}, "list of strings"),
        ({"health_path": "healthz"}, "must begin with /"),
        ({"timeouts": {"idle_s": -1}}, "idle_s is -1"),
        ({"limits": {"fields": "many"}}, "must be a number"),
        ({"proto": "gopher"}, "http, https"),
        ({"buffer_requests": "no"}, "buffer_requests is 'no'; it must be true or false"),
        ({"limits": {"buffered_bytes": 0}}, "buffered_bytes is 0"),
    ],
)
def test_mistakes_name_the_setting(values: dict[str, Any], message: str) -> None:
    """Each mistake is one sentence that names the setting and what it may be."""
    with pytest.raises(BalancerError, match=message):
        BalancerSettings.from_mapping(values)


def test_unreadable_files(tmp_path: Path) -> None:
    """A missing file and one that is no TOML say so."""
    with pytest.raises(BalancerError, match="cannot be read"):
        BalancerSettings.load(tmp_path / "no.toml")
    path = tmp_path / "bad.toml"
    path.write_text("= what")
    with pytest.raises(BalancerError, match="is not TOML"):
        BalancerSettings.load(path)


def test_servers_in_words() -> None:
    """NAME=HOST:PORT with an optional weight; anything else names the server."""
    assert parse_server("s1=127.0.0.1:9001,weight=2") == ServerAddress("s1", "127.0.0.1", 9001, 2)
    assert parse_server("s1=[::1]:9001") == ServerAddress("s1", "::1", 9001)
    for text in ("127.0.0.1:9001", "s1=", "s1=a:b", "s1=a:1,wait=2", "s1=a:1,weight=x"):
        with pytest.raises(BalancerError):
            parse_server(text)


def test_two_servers_of_one_name() -> None:
    """Names are what tokens stand for: they must differ."""
    with pytest.raises(BalancerError, match="two servers"):
        BalancerSettings(servers=(ServerAddress("a", "h", 1), ServerAddress("a", "h", 2)))


def test_affinity_in_words() -> None:
    """cookie, none, header:NAME, query:NAME; a cookie may be named too."""
    assert affinity_of("header:X-Room").name == "X-Room"
    assert affinity_of("cookie:stay").name == "stay" and affinity_of("none").kind == "none"


def test_names_of_the_cookie() -> None:
    """One that is given counts; else it follows from the first secret, the cluster and the port."""
    given: list[dict[str, Any]] = [{}, {"cluster": "other"}, {"listen": ("127.0.0.1", 8081)}, {"secrets": ("other",)}]
    several = [BalancerSettings(**{"secrets": ("new", "old"), **more}) for more in given]
    names = {settings.affinity_name for settings in several}
    assert len(names) == 4 and all(settings.has_own_cookie_name for settings in several)
    assert BalancerSettings(secrets=("new",)).affinity_name == several[0].affinity_name
    for affinity in (Affinity(name="stay"), Affinity("header", "X-Room")):
        named = BalancerSettings(secrets=("new",), affinity=affinity)
        assert named.affinity_name == affinity.name.encode() and not named.has_own_cookie_name


@pytest.mark.parametrize("descriptors", [1, 64, 300, 1_024, 4_096, 20_000, 41_152, 1 << 20])
def test_limits_that_fit(descriptors: int) -> None:
    """So many descriptors are enough for them, if there are not just a few; what fits stays as it is."""
    limits = Limits()
    fitting = limits.fitted_to(descriptors)
    assert fitting.descriptors <= descriptors or fitting.connections == 1
    assert (fitting == limits) is (descriptors >= limits.descriptors)
    assert 0 < fitting.connections <= limits.connections and 0 <= fitting.buffered_files <= limits.buffered_files


def test_every_setting_of_a_table_is_documented() -> None:
    """Each timeout, limit and health setting stands in the documentation with its default."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "BALANCER.md").read_text()
    for group in (Timeouts, Limits, HealthPolicy):
        for one in fields(group):
            assert f"| `{one.name}` | {one.default:_} |" in page, one.name
