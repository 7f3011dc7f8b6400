from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sessile import codec
from sessile.addresses import Address, DnsName
from sessile.errors import SettingsError
from sessile.settings import STARVED_TRIP, Settings
from sessile.stores.patience import STRETCH_MAX
from sessile.urls import CLUSTERS
from tests.loading import ALL_TO_ALL, PRIMARY_BACKUP, SECRET, changed, load, refusal, toml


def test_the_defaults() -> None:
    """The defaults are valid, and are those that the documentation promises."""
    settings = load()
    assert settings == Settings()
    assert (settings.url, settings.secrets, settings.cluster, settings.cookie_name) == (
        "sticky://",
        (),
        "sessile",
        "sid",
    )
    assert (settings.secure, settings.samesite, settings.path, settings.partitioned) == ("auto", "lax", "/", False)
    assert (settings.idle_timeout, settings.absolute_timeout, settings.rotation_grace) == (1_800, 43_200, 10)
    assert (settings.tombstone_keep, settings.ack_timeout, settings.pull_timeout) == (600, 1, 1)
    assert (settings.sessions_max, settings.bytes_max, settings.fields_max) == (1_000_000, 2**28, 256)
    assert (settings.session_bytes_max, settings.value_bytes_max) == (2**16, 2**16)
    assert (settings.exclude, settings.ack, settings.degraded, settings.stale) == ((), "one", "serve", "serve")
    assert (settings.scheme, settings.is_cluster) == ("sticky", False)


def test_a_rotated_session_is_kept_longer_than_any_end_waits() -> None:
    """For confirmations of members or, in a process that is starved, for a trip to the store after the one before it."""
    assert STARVED_TRIP == STRETCH_MAX
    assert load().rotated_keep == 10
    assert load(rotation_grace=0).rotated_keep == 2
    assert load(rotation_grace=0, ack_timeout=7).rotated_keep == 14
    assert load(PRIMARY_BACKUP, secret=SECRET, rotation_grace=0, suspect_after=2, dead_after=3).rotated_keep == 5
    store = load("sqlite:///sessions.db", secret=SECRET, rotation_grace=0, store_timeout=3)
    assert store.rotated_keep == 2 * 3 * STRETCH_MAX


def test_the_defaults_of_a_cluster() -> None:
    """With its members and a secret a cluster is whole: everything else has a default."""
    settings = load("all-to-all://?members=a:7400,b:7400", secret=SECRET)
    assert (settings.url, settings.scheme, settings.is_cluster) == ("all-to-all://", "all-to-all", True)
    assert settings.members == (Address("a", 7400), Address("b", 7400))
    assert (settings.me, settings.node_listen, settings.host_id) == ("", "", "")
    assert (settings.directory, settings.tls, settings.tls_cert, settings.tls_key) == ("none", "secret", None, None)
    assert (settings.drain_grace, settings.beat, settings.suspect_after, settings.dead_after) == (2, 0.25, 0.5, 1)
    settings = load("primary-backup://?members=a,b,c&copies=3&directory=keys", secret=SECRET)
    assert (settings.scheme, settings.is_cluster, len(settings.members)) == ("primary-backup", True, 3)
    assert (settings.copies, settings.directory) == (3, "keys")
    assert load(PRIMARY_BACKUP, secret=SECRET).copies == 2


def test_every_setting_is_described() -> None:
    """Each field has a row: a type, a default that reads as the default, its variable, and a sentence or two."""
    rows = Settings.describe()
    assert [row.name for row in rows] == [field.name for field in dataclasses.fields(Settings)]
    for row in rows:
        assert row.type
        assert row.environment == f"SESSILE_{row.name.upper()}"
        assert re.fullmatch(r"[A-Z`].{20,}\.", row.description), row.name
        if row.default and not row.description.endswith("://`."):
            assert load(environ={row.environment: row.default}) == Settings()


def test_the_defaults_as_documentation_shows_them() -> None:
    """Durations and sizes have units, choices their words, secrets nothing."""
    shown = {row.name: (row.type, row.default) for row in Settings.describe()}
    assert shown["idle_timeout"] == ("duration", "30m")
    assert shown["bytes_max"] == ("size", "256MiB")
    assert shown["secure"] == ("auto | true | false", "auto")
    assert shown["secret"] == ("secrets", "")
    assert shown["pull_timeout"] == ("duration", "1s")
    assert (shown["members"], shown["me"], shown["tls_cert"]) == (("addresses", ""), ("address", ""), ("file", ""))
    assert (shown["copies"], shown["tls"]) == (("number", "2"), ("secret | files | off", "secret"))


