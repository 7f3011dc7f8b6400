from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessile import kinds
from sessile import settings as settings_module
from sessile.errors import SettingsError
from sessile.settings import Settings
from sessile.sources import _NOT_OURS, Given, from_environment, from_file, from_keywords, from_url, read, variable
from tests.loading import SECRET, load, refusal, toml

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"url": kinds.text(".*", "is no text"), "exclude": kinds.PREFIXES, "secret": kinds.SECRETS}


def test_each_source_says_what_it_calls_a_setting(tmp_path: Path) -> None:
    """An error speaks of what people wrote: by name, in the URL, a variable, in a file. Nothing is read yet."""
    assert from_keywords({"exclude": 5}, KINDS) == {"exclude": Given("exclude", 5)}
    given = {"exclude": Given("exclude (in the URL)", ["/a", "/b"])}
    assert from_url(Given("url", "sticky://?exclude=/a,/b"), KINDS) == ("sticky://", given)
    assert from_environment({"SESSILE_EXCLUDE": "/a , b", "HOME": "/"}, KINDS) == {
        "exclude": Given("SESSILE_EXCLUDE", ["/a", "b"])
    }
    assert from_file(toml(tmp_path, "exclude = '/a,/b'"), KINDS) == {
        "exclude": Given("exclude (in sessile.toml)", "/a,/b")
    }
    assert variable("ack_timeout") == "SESSILE_ACK_TIMEOUT"


def test_what_is_read_is_named_as_its_source_names_it() -> None:
    """With its value, unless that may never be shown."""
    assert read(kinds.PREFIXES, Given("exclude", "/a")) == ("/a",)
    with pytest.raises(SettingsError, match=r"^SESSILE_EXCLUDE='a' is no list of path prefixes"):
        read(kinds.PREFIXES, Given("SESSILE_EXCLUDE", "a"))
    with pytest.raises(SettingsError, match=r"^secret is shorter than 16 bytes"):
        read(kinds.SECRETS, Given("secret", "hush"))


def test_of_two_sources_the_nearer_one_counts(tmp_path: Path) -> None:
    """Keywords, then the URL's query, then the environment, then the file, then the default."""
    sources: list[dict[str, Any]] = [
        {"config": toml(tmp_path, "cluster = 'file'")},
        {"environ": {"SESSILE_CLUSTER": "variable"}},
        {"url": "sticky://?cluster=query"},
        {"cluster": "keyword"},
    ]
    given: dict[str, Any] = {}
    for source, expected in zip(sources, ("file", "variable", "query", "keyword"), strict=True):
        given |= source
        assert load(**given).cluster == expected


def test_the_query_counts_wherever_the_url_comes_from(tmp_path: Path) -> None:
    """The query of a URL in the environment or a file stands above both; a nearer URL replaces the query too."""
    file = toml(tmp_path, "url = 'sticky://?cluster=file-query'\ncookie_name = 'file'")
    environ = {"SESSILE_URL": "sticky://?cluster=variable-query", "SESSILE_CLUSTER": "variable"}
    assert load(config=file).cluster == "file-query"
    assert load(config=file, environ=environ).cluster == "variable-query"
    assert load("sticky://", config=file, environ=environ).cluster == "variable"
    assert load("sticky://", config=file).cookie_name == "file"
    assert load(environ=environ).url == "sticky://"


def test_a_variable_that_does_not_count_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keyword, or the URL's query, that says otherwise; what says the same is no news, and no value is shown."""
    monkeypatch.setattr(settings_module, "_OVERRIDDEN", set())
    secret = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
    environ = {
        "SESSILE_URL": "redis://u:hunter2@host",
        "SESSILE_SECRET": secret,
        "SESSILE_IDLE_TIMEOUT": "1h",
        "SESSILE_ACK": "all",
        "SESSILE_STALE": "serve",
    }
    for _ in range(2):
        load("sticky://?ack=none&stale=serve", environ=environ, secret=SECRET, idle_timeout=3600)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "SESSILE_URL does not count: url is given in code, which counts more; leave out one of them",
        "SESSILE_SECRET does not count: secret is given in code, which counts more; leave out one of them",
        "SESSILE_ACK does not count: ack (in the URL) is given, which counts more; leave out one of them",
    ]
    load("redis://u:hunter2@host?tls=true", environ={"SESSILE_URL": "redis://u:hunter2@host?tls=true"}, secret=SECRET)
    assert len(caplog.records) == 3


def test_the_real_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being given one, it is the environment of the process at the time of the call."""
    monkeypatch.setenv("SESSILE_CLUSTER", "from-the-process")
    assert Settings.load().cluster == "from-the-process"


def test_variables_of_others() -> None:
    """What Kubernetes sets for a Service of the same name, the demo for its servers, or `sessile.status` reads."""
    others = {
        "SESSILE_SERVICE_HOST": "10.0.0.1",
        "SESSILE_SERVICE_PORT": "80",
        "SESSILE_SERVICE_PORT_HTTP": "80",
        "SESSILE_PORT": "tcp://10.0.0.1:80",
        "SESSILE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "SESSILE_PORT_80_TCP_ADDR": "10.0.0.1",
        "SESSILE_REDIS_SERVICE_HOST": "10.0.0.2",
        "SESSILE_REDIS_SERVICE_PORT": "6379",
        "SESSILE_REDIS_SERVICE_PORT_METRICS": "9121",
        "SESSILE_REDIS_PORT": "tcp://10.0.0.2:6379",
        "SESSILE_REDIS_PORT_6379_TCP": "tcp://10.0.0.2:6379",
        "SESSILE_REDIS_PORT_6379_TCP_PROTO": "tcp",
        "SESSILE_REDIS_PORT_6379_TCP_PORT": "6379",
        "SESSILE_REDIS_PORT_6379_TCP_ADDR": "10.0.0.2",
        "SESSILE_URL_2_HEADLESS_PORT_53_UDP": "udp://10.0.0.3:53",
        "SESSILE_SECRET_SERVICE_HOST": "10.0.0.4",
        "SESSILE_DEMO_SERVER": "s1",
        "SESSILE_STATUS_TOKEN": "t",
        "OTHER_IDLE_TIMEOUT": "x",
    }
    assert load(environ=others) == Settings()
    assert not any(_NOT_OURS.fullmatch(variable(each.name)) for each in Settings.describe())
    for mistyped in ("SESSILE_REDIS_SERVICE_HOSTS", "SESSILE_PORTS", "SESSILE_REDIS", "SESSILE_IDLE_TIMEOT"):
        assert "is no setting" in refusal(environ={mistyped: "x"})


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
def test_a_mistake_in_the_file(text: str, message: str, tmp_path: Path) -> None:
    """The error names the file."""
    found = refusal(config=toml(tmp_path, text))
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
