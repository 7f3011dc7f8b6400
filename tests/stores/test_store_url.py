from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from sessile.errors import SettingsError
from sessile.stores.redis import RedisStore
from sessile.stores.redis_address import RedisAddress
from sessile.stores.redis_links import reason_of
from sessile.stores.sql_engine import target_of
from sessile.stores.store_url import StoreUrl, file_of, shown_hosts
from tests.loading import SECRET, load
from tests.stores.redis_server import REDIS, serving
from tests.stores.rig import ran

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.settings import Settings
    from tests.stores.postgres import Postgres

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
ODD = "pä ss+w%40rd/?#[]@:,;=&'\"\\\t\u2028\U0001f511"
"""A password with all that means something somewhere in a URL or to a driver."""


def escaped(text: str) -> str:
    return quote(text, safe="")


def loaded(url: str) -> Settings:
    """By way of the settings, which write the query anew."""
    return load(f"{url}{'&' if '?' in url else '?'}ack_timeout=2s", secret=SECRET)


@settings(max_examples=30)
@given(user=TEXT, password=TEXT, name=TEXT.filter(bool), value=TEXT)
def test_whatever_is_escaped_arrives(user: str, password: str, name: str, value: str) -> None:
    """User, password, and the names and values of the query are what was escaped, whatever it was."""
    said = StoreUrl.read(f"x://{escaped(user)}:{escaped(password)}@h:1,[::1]/a?{escaped(name)}={escaped(value)}")
    assert (said.username, said.password, said.parameters) == (user, password, {name: value})
    assert (said.hosts, said.path) == ((("h", 1), ("::1", None)), ("a",))


@pytest.mark.parametrize(
    ("url", "hosts", "path"),
    [
        ("x://", (), ()),
        ("X://h", (("h", None),), ()),
        (" x://h:1/a\n", (("h", 1),), ("a",)),
        ("x://u@h,i:2/a%2Fb/c", (("h", None), ("i", 2)), ("a/b", "c")),
        ("x://%2Frun%2Fpg:5/a", (("/run/pg", 5),), ("a",)),
        ("x:///a+b", (), ("a+b",)),
        ("x://a@b:c@d@h", (("h", None),), ()),
    ],
)
def test_what_is_split_and_what_is_not(url: str, hosts: object, path: object) -> None:
    """Hosts at commas and their last colons, paths at slashes; an escaped character separates nothing, a plus is a plus."""
    said = StoreUrl.read(url)
    assert (said.hosts, said.path, said.scheme) == (hosts, path, "x")


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("h/%", "begins no escape"),
        ("u:50%@h", "begins no escape"),
        ("u:50%of@h", "begins no escape"),
        ("u:%FF@h", "no UTF-8"),
        ("u:%00@h", "NUL"),
        ("h/a%0Ab", "cannot be printed"),
        ("h%0A", "cannot be printed"),
        ("h#f", "#"),
        ("h/a@b", "an @ behind"),
        ("h?a=b@c", "an @ behind"),
        ("h?a", "malformed"),
        ("h?=a", "malformed"),
        ("h?a=1&&b=2", "malformed"),
        ("h?a=1&%61=2", "twice"),
        ("h:0", "a host that is none"),
        ("h:x", "a host that is none"),
        ("::1", "a host that is none"),
        ("[::1", "a host that is none"),
        ("a,", "a host that is none"),
        (":1", "a host that is none"),
    ],
)
def test_what_is_no_url(rest: str, why: str) -> None:
    """It is refused with what is wrong, and not read in some other way."""
    with pytest.raises(ValueError, match=why):
        StoreUrl.read(f"x://{rest}")


def test_the_url_of_a_file() -> None:
    """The path as it is, an @ included; with a host before it, it is none."""
    assert file_of("sqlite:////var/a%20b@c+d.db?x=1+%2B") == ("/var/a b@c+d.db", {"x": "1++"})
    assert file_of("sqlite://host/a.db") == ("", {})


def test_hosts_for_people() -> None:
    """As they stand in a URL, without what is usual."""
    assert shown_hosts([("a", 5), ("::1", 6), ("b", None)], 5) == "a,[::1]:6,b"