def test_a_setting_says_where_it_belongs() -> None:
    """So nobody gives one where it would mean nothing."""
    said = {row.name: row.description for row in Settings.describe()}
    assert said["members"].endswith(" Only with `all-to-all://` and `primary-backup://`.")
    assert said["copies"].endswith(" Only with `primary-backup://`.")
    assert "Only with" not in said["ack"]


# -- sources and their order ---------------------------------------------------------------------------------------------

EACH: dict[str, tuple[str, Any]] = {
    "cluster": ("shop", "shop"),
    "cookie_name": ("session", "session"),
    "secure": ("true", True),
    "samesite": ("strict", "strict"),
    "path": ("/app", "/app"),
    "partitioned": ("true", True),
    "idle_timeout": ("15m", 900.0),
    "anonymous_timeout": ("5m", 300.0),
    "absolute_timeout": ("24h", 86_400.0),
    "rotation_grace": ("3s", 3.0),
    "tombstone_keep": ("5m", 300.0),
    "sessions_max": ("10", 10),
    "bytes_max": ("1GiB", 2**30),
    "session_bytes_max": ("128KiB", 2**17),
    "value_bytes_max": ("32KiB", 2**15),
    "fields_max": ("10", 10),
    "exclude": ("/static/, /healthz", ("/static/", "/healthz")),
    "ack": ("all", "all"),
    "ack_timeout": ("2s", 2.0),
    "degraded": ("refuse", "refuse"),
    "pull_timeout": ("100ms", 0.1),
    "stale": ("refuse", "refuse"),
}


CLUSTERED: dict[str, tuple[str, Any]] = {
    "members": ("web1, dns:web:7500", (Address("web1", 7400), DnsName("web", 7500))),
    "me": ("[::1]", "[::1]:7400"),
    "node_listen": ("0.0.0.0:7400", "0.0.0.0:7400"),
    "host_id": ("rack 1", "rack 1"),
    "copies": ("3", 3),
    "directory": ("keys", "keys"),
    "tls": ("files", "files"),
    "tls_cert": ("/etc/cert.pem", Path("/etc/cert.pem")),
    "tls_key": ("key.pem", Path("key.pem")),
    "tls_ca": ("ca.pem", Path("ca.pem")),
    "serves": ("Web1:80", "web1:80"),
    "drain_grace": ("5s", 5.0),
    "beat": ("100ms", 0.1),
    "suspect_after": ("750ms", 0.75),
    "dead_after": ("3s", 3.0),
}
"""Settings that belong to servers which hold sessions for each other."""
FILES = {"tls": "files", "tls_cert": "c", "tls_key": "k", "tls_ca": "a"}


STORED: dict[str, tuple[str, Any]] = {
    "cache": ("checked", "checked"),
    "outage": ("refuse", "refuse"),
    "store_timeout": ("250ms", 0.25),
    "failover_window": ("2m", 120.0),
}


@pytest.mark.parametrize("name", STORED)
def test_each_setting_of_a_store(name: str) -> None:
    """It reads the same from a keyword, the URL and the environment, and means nothing without a store."""
    text, value = STORED[name]
    for settings in (
        load("redis://h", secret=SECRET, **{name: text}),
        load(f"redis://h?{name}={text}", secret=SECRET),
        load("redis://h", secret=SECRET, environ={f"SESSILE_{name.upper()}": text}),
    ):
        assert getattr(settings, name) == value
    assert "belongs to" in refusal(f"sticky://?{name}={text}")


def test_no_setting_is_missing_from_the_tables_above() -> None:
    """A new setting is entered there too."""
    assert {*EACH, *CLUSTERED, *STORED, "url", "secret"} == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", EACH)
