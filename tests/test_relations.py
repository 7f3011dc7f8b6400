from __future__ import annotations

from typing import Any

import pytest

from tests.loading import ALL_TO_ALL, PRIMARY_BACKUP, SECRET, load, refusal

CLUSTER = {"url": ALL_TO_ALL, "secret": SECRET}
LOOPBACK = {**CLUSTER, "members": "localhost,127.0.0.1:7401,[::1]"}
FILES = {"tls": "files", "tls_cert": "c.pem", "tls_key": "k.pem", "tls_ca": "a.pem"}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"idle_timeout": "13h"}, {"idle_timeout=13h", "absolute_timeout=12h"}),
        ({"absolute_timeout": 60}, {"idle_timeout=30m", "absolute_timeout=1m"}),
        ({"anonymous_timeout": "31m"}, {"anonymous_timeout=31m", "idle_timeout=30m"}),
        (
            {"tombstone_keep": "10s"},
            {"tombstone_keep=10s", "rotation_grace=10s", "ack_timeout=1s", "pull_timeout=1s"},
        ),
        ({"ack_timeout": 30, "pull_timeout": 60, "tombstone_keep": 100}, {"tombstone_keep=100s", "pull_timeout=1m"}),
        ({"value_bytes_max": "65KiB"}, {"value_bytes_max=65KiB", "session_bytes_max=64KiB"}),
        ({"session_bytes_max": 1_000}, {"value_bytes_max=64KiB", "session_bytes_max=1000B"}),
        ({"bytes_max": "10KiB"}, {"session_bytes_max=64KiB", "bytes_max=10KiB"}),
        ({"samesite": "none", "secure": False}, {"samesite=none", "secure=false"}),
        ({"partitioned": True, "secure": "no"}, {"partitioned=true", "secure=false"}),
        ({"url": "all-to-all://", "secret": SECRET}, {"members is empty", "all-to-all://?members=web1:7400,web2:7400"}),
        ({"url": ALL_TO_ALL, "secret": SECRET, "members": ""}, {"members is empty"}),
        ({"url": ALL_TO_ALL}, {"secret is not set", "`sessile keygen`", "SESSILE_SECRET"}),
        ({"url": PRIMARY_BACKUP, "secret": ()}, {"secret is not set", "`sessile keygen`"}),
        ({"url": "redis://h"}, {"secret is not set", "`sessile keygen`"}),
        ({**CLUSTER, "beat": "500ms"}, {"beat=500ms", "suspect_after=500ms", "dead_after=1s", "tombstone_keep=10m"}),
        ({**CLUSTER, "suspect_after": 1}, {"suspect_after=1s", "dead_after=1s"}),
        ({**CLUSTER, "dead_after": "10m"}, {"dead_after=10m", "tombstone_keep=10m"}),
        ({**CLUSTER, "beat": 0.4996, "suspect_after": 0.5004}, {"beat=499.6ms", "suspect_after=500.4ms"}),
        ({**CLUSTER, "tls": "files"}, {"tls=files", "tls_cert=''", "tls_key=''", "tls_ca=''", "tls=secret"}),
        ({**CLUSTER, **FILES, "tls_key": ""}, {"tls=files", "tls_cert='c.pem'", "tls_key=''", "tls_ca='a.pem'"}),
        ({**CLUSTER, **FILES, "tls": "secret"}, {"tls=secret", "tls_cert='c.pem'", "set tls=files"}),
        ({**LOOPBACK, **FILES, "tls": "off"}, {"tls=off", "tls_ca='a.pem'", "set tls=files"}),
        ({**CLUSTER, "tls": "off"}, {"tls=off", "members=a:7400,b:7400", "set tls=secret"}),
        (
            {**LOOPBACK, "members": "localhost,dns:localhost", "tls": "off"},
            {"members=localhost:7400,dns:localhost:7400"},
        ),
        ({**LOOPBACK, "tls": "off", "me": "10.0.0.1:7400"}, {"me=10.0.0.1:7400", "set tls=secret"}),
        ({**LOOPBACK, "tls": "off", "node_listen": "0.0.0.0:7400"}, {"node_listen=0.0.0.0:7400", "set tls=secret"}),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], names: set[str]) -> None:
    """Each relation names the settings with their values, and where defaults are part of it, these too."""
    message = refusal(**given)
    assert all(name in message for name in names)
    assert "{" not in message


@pytest.mark.parametrize(
    "given",
    [
        {"idle_timeout": "12h"},
        {"idle_timeout": 5},
        {"tombstone_keep": "12.1s"},
        {"value_bytes_max": "1MiB", "session_bytes_max": "1MiB", "bytes_max": "1MiB"},
        {"samesite": "none"},
        {"samesite": "none", "secure": True},
        {"partitioned": True},
        {"rotation_grace": 0},
        {"path": "/app/v1"},
        {"tombstone_keep": "1.6s", "rotation_grace": 0, "ack_timeout": 0.5},
        {**CLUSTER, "members": "dns:web"},
        {**CLUSTER, "me": "c:7400"},
        {**CLUSTER, "beat": "499ms", "suspect_after": 0.5, "dead_after": "501ms"},
        {**CLUSTER, "beat": "10ms", "suspect_after": "20ms", "dead_after": "30ms"},
        {**CLUSTER, **FILES},
        {**LOOPBACK, "tls": "off"},
        {**LOOPBACK, "tls": "off", "me": "127.0.0.2:7400", "node_listen": "[::1]:7400"},
    ],
)
def test_settings_at_the_edge_of_a_relation(given: dict[str, Any]) -> None:
    """What is equal, or only just enough, is allowed."""
    load(**given)


@pytest.mark.parametrize("anonymous_timeout", ["0.0004", "1ms", 0.999])
def test_an_anonymous_timeout_below_a_second_is_refused(anonymous_timeout: str | float) -> None:
    """Rounded to whole milliseconds it could mean none at all."""
    assert "anonymous_timeout" in refusal(anonymous_timeout=anonymous_timeout)
    assert (load(anonymous_timeout=0).anonymous_timeout, load(anonymous_timeout=1).anonymous_timeout) == (0, 1)
