from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest

from sessile import codec
from sessile.errors import SettingsError
from sessile.settings import SCHEMES_TO_COME, Settings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "correct horse battery staple"
OTHER = "another secret, long enough"


def load(url: str | None = None, **given: Any) -> Settings:
    """`Settings.load`, from an empty environment unless one is given."""
    return Settings.load(url, **{"environ": {}, **given})


def refusal(url: str | None = None, **given: Any) -> str:
    """The message of the error that loading ends with: one line, and no secret in it."""
    with pytest.raises(SettingsError) as caught:
        load(url, **given)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    """Writes a file of settings and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "sessile.toml"
        path.write_text(text)
        return path

    return write


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
    assert (settings.tombstone_keep, settings.ack_timeout, settings.pull_timeout) == (600, 1, 0.25)
    assert (settings.sessions_max, settings.bytes_max, settings.fields_max) == (1_000_000, 2**28, 256)
    assert (settings.session_bytes_max, settings.value_bytes_max) == (2**16, 2**16)
    assert (settings.exclude, settings.ack, settings.degraded, settings.stale) == ((), "one", "serve", "serve")


def test_every_setting_is_described() -> None:
    """Each field has a row: a type, a default that reads as the default, its variable, and a sentence or two."""
    rows = Settings.describe()
    assert [row.name for row in rows] == [field.name for field in dataclasses.fields(Settings)]
    for row in rows:
        assert row.type
        assert row.environment == f"SESSILE_{row.name.upper()}"
        assert re.fullmatch(r"[A-Z`].{20,}\.", row.description), row.name
        if row.default:
            assert load(environ={row.environment: row.default}) == Settings()


def test_the_defaults_as_documentation_shows_them() -> None:
    """Durations and sizes have units, choices their words, secrets nothing."""
    shown = {row.name: (row.type, row.default) for row in Settings.describe()}
    assert shown["idle_timeout"] == ("duration", "30m")
    assert shown["bytes_max"] == ("size", "256MiB")
    assert shown["secure"] == ("auto | true | false", "auto")
    assert shown["secret"] == ("secrets", "")
    assert shown["pull_timeout"] == ("duration", "250ms")


# -- sources and their order ---------------------------------------------------------------------------------------------

EACH: dict[str, tuple[str, Any]] = {
    "cluster": ("shop", "shop"),
    "cookie_name": ("session", "session"),
    "secure": ("true", True),
    "samesite": ("strict", "strict"),
    "path": ("/app", "/app"),
    "partitioned": ("true", True),
    "idle_timeout": ("15m", 900.0),
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


def test_no_setting_is_missing_from_the_table_above() -> None:
    """A new setting is entered there too."""
    assert {*EACH, "url", "secret"} == {field.name for field in dataclasses.fields(Settings)}


def changed(name: str, value: Any) -> Any:
    """The keyword arguments that set one setting."""
    return {name: value}


@pytest.mark.parametrize("name", EACH)
def test_each_setting_from_each_source(name: str, toml: Any) -> None:
    """A setting reads the same from a keyword, the URL, the environment and a file, typed or as text."""
    text, value = EACH[name]
    typed = list(value) if isinstance(value, tuple) else value
    written = str(typed).lower() if isinstance(typed, bool) else repr(typed)
    for settings in (
        load(**changed(name, typed)),
        load(f"sticky://?{name}={text}"),
        load(environ={f"SESSILE_{name.upper()}": text}),
        load(config=toml(f"{name} = {written}")),
        load(config=toml(f"[sessile]\n{name} = {written}\n[other]\nunknown = 1")),
        Settings(**changed(name, typed)),
    ):
        assert settings == dataclasses.replace(Settings(), **changed(name, value))
        assert type(getattr(settings, name)) is type(value)


def test_of_two_sources_the_nearer_one_counts(toml: Any) -> None:
    """Keywords, then the URL's query, then the environment, then the file, then the default."""
    sources: list[dict[str, Any]] = [
        {"config": toml("cluster = 'file'")},
        {"environ": {"SESSILE_CLUSTER": "variable"}},
        {"url": "sticky://?cluster=query"},
        {"cluster": "keyword"},
    ]
    given: dict[str, Any] = {}
    for source, expected in zip(sources, ("file", "variable", "query", "keyword"), strict=True):
        given |= source
        assert load(**given).cluster == expected


