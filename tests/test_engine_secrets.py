"""The engine's secrets: whose cookies it takes, and what it does without one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sessile.engine import Engine
from sessile.errors import SettingsError
from tests.fakes import SECRET, FakeBrowser, FakeClock, make_engine, settled

DEADLINE_S = 10.0


def test_secrets_rotate() -> None:
    """The first secret signs, all verify; a cookie of a secret that was dropped is foreign."""
    clock = FakeClock()
    engine = make_engine(clock=clock)
    browser = settled(engine, a=1)
    both = make_engine(clock=clock, secret=["a new secret, which is long enough", SECRET])
    both.table = engine.table
    with browser.request(both) as session:
        assert session["a"] == 1
        session.rotate()
    only = make_engine(clock=clock, secret="a new secret, which is long enough")
    only.table = engine.table
    assert browser.open(only)["a"] == 1
    assert browser.open(engine).new
    assert engine.stats()["foreign"] == 1


@pytest.mark.parametrize(
    "other", [{"cluster": "other"}, {"cookie_name": "other"}, {"secret": "some other secret, and long enough too"}]
)
def test_services_do_not_take_each_others_cookies(other: dict[str, Any]) -> None:
    """Another cluster, another cookie name or another secret has other keys: its ids are foreign."""
    one, two = make_engine(), make_engine(**other)
    value = settled(one, a=1).cookies["sid"]
    session = two.open((f"{two.settings.cookie_name}={value}".encode(),), is_https=False)
    assert session.new
    assert two.stats()["foreign"] == 1
    assert two.stats()["unknown_here"] == 0


@pytest.mark.parametrize("server", [None, "127.0.0.1", "127.8.9.1", "::1", "localhost", "testserver"])
def test_without_a_secret_a_loopback_server_draws_one(server: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Sessions work, and one warning says what is missing and how to get it."""
    engine = make_engine(secret=None)
    cookies: list[bytes] = []
    for _ in range(2):
        browser = FakeBrowser(engine)
        browser.keep(cookies)
        session = engine.open((browser.header,), is_https=False, server=server)
        assert session.get("a") == (1 if cookies else None)
        session["a"] = 1
        engine.commit(session)
        cookies += engine.cookies(session)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "run `sessile keygen` once, and set what it prints as SESSILE_SECRET in the environment" in caplog.text
    assert engine.open((), is_https=False, server="10.0.0.1").new, "a secret that was drawn serves every address"


@pytest.mark.parametrize(
    "server", ["0.0.0.0", "10.0.0.1", "::", "example.com", "127.example.com", "localhost.evil.com"]
)
def test_without_a_secret_any_other_server_refuses(server: str) -> None:
    """The error names the address, the setting and `sessile keygen`; no session is opened."""
    engine = make_engine(secret=None)
    with pytest.raises(SettingsError, match=r"secret is not set.*sessile keygen.*SESSILE_SECRET") as caught:
        engine.open((), is_https=False, server=server)
    assert server in str(caught.value)


def test_a_secret_is_drawn_once_by_threads_that_come_together() -> None:
    """One request is served whole while another, that came before it, still draws: its cookies are known afterwards."""
    is_drawing, is_served = threading.Event(), threading.Event()

    def draw(size: int) -> bytes:
        if size == 32 and not is_drawing.is_set():
            is_drawing.set()
            is_served.wait(0.5)  # to no avail where the other one waits for this secret, as it should
        return threading.current_thread().name[:1].encode() * size

    def serve(browser: FakeBrowser) -> None:
        with browser.request() as session:
            session["a"] = 1
        is_served.set()

    engine = Engine(draw=draw, clock_ms=FakeClock())
    browsers = [FakeBrowser(engine), FakeBrowser(engine)]
    threads = [
        threading.Thread(target=serve, args=(browser,), name=name)
        for browser, name in zip(browsers, ("first", "other"), strict=True)
    ]
    threads[0].start()
    assert is_drawing.wait(DEADLINE_S)
    threads[1].start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [browser.look() for browser in browsers] == [{"a": 1}, {"a": 1}]
