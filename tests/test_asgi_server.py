"""The ASGI middleware under a real uvicorn, with its lifespan and without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from tests.server_process import served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("lifespan", ["off", "auto"])
def test_uvicorn_serves_sessions(lifespan: str, free_port: Callable[[], int], tmp_path: Path) -> None:
    """The app has no lifespan: requests and a WebSocket share a session all the same, and the server ends in peace."""
    port = free_port()
    arguments = ["uvicorn", "tests.served:asgi", "--port", str(port), "--lifespan", lifespan]
    with served(arguments, port, tmp_path) as server:
        assert [server.ask()["n"] for _ in range(3)] == [1, 2, 3]
        headers = {"Cookie": server.cookie_header}
        with connect(f"ws://127.0.0.1:{port}/", additional_headers=headers, proxy=None) as socket:
            socket.send("hello")
            assert json.loads(socket.recv())["n"] == 4
            assert server.ask()["n"] == 5
            socket.send("again")
            assert json.loads(socket.recv())["fields"]["said"] == "again"
        last = server.ask()
    assert last["fields"] == {"n": 7, "joined": True, "said": "again"}
    assert (last["stats"]["sessions"], last["stats"]["created"], last["stats"]["late"]) == (1, 1, 2)
    assert last["stats"]["foreign"] == last["stats"]["unknown_here"] == 0
    assert "Traceback" not in server.log
    assert "Error" not in server.log


PROXIED = {"X-Forwarded-Proto": "https"}


def test_a_proxy_that_uvicorn_does_not_trust_is_noticed_once(free_port: Callable[[], int], tmp_path: Path) -> None:
    """Cookies lose Secure without a word of the server, so we say it, and what to set; with trust nothing is lost."""
    port = free_port()
    arguments = ["uvicorn", "tests.served:asgi", "--port", str(port), "--forwarded-allow-ips"]
    with served([*arguments, "192.0.2.1"], port, tmp_path) as server:
        server.ask()
        assert "SESSILE_SECURE" not in server.log
        for _ in range(3):
            server.ask(**PROXIED)
        assert set(server.cookies) == {"sid", "sid_v"}
    assert server.log.count("SESSILE_SECURE=true") == server.log.count("--forwarded-allow-ips") == 1
    with served([*arguments, "127.0.0.1"], port, tmp_path) as server:
        server.ask(**PROXIED)
        assert set(server.cookies) == {"__Host-sid", "__Host-sid_v"}
    assert "SESSILE_SECURE" not in server.log