def test_the_query_counts_wherever_the_url_comes_from(toml: Any) -> None:
    """The query of a URL in the environment or a file stands above both; a nearer URL replaces the query too."""
    file = toml("url = 'sticky://?cluster=file-query'\ncookie_name = 'file'")
    environ = {"SESSILE_URL": "sticky://?cluster=variable-query", "SESSILE_CLUSTER": "variable"}
    assert load(config=file).cluster == "file-query"
    assert load(config=file, environ=environ).cluster == "variable-query"
    assert load("sticky://", config=file, environ=environ).cluster == "variable"
    assert load("sticky://", config=file).cookie_name == "file"
    assert load(environ=environ).url == "sticky://"


def test_the_real_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being given one, it is the environment of the process at the time of the call."""
    monkeypatch.setenv("SESSILE_CLUSTER", "from-the-process")
    assert Settings.load().cluster == "from-the-process"


def test_variables_of_others() -> None:
    """What Kubernetes sets for a Service of the same name, and the demo for its servers, is nobody's typing error."""
    others = {
        "SESSILE_SERVICE_HOST": "10.0.0.1",
        "SESSILE_SERVICE_PORT": "80",
        "SESSILE_SERVICE_PORT_HTTP": "80",
        "SESSILE_PORT": "tcp://10.0.0.1:80",
        "SESSILE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "SESSILE_PORT_80_TCP_ADDR": "10.0.0.1",
        "SESSILE_DEMO_SERVER": "s1",
        "OTHER_IDLE_TIMEOUT": "x",
    }
    assert load(environ=others) == Settings()


# -- secrets -------------------------------------------------------------------------------------------------------------


def test_one_secret_or_several(toml: Any) -> None:
    """Text is one secret, a list several; commas separate only in the environment."""
    both = (SECRET.encode(), b"second secret, whole")
    assert load(secret=SECRET).secrets == (SECRET.encode(),)
    assert load(secret="one, two: a single passphrase").secrets == (b"one, two: a single passphrase",)
    assert load(secret=SECRET.encode()).secrets == (SECRET.encode(),)
    assert load(secret=[SECRET, b"second secret, whole"]).secrets == both
    assert load(config=toml(f"secret = '{SECRET}'")).secrets == both[:1]
    assert load(config=toml(f"secret = ['{SECRET}', 'second secret, whole']")).secrets == both
    assert load(environ={"SESSILE_SECRET": f"{SECRET} ,second-secret-whole\n"}).secrets == (
        both[0],
        b"second-secret-whole",
    )
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
        ({"value_bytes_max": "2MiB"}, "value_bytes_max='2MiB' is no size from 1 byte to 1MiB"),
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
    ("text", "message"),
    [
        ("idle_timeot = 5", "'idle_timeot' in sessile.toml is no setting; did you mean idle_timeout?"),
        ("[sessile]\nack = 'two'", "ack (in sessile.toml)='two' is none of"),
        ("sessile = 5", "has `sessile` as a value: write a table, [sessile]"),
        ("ack =", "is no TOML file: "),
        ("exclude = '/a,/b'\nsecure = 1", "secure (in sessile.toml)=1 is none of"),
    ],
)
def test_a_mistake_in_the_file(text: str, message: str, toml: Any) -> None:
    """The error names the file."""
    found = refusal(config=toml(text))
    assert message in found
    assert "sessile.toml" in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, a directory and one that is no text are settings errors."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, message in (
        (tmp_path / "no", "cannot be read"),
        (tmp_path, "cannot be read"),
        (tmp_path / "binary", "is no TOML"),
    ):
        assert message in refusal(config=path)


