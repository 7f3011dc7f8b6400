from __future__ import annotations

import asyncio
import os
import stat
import tomllib
from typing import TYPE_CHECKING

import pytest

from sessile.balancer.servers import Server
from sessile.balancer.settings import BalancerSettings
from sessile.cookies import CookiePolicy
from sessile.errors import SessileError
from sessile.lab import ports
from sessile.lab.front import Front, config_text, session_settings
from sessile.settings import Settings
from tests.lab.waiting import is_running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "a secret of thirty-two characters"


@pytest.mark.parametrize(("routing", "affinity"), [("sticky", "cookie"), ("round-robin", "none")])
def test_the_balancer_reads_its_file_as_it_was_meant(routing: str, affinity: str) -> None:
    """Round robin among the servers by their names; affinity only where routing is sticky; a cookie for each port."""
    text = config_text(8080, routing, SECRET, {"s1": 9081, "s2": 9082}, Settings())
    settings = BalancerSettings.from_mapping(tomllib.loads(text))
    assert settings.listen == ("127.0.0.1", 8080)
    assert settings.algorithm == "round-robin"
    assert settings.affinity.kind == affinity
    assert affinity == "none" or settings.affinity.name == "affinity-8080"
    assert settings.secrets == (SECRET,)
    assert [(one.name, one.host, one.port) for one in settings.servers] == [
        ("s1", "127.0.0.1", 9081),
        ("s2", "127.0.0.1", 9082),
    ]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SESSILE_SAMESITE": "none", "SESSILE_PARTITIONED": "true"},
        {"SESSILE_SAMESITE": "none", "SESSILE_SECURE": "true"},
        {"SESSILE_SAMESITE": "strict", "SESSILE_SECURE": "false"},
    ],
)
def test_the_two_cookies_go_together(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of the session cookie holds for the affinity cookie: neither goes where the other does not."""
    for name in ("SESSILE_SAMESITE", "SESSILE_PARTITIONED", "SESSILE_SECURE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    session = session_settings()
    settings = BalancerSettings.from_mapping(tomllib.loads(config_text(8080, "sticky", SECRET, {"s1": 1}, session)))
    server = Server(settings.servers[0], settings)
    policy = CookiePolicy(Settings.load(environ=environ))
    for is_https, line in ((False, server.cookie), (True, server.cookie_secure)):
        seen = policy.read((), is_https=is_https).is_https
        wanted = policy.id_cookie(b"x", is_https=seen).split(b"; ")[1:]
        assert set(line.split(b"\r\n")[0].split(b"; ")[1:]) == set(wanted)


def test_a_balancer_starts_takes_up_servers_and_ends(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """It listens when `start` returns, knows the new server when `take` does, and is gone when `stop` does."""
    port, first, second = free_port(), free_port(), free_port()

    async def main() -> None:
        front = Front(port, "sticky", SECRET, tmp_path, lambda _: None)
        assert front.status() == {"pid": None, "port": port, "state": "starting"}
        await front.start({"s1": first}, os.getpid())
        pid = front.status()["pid"]
        try:
            assert front.status() == {"pid": pid, "port": port, "state": "ready"}
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            assert await front.take({"s1": first, "s2": second})
            async with asyncio.timeout(30):
                while front.sees.get("s2") != "down":  # noqa: ASYNC110 - its words come when they come
                    await asyncio.sleep(0.02)
        finally:
            await front.stop()
        assert not is_running(pid)
        assert front.status() == {"pid": None, "port": port, "state": "dead"}
        assert "the balancer ended" in await front.ended()

    asyncio.run(main())
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_balancer_that_does_not_start_is_told_with_its_last_words(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """One line, at once."""
    port = free_port()

    async def main() -> None:
        front = Front(port, "sticky", SECRET, tmp_path, lambda _: None)
        with pytest.raises(SessileError, match=rf"the balancer did not start: .*{port}") as raised:
            await front.start({"s1": 1}, os.getpid())
        assert "\n" not in str(raised.value)
        await front.stop()

    with ports.listen(port):
        asyncio.run(main())
