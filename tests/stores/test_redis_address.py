from __future__ import annotations

import pytest

from sessile.errors import SettingsError
from sessile.stores.redis_address import CLUSTER, SENTINEL, SINGLE, RedisAddress

READ = [
    ("redis://", (SINGLE, (("localhost", 6379),), "", 0, False)),
    ("redis://h", (SINGLE, (("h", 6379),), "", 0, False)),
    ("valkey://h:1/2", (SINGLE, (("h", 1),), "", 2, False)),
    ("REDISS://[::1]:7/", (SINGLE, (("::1", 7),), "", 0, True)),
    ("rediss://[2001:db8::1]", (SINGLE, (("2001:db8::1", 6379),), "", 0, True)),
    ("valkeys://h", (SINGLE, (("h", 6379),), "", 0, True)),
    ("redis+sentinel://a,b:1, c/main", (SENTINEL, (("a", 26379), ("b", 1), ("c", 26379)), "main", 0, False)),
    ("valkey+sentinel://a/main/3?tls=true", (SENTINEL, (("a", 26379),), "main", 3, True)),
    ("redis+cluster://a,b:7", (CLUSTER, (("a", 6379), ("b", 7)), "", 0, False)),
    ("valkey+cluster://a/0?tls=false", (CLUSTER, (("a", 6379),), "", 0, False)),
]
REFUSED = [
    ("mysql://h", "no scheme of Redis"),
    ("h:6379", "no scheme of Redis"),
    ("redis://a,b", "several servers"),
    ("redis://h:port", "a host that is none"),
    ("redis://h:70000", "a host that is none"),
    ("redis://h/x", "no number"),
    ("redis://h/1/2", "no number"),
    ("redis+sentinel://h", "what the Sentinels call the primary"),
    ("redis+sentinel://h/", "what the Sentinels call the primary"),
    ("redis+cluster://h/1", "a database"),
    ("redis://h?tsl=true", "did you mean tls"),
    ("redis://h?tls=yes", "neither tls=true"),
    ("redis://h?tls=", "neither tls=true"),
    ("redis://h?&", "store's URL"),
    ("redis://:hunter2@h:x", "a host that is none"),
]


@pytest.mark.parametrize(("url", "said"), READ)
def test_a_url_says_what_is_there(url: str, said: tuple[object, ...]) -> None:
    """One server, Sentinels, or a cluster; every host with its port, what the Sentinels call it, database, and TLS."""
    address = RedisAddress.read(url)
    assert (address.kind, address.hosts, address.name, address.db, address.is_tls) == said


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_a_wrong_url_is_refused_and_not_repeated(url: str, reason: str) -> None:
    """What is wrong with it is said; what is secret in it is not."""
    with pytest.raises(SettingsError, match=reason) as refused:
        RedisAddress.read(url)
    assert "hunter2" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://somebody:hunter2@h:1/2",
        "rediss://:hunter2@h",
        "redis+sentinel://somebody:hunter2@a,b/main?sentinel_password=hunter2&sentinel_username=somebody",
        "redis+cluster://somebody:hunter2@a",
        "redis://somebody:hunter%32@h",
    ],
)
def test_a_password_is_used_and_never_shown(url: str) -> None:
    """Neither in what people read nor in a traceback."""
    address = RedisAddress.read(url)
    assert address.connection_options()["password"] == "hunter2"
    for shown in (address.where, repr(address)):
        assert "hunter" not in shown
    assert "somebody" not in address.where


def test_what_people_read_leads_to_the_store() -> None:
    """Without what is usual anyway."""
    assert RedisAddress.read("redis://u:p@h:6379/0").where == "redis://h"
    assert RedisAddress.read("rediss://[::1]:7/2").where == "rediss://[::1]:7/2"
    assert RedisAddress.read("valkey+sentinel://a:26379,b:7/main/2").where == "valkey+sentinel://a,b:7/main/2"


def test_sentinels_have_users_of_their_own() -> None:
    """The password of the data is not told to them."""
    address = RedisAddress.read("redis+sentinel://u:data@a/main?sentinel_username=s&sentinel_password=watch")
    assert address.sentinel_options() == {"username": "s", "password": "watch"}
    assert RedisAddress.read("redis+sentinel://u:data@a/main").sentinel_options()["password"] is None


def test_certificates_go_with_tls() -> None:
    """They are handed to the connection, and only where there is TLS."""
    address = RedisAddress.read("rediss://h?ca_certs=/etc/ca.pem&certfile=/c&keyfile=/k")
    expected = {"ssl_ca_certs": "/etc/ca.pem", "ssl_certfile": "/c", "ssl_keyfile": "/k"}
    assert address.connection_options().items() >= expected.items()
    assert "ssl_ca_certs" not in RedisAddress.read("redis://h?ca_certs=/etc/ca.pem").connection_options()


@pytest.mark.parametrize("port", [1, 1 << 15, (1 << 16) - 1])
def test_every_port_there_is_may_be_named(port: int) -> None:
    """From the first to the last, and none beyond."""
    assert RedisAddress.read(f"redis://h:{port}").hosts == (("h", port),)
    for beyond in (0, 1 << 16):
        with pytest.raises(SettingsError, match="host that is none"):
            RedisAddress.read(f"redis://h:{beyond}")