# -- what the drivers are given ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [*string.punctuation, ODD])
def test_every_driver_is_given_what_the_url_says(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """User, password, name of the database and the values of the query, by way of the settings, which rewrite the query."""
    part = escaped(f"a{odd}b")
    wanted = f"a{odd}b"

    redis = RedisAddress.read(loaded(f"redis://{part}:{part}@h/3?ca_certs={part}&tls=true").url)
    assert redis.connection_options() == {"db": 3, "username": wanted, "password": wanted, "ssl_ca_certs": wanted}
    watched = f"redis+sentinel://h/main?sentinel_username={part}&sentinel_password={part}"
    assert RedisAddress.read(loaded(watched).url).sentinel_options() == {"username": wanted, "password": wanted}

    assert (
        psycopg_given(loaded(f"postgresql://{part}:{part}@h/n?options={part}&sslcert={part}").url, monkeypatch).items()
        >= {"user": wanted, "password": wanted, "options": wanted, "sslcert": wanted}.items()
    )
    by_query = loaded(f"postgresql://u:no@h/n?password={part}&user={part}").url
    assert psycopg_given(by_query, monkeypatch).items() >= {"user": wanted, "password": wanted}.items()

    engine = target_of(loaded(f"mysql://{part}:{part}@h:7/n?unix_socket={part}").url).make(1.0).engine.sync_engine
    _, options = engine.dialect.create_connect_args(engine.url)
    assert (options["user"], options["host"], options["port"], options["db"]) == (wanted, "h", 7, "n")
    assert asyncmy_given(engine) == {"password": wanted.encode(), "unix_socket": wanted}

    if wanted.isprintable():  # people are shown where a database is
        assert psycopg_given(loaded(f"postgresql://h/{part}").url, monkeypatch)["dbname"] == wanted
        named = target_of(loaded(f"mysql://h/{part}").url).make(1.0).engine.sync_engine
        assert named.dialect.create_connect_args(named.url)[1]["db"] == wanted
        assert target_of(loaded(f"sqlite:////{part}").url).where == f"sqlite:////{wanted}"


def psycopg_given(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    given: dict[str, Any] = {}

    async def connect(**keywords: Any) -> None:
        given.update(keywords)
        raise psycopg.OperationalError("enough")

    async def body() -> None:
        monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
        target = target_of(url).make(1.0)
        with pytest.raises(Exception, match="enough"):
            async with target.engine.connect():
                pass

    ran(body)
    return given


def asyncmy_given(engine: Any) -> dict[str, Any]:
    """What a new connection would be given beside what its URL says."""
    from sqlalchemy import event

    given: dict[str, Any] = {}

    @event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, ___: object, keywords: dict[str, Any]) -> None:
        given.update({name: keywords[name] for name in ("password", "unix_socket")})
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        engine.raw_connection()
    return given


@pytest.mark.needs("postgres")
def test_postgresql_lets_in_who_the_url_says(postgres: Postgres) -> None:
    """A real server, and a user, a password and a database that mean something in a URL, in SQL and in libpq's own format."""
    name = "o@d/d ?#%:'"
    password = ODD.replace("'", "''")
    postgres.query(f"CREATE ROLE \"{name}\" LOGIN PASSWORD E'{password.replace(chr(92), chr(92) * 2)}'")
    postgres.query(f'CREATE DATABASE "{name}" OWNER "{name}"')
    url = f"postgresql://{escaped(name)}:{escaped(ODD)}@127.0.0.1:{postgres.port}/{escaped(name)}"

    async def body() -> None:
        connections = target_of(loaded(url).url).make(20.0)
        async with connections.engine.connect() as connection:
            said = (await connection.exec_driver_sql("SELECT current_user, current_database()")).one()
        await connections.engine.dispose()
        assert tuple(said) == (name, name)

    ran(body)


@pytest.mark.needs(REDIS)
def test_redis_lets_in_who_the_url_says() -> None:
    """A real server with the same password."""
    with serving(REDIS) as server:
        password = ODD.replace("\t", "")
        server.ask("ACL", "SETUSER", "o@d", "on", f">{password}", "~*", "&*", "+@all")

        async def body() -> None:
            store = RedisStore(loaded(f"redis://o%40d:{escaped(password)}@127.0.0.1:{server.port}/1").url)
            await store.open()
            assert server.ask("CLIENT", "LIST").count(b" user=o@d ") == 1
            await store.close()

        ran(body)


def test_what_a_server_repeats_of_a_password_is_not_shown() -> None:
    """A server that has no AUTH answers with the arguments that it was given."""
    error: Exception = ResponseError("unknown command 'AUTH', with args beginning with: 'ann' 'sesame' ")
    assert reason_of(error) == "fails: unknown command 'AUTH'"


# -- what people are shown ---------------------------------------------------------------------------------------------


def odd_passwords() -> Iterator[str]:
    """Passwords as people write them into a URL, unescaped, with one thing in them that means something there."""
    for mark in (
        "@",
        "/",
        "?",
        "#",
        ":",
        "%",
        "%zz",
        "[",
        "]",
        "&",
        "=",
        ",",
        ";",
        "+",
        " ",
        "\\",
        "@/",
        "/?",
        ":1/",
        "//",
    ):
        yield f"hunter{mark}sesame"
        yield f"6379{mark}sesame"
        yield f"{mark}sesame"
    yield from (
        "6379?tls=sesame",
        "6379/0?sentinel_password=sesame",
        "6379?sesame=1",
        "1?sslmode=sesame",
        "h/n?a=sesame",
    )


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster", "valkeys", "postgresql", "mysql"])
def test_no_part_of_a_password_is_ever_shown(scheme: str) -> None:
    """However badly it is escaped: not in a refusal, and not in the name under which the log and the status know the store."""
    for end in ("@h/main", "@h:1/main?sslmode=prefer", "@h,i/0", "@h"):
        for password in odd_passwords():
            said = all_said_of(f"{scheme}://ann:{password}{end}")
            assert not any(part in said for part in ("sesame", "hunter", "\n")), (password, end)


def all_said_of(url: str) -> str:
    """What is shown where a store has this URL, read directly and by way of the settings."""
    said: list[str] = []
    for is_loaded in (False, True):
        try:
            given_url = loaded(url).url if is_loaded else url
            if given_url.startswith(("redis", "valkey")):
                address = RedisAddress.read(given_url)
                said += [address.where, repr(address)]
            else:
                said.append(target_of(given_url).where)
        except SettingsError as error:
            said.append(str(error))
    return " ".join(said)


def test_an_unescaped_password_is_refused_with_the_remedy() -> None:
    """What cannot be told from a path or a query says how to write it."""
    for mark in "/?#":
        with pytest.raises(SettingsError, match="%2F for /"):
            load(f"postgresql://ann:1{mark}sesame@h/name", secret=SECRET)


def test_a_bare_at_in_a_password_is_read_as_browsers_read_it() -> None:
    """The last one ends it, for every driver."""
    assert RedisAddress.read("redis://ann:open@sesame@h").connection_options()["password"] == "open@sesame"
    target = target_of("postgresql://ann:open@sesame@h/name")
    assert (target.where, target.secrets) == ("postgresql://h/name", ("open@sesame",))
    assert target_of("mysql://ann:open@sesame@h/name").where == "mysql://h/name"
