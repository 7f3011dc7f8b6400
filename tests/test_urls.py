from __future__ import annotations

import pytest

from sessile.errors import SettingsError
from sessile.replication.config import ALL_TO_ALL, PRIMARY_BACKUP
from sessile.settings import Settings
from sessile.strategies import STRATEGIES
from sessile.urls import CLUSTERS, SCHEMES, SCHEMES_TO_COME, STORES, split_url
from tests.fakes import SECRET
from tests.loading import load, refusal


def test_the_schemes() -> None:
    """Every strategy's scheme is there or to come; a cluster's is the name that nodes have for the strategy."""
    assert set(CLUSTERS) == {ALL_TO_ALL, PRIMARY_BACKUP}
    assert {"sticky", *CLUSTERS} <= set(SCHEMES)
    assert {*SCHEMES, *SCHEMES_TO_COME} == {"agent", *(scheme for it in STRATEGIES for scheme in it.schemes)}
    assert not set(SCHEMES) & set(SCHEMES_TO_COME)


@pytest.mark.parametrize("scheme", ["sticky", *CLUSTERS])
def test_a_url_and_its_query(scheme: str) -> None:
    """They are told apart; commas, colons and brackets stand for themselves, and what is escaped is unescaped."""
    assert split_url(f"{scheme.upper()}://") == (f"{scheme}://", {})
    assert split_url(f"{scheme}://?members=a:1,[::1]:2,dns:c&path=%2Fa%20b&empty=") == (
        f"{scheme}://",
        {"members": "a:1,[::1]:2,dns:c", "path": "/a b", "empty": ""},
    )


@pytest.mark.parametrize("scheme", STORES)
def test_a_store_has_a_place_and_parameters_of_its_driver(scheme: str) -> None:
    """Those that are no settings of ours stay in the URL; none is lost on the way to the driver."""
    place = "u:p%40ss@h1:1,h2:2/name/3"
    assert split_url(f"{scheme.upper()}://{place}?a=1") == (f"{scheme}://{place}", {"a": "1"})
    settings = load(f"{scheme}://{place}?sslmode=verify-full&cache=checked&x=%2F", secret=SECRET)
    assert settings.url == f"{scheme}://{place}?sslmode=verify-full&x=%2F"
    assert (settings.cache, settings.is_store, settings.scheme) == ("checked", True, scheme)
    assert Settings(url=settings.url, secret=settings.secret).url == settings.url
    assert "p%40ss" not in repr(settings)
    assert "p%40ss" not in refusal(f"{scheme}://{place}", secret=SECRET, me="a:1")
    assert "names no place" in refusal(f"{scheme}://", secret=SECRET)


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
        ("stiky://", "url has an unknown scheme; did you mean 'sticky://'?"),
        ("reddis://h", "url has an unknown scheme; did you mean 'redis://'?"),
        ("primary_backup://", "url has an unknown scheme; did you mean 'primary-backup://'?"),
        ("", "url has no scheme: write one of sticky://, all-to-all://, primary-backup://, "),
        ("sticky", "url has no scheme: write one of sticky://, "),
        ("sticky:", "url has no scheme: write one of sticky://, "),
        ("web1:7400", "url has no scheme: write one of sticky://, "),
        ("127.0.0.1:6379", "url has no scheme: with port 6379, write redis:// before it, as in redis://host:6379"),
        (
            " ann:s3cret@h:6379/0 ",
            "url has no scheme: with port 6379, write redis:// before it, as in redis://host:6379",
        ),
        ("h:26379/main", "url has no scheme: with port 26379, write redis+sentinel:// before it, "),
        ("db:5432", "url has no scheme: with port 5432, write postgresql:// before it, as in postgresql://user@host:"),
        (
            "db:3306/app",
            "url has no scheme: with port 3306, write mysql:// before it, as in mysql://user@host:3306/name",
        ),
        ("sticky://host", "url names a host, path or fragment"),
        ("sticky:///path", "url names a host, path or fragment"),
        ("sticky://#part", "url names a host, path or fragment"),
        ("sticky://[", "url names a host, path or fragment"),
        (
            "all-to-all://a,b",
            "url names a host, path or fragment, but the servers stand in its query: write all-to-all://?",
        ),
        (
            "all-to-all:///a",
            "url names a host, path or fragment, but the servers stand in its query: write all-to-all://?",
        ),
        (
            "primary-backup://a?copies=2",
            "url names a host, path or fragment, but the servers stand in its query: write pri",
        ),
        ("all-to-all://?members", "url is malformed: write …://, or …://?name=value&name=value"),
        ("all-to-all://?members=a&members=b", "url gives a parameter twice"),
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
    assert refusal(url=5).startswith("url has no scheme: write one of ")  # type: ignore[arg-type]  # what is wrong here
    assert load("STICKY://").url == "sticky://"
    with pytest.raises(SettingsError, match=r"url carries parameters, which only Settings\.load reads"):
        Settings(url="sticky://?ack=all")