def test_each_setting_from_each_source(name: str, tmp_path: Path) -> None:
    """A setting reads the same from a keyword, the URL, the environment and a file, typed or as text."""
    text, value = EACH[name]
    typed = list(value) if isinstance(value, tuple) else value
    written = str(typed).lower() if isinstance(typed, bool) else repr(typed)
    for settings in (
        load(**changed(name, typed)),
        load(f"sticky://?{name}={text}"),
        load(environ={f"SESSILE_{name.upper()}": text}),
        load(config=toml(tmp_path, f"{name} = {written}")),
        load(config=toml(tmp_path, f"[sessile]\n{name} = {written}\n[other]\nunknown = 1")),
        Settings(**changed(name, typed)),
    ):
        assert settings == dataclasses.replace(Settings(), **changed(name, value))
        assert type(getattr(settings, name)) is type(value)


@pytest.mark.parametrize("name", CLUSTERED)
def test_each_setting_of_a_cluster_from_each_source(name: str, tmp_path: Path) -> None:
    """The same under `primary-backup://`: as text, as a number where it is one, and as what it has been read as."""
    text, value = CLUSTERED[name]
    base: dict[str, Any] = {"url": "primary-backup://", "secret": SECRET, "members": "a,b"}
    base |= FILES if name.startswith("tls") else {}
    base.pop(name, None)
    query = f"primary-backup://?{name}={text}"
    number = value if isinstance(value, int | float) else text
    for settings in (
        load(**base, **changed(name, text)),
        load(**base, **changed(name, number)),
        load(**base, **changed(name, value)),
        load(**{**base, "url": query}),
        load(**base, environ={f"SESSILE_{name.upper()}": text}),
        load(**base, config=toml(tmp_path, f"{name} = {number!r}")),
    ):
        assert settings == Settings(**base, **changed(name, value))
        assert getattr(settings, name) == value
        assert type(getattr(settings, name)) is type(value)


def test_members_are_a_list_where_a_source_has_lists(tmp_path: Path) -> None:
    """Text with commas, a list of texts, or addresses; the query escapes nothing that people would have to know of."""
    members = (Address("a", 7400), Address("2001:db8::1", 7401), DnsName("web.svc", 7400))
    written = ["a", "[2001:db8::1]:7401", "dns:web.svc"]
    sources: list[dict[str, Any]] = [
        {"members": written},
        {"members": ",".join(written)},
        {"members": members},
        {"config": toml(tmp_path, f"members = {written!r}")},
        {"environ": {"SESSILE_MEMBERS": ", ".join(written)}},
        {"url": f"all-to-all://?members={','.join(written)}"},
    ]
    for given in sources:
        assert load(**{"url": "all-to-all://", "secret": SECRET, **given}).members == members


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"members": "a"},
            "members='a' belongs to all-to-all:// and primary-backup://, but url is sticky://: change url, ",
        ),
        ({"url": "sticky://?copies=2"}, "copies (in the URL)='2' belongs to primary-backup://, but url is sticky://"),
        ({"environ": {"SESSILE_BEAT": "1s"}}, "SESSILE_BEAT='1s' belongs to all-to-all:// and primary-backup://"),
        (
            {"url": ALL_TO_ALL, "secret": SECRET, "copies": 2},
            "copies=2 belongs to primary-backup://, but url is all-to-all",
        ),
        ({"tls": "off"}, "tls='off' belongs to all-to-all:// and primary-backup://, but url is sticky://"),
    ],
)
def test_a_setting_that_belongs_to_another_scheme(given: dict[str, Any], message: str) -> None:
    """Whoever gives it, even as its default is, believes that it does something."""
    assert refusal(**given).startswith(message)


def test_a_setting_of_another_scheme_is_refused_however_settings_are_made(tmp_path: Path) -> None:
    """From a file, by the class itself and by a copy; an empty one in the environment was not given."""
    assert "copies (in sessile.toml)=2 belongs to" in refusal(config=toml(tmp_path, "copies = 2"))
    with pytest.raises(SettingsError, match="copies='3' belongs to primary-backup://"):
        Settings(copies=3)
    with pytest.raises(SettingsError, match="members='a:7400,b:7400' belongs to"):
        dataclasses.replace(load(ALL_TO_ALL, secret=SECRET), url="sticky://")
    empty = {f"SESSILE_{name}": "" for name in ("MEMBERS", "ME", "NODE_LISTEN", "HOST_ID", "TLS_CERT")}
    assert load(environ=empty) == Settings()