@pytest.mark.parametrize("scheme", SCHEMES_TO_COME)
def test_a_strategy_to_come_says_so(scheme: str) -> None:
    """The other strategies have their schemes, and are not in this version."""
    assert (
        refusal(f"{scheme}://host/x?members=a")
        == f"url has the scheme {scheme}, which is not in this version: write sticky://"
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("stiky://", "url has an unknown scheme; did you mean sticky://?"),
        ("reddis://h", "url has an unknown scheme; did you mean redis://?"),
        ("primary_backup://", "url has an unknown scheme; did you mean primary-backup://?"),
        ("", "url is no URL with a scheme: write sticky://"),
        ("sticky", "url is no URL with a scheme: write sticky://"),
        ("sticky:", "url is no URL with a scheme: write sticky://"),
        ("sticky://host", "url names a host, path or fragment"),
        ("sticky:///path", "url names a host, path or fragment"),
        ("sticky://#part", "url names a host, path or fragment"),
        ("sticky://[", "url is malformed"),
        ("sticky://?idle_timeout", "url is malformed"),
        ("sticky://?ack=one&ack=all", "url gives a parameter twice"),
        ("sticky://?url=sticky://", "url may not stand in the URL"),
        ("sticky://?ack=", "ack (in the URL)='' is none of"),
    ],
)
def test_a_url_that_is_wrong(url: str, message: str) -> None:
    """Scheme, host, path, fragment and query are each looked at; the URL itself is not repeated."""
    assert refusal(url).startswith(message)
    if message.startswith(("url is", "url has")):
        assert refusal(environ={"SESSILE_URL": url}) == refusal(url).replace("url", "SESSILE_URL", 1)


def test_a_url_that_is_no_text() -> None:
    """Something else for a URL is refused, and so is a query where nobody reads it."""
    assert refusal(url=5).startswith("url is no URL")  # type: ignore[arg-type]  # what is wrong here
    assert load("STICKY://").url == "sticky://"
    with pytest.raises(SettingsError, match=r"url carries parameters, which only Settings\.load reads"):
        Settings(url="sticky://?ack=all")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"idle_timeout": "13h"}, {"idle_timeout=13h", "absolute_timeout=12h"}),
        ({"absolute_timeout": 60}, {"idle_timeout=30m", "absolute_timeout=1m"}),
        (
            {"tombstone_keep": "10s"},
            {"tombstone_keep=10s", "rotation_grace=10s", "ack_timeout=1s", "pull_timeout=250ms"},
        ),
        ({"ack_timeout": 30, "pull_timeout": 60, "tombstone_keep": 100}, {"tombstone_keep=100s", "pull_timeout=1m"}),
        ({"value_bytes_max": "65KiB"}, {"value_bytes_max=65KiB", "session_bytes_max=64KiB"}),
        ({"session_bytes_max": 1_000}, {"value_bytes_max=64KiB", "session_bytes_max=1000B"}),
        ({"bytes_max": "10KiB"}, {"session_bytes_max=64KiB", "bytes_max=10KiB"}),
        ({"samesite": "none", "secure": False}, {"samesite=none", "secure=false"}),
        ({"partitioned": True, "secure": "no"}, {"partitioned=true", "secure=false"}),
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
        {"tombstone_keep": "11.3s"},
        {"value_bytes_max": "1MiB", "session_bytes_max": "1MiB", "bytes_max": "1MiB"},
        {"samesite": "none"},
        {"samesite": "none", "secure": True},
        {"partitioned": True},
        {"rotation_grace": 0},
        {"path": "/app/v1"},
    ],
)
def test_settings_at_the_edge_of_a_relation(given: dict[str, Any]) -> None:
    """What is equal, or only just enough, is allowed."""
    load(**given)


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
    assert "from 1 byte to 1MiB" in refusal(value_bytes_max=largest + 1, session_bytes_max=2 * largest)