@pytest.mark.parametrize("scheme", CLUSTERS)
def test_members_that_are_many_do_not_fill_an_error(scheme: str) -> None:
    """A line stays a line."""
    many = ",".join(f"web{number}" for number in range(500))
    assert len(refusal(f"{scheme}://?members={many}&tls=off", secret=SECRET)) < 300


# -- secrets -------------------------------------------------------------------------------------------------------------


def test_one_secret_or_several(tmp_path: Path) -> None:
    """Text is one secret, a list several; commas separate them in the environment, and elsewhere are refused where they would."""
    other = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
    both = (SECRET.encode(), other.encode())
    for text in (SECRET, f" {SECRET}\r\n"):
        assert load(secret=text).secrets == both[:1]
        assert load(environ={"SESSILE_SECRET": text}).secrets == both[:1]
        assert load(config=toml(tmp_path, f"secret = {json.dumps(text)}")).secrets == both[:1]
    assert load(environ={"SESSILE_SECRET": f" {SECRET} ,{other}\n"}).secrets == both
    assert load(secret="one, two: a single passphrase").secrets == (b"one, two: a single passphrase",)
    assert "give a list" in refusal(secret=f"{SECRET},{other}")
    assert load(secret=f"{SECRET},{other}\n".encode()).secrets == (f"{SECRET},{other}".encode(),)
    assert load(secret=[SECRET, other.encode()]).secrets == both
    assert load(config=toml(tmp_path, f"secret = ['{SECRET}', '{other}']")).secrets == both
    assert load(secret=None, environ={"SESSILE_SECRET": SECRET}).secrets == both[:1]


def test_a_secret_shows_nowhere() -> None:
    """Neither in the settings' repr nor in any error about it or beside it."""
    assert SECRET not in repr(load(secret=SECRET))
    for given in (
        {"secret": SECRET[:15]},
        {"secret": [SECRET, "x"]},
        {"secret": {SECRET}},
        {"secret": SECRET, "idle_timeout": "24h"},
        {"secert": SECRET},
        {"environ": {"SESSILE_SECRETS": SECRET}},
    ):
        message = refusal(**given)
        assert SECRET[:15] not in message
    assert "sessile keygen" in refusal(secret="short")
    assert "sessile keygen" in refusal(environ={"SESSILE_SECRET": ""})
    assert "URL, which is logged" in refusal(f"sticky://?secret={SECRET}")
    assert SECRET not in refusal(f"redis://user:{SECRET}@host")
    assert SECRET not in refusal(f"stiky://user:{SECRET}@host")
    assert SECRET not in refusal(f"sticky://user:{SECRET}@host")


# -- errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"idle_timeot": 1}, "'idle_timeot' is no setting; did you mean idle_timeout?"),
        ({"Secure": True}, "'Secure' is no setting; did you mean secure?"),
        ({"url": "sticky://?sessions_maxx=1"}, "'sessions_maxx' in the URL is no setting; did you mean sessions_max?"),
        (
            {"environ": {"SESSILE_COOKIENAME": "x"}},
            "'SESSILE_COOKIENAME' is no setting; did you mean SESSILE_COOKIE_NAME?",
        ),
        (
            {"idle_timeout": "soon"},
            "idle_timeout='soon' is no duration from 1s to 3650d: give seconds, or a number with",
        ),
        ({"environ": {"SESSILE_ACK": "two"}}, "SESSILE_ACK='two' is none of none, one, all; did you mean one?"),
        ({"url": "sticky://?stale=yes"}, "stale (in the URL)='yes' is none of serve, refuse; did you mean "),
        ({"samesite": "laxx"}, "samesite='laxx' is none of lax, strict, none; did you mean lax?"),
        (
            {"cookie_name": "__Host-sid"},
            "cookie_name='__Host-sid' begins with a prefix, which is added where it is due",
        ),
        ({"cookie_name": "a b"}, "cookie_name='a b' is no cookie name: give up to 64 letters"),
        ({"path": "app"}, "path='app' is no cookie path: give one that begins with /"),
        ({"path": "/a;b"}, "path='/a;b' is no cookie path"),
        ({"path": "/a\r\nSet-Cookie: x"}, "path='/a\\r\\nSet-Cookie: x' is no cookie path"),
        ({"cluster": ""}, "cluster='' is no name"),
        ({"sessions_max": 0}, "sessions_max=0 is no whole number from 1 to 1000000000"),
        ({"value_bytes_max": "2MiB"}, "value_bytes_max='2MiB' is no size from 1 byte to 1984KiB"),
        ({"exclude": "static"}, "exclude='static' is no list of path prefixes"),
        ({"cluster": "x" * 500}, "cluster='xxx"),
    ],
)
def test_an_error_names_the_setting_the_value_and_the_remedy(given: dict[str, Any], message: str) -> None:
    """Each mistake is one line, with the name as it stands in the source and the nearest right one."""
    found = refusal(**given)
    assert found.startswith(message)
    assert len(found) < 300


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"members": "a,b:x"}, "members='a,b:x' holds 'b:x', which is no address: give a host name or an IP address"),
        ({"members": "a,A:7400"}, "members='a,A:7400' holds a:7400 twice: leave one out"),
        (
            {"url": "all-to-all://?members=::1"},
            "members (in the URL)='::1' holds '::1', which is an IPv6 address without",
        ),
        (
            {"environ": {"SESSILE_MEMBERS": "dns:10.0.0.1"}},
            "SESSILE_MEMBERS='dns:10.0.0.1' holds 'dns:10.0.0.1', which is",
        ),
        ({"me": "0.0.0.0:7400"}, "me='0.0.0.0:7400' is every interface of this machine: give the address at which"),
        ({"me": "http://a"}, "me='http://a' is no address: give a host name or an IP address"),
        (
            {"node_listen": "0.0.0.0"},
            "node_listen='0.0.0.0' is an address without a port: give both, as in 0.0.0.0:7400",
        ),
        ({"node_listen": "a:0"}, "node_listen='a:0' is an address without a port from 1 to 65535"),
        ({"host_id": "é"}, "host_id='é' is no name: give up to 253 printable ASCII characters"),
        ({"directory": "key"}, "directory='key' is none of none, keys; did you mean keys?"),
        ({"tls": "auto"}, "tls='auto' is none of secret, files, off; did you mean "),
        ({"tls_cert": "a\nb"}, "tls_cert='a\\nb' is no path of a file"),
        ({"beat": 0}, "beat=0 is no duration from 10ms to 1m"),
        ({"drain_grace": "1h"}, "drain_grace='1h' is no duration from 0s to 10m"),
        ({"copies": 17}, "copies=17 is no whole number from 2 to 16"),
        ({"copies": 1}, "copies=1 is no whole number from 2 to 16"),
    ],
)
def test_an_error_about_a_setting_of_a_cluster(given: dict[str, Any], message: str) -> None:
    """The same under `primary-backup://`, where all of them may be given."""
    found = refusal(**{"url": "primary-backup://", "secret": SECRET, **given})
    assert found.startswith(message)
    assert len(found) < 300


def test_a_setting_is_called_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its variable only if that has the value that counts; nothing of the value is shown."""
    given = load("redis://:hunter2@h?cache=off", secret=SECRET)
    assert given.called("url") == "url="
    for text, called in (
        ("redis://:hunter2@h?cache=off", "SESSILE_URL"),
        ("redis://:hunter2@h", "SESSILE_URL"),
        ("redis://other", "url="),
        ("nonsense", "url="),
    ):
        monkeypatch.setenv("SESSILE_URL", text)
        assert given.called("url") == called


def test_settings_cannot_be_changed() -> None:
    """They are frozen, compare by value, and a changed copy is checked again."""
    settings = load(secret=SECRET)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.ack = "all"  # type: ignore[misc]  # what is wrong here
    assert dataclasses.replace(settings, **changed("idle_timeout", "5m")).idle_timeout == 300
    assert dataclasses.replace(settings).secrets == settings.secrets
    with pytest.raises(SettingsError, match="ack='two'"):
        dataclasses.replace(settings, **changed("ack", "two"))


def test_a_value_may_not_be_larger_than_the_codec_takes() -> None:
    """The limit on a value lies within what can be encoded at all."""
    largest = codec.VALUE_BYTES_MAX
    assert load(value_bytes_max=largest, session_bytes_max=largest).value_bytes_max == largest
    assert largest > 2**20
    refused = refusal(value_bytes_max=largest + 1, session_bytes_max="2MiB")
    assert refused == (
        f"value_bytes_max={largest + 1} is no size from 1 byte to 1984KiB: keep the value elsewhere and its key in the session, "
        "or split it"
    )
