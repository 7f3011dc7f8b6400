"""The WSGI middleware under a real gunicorn that loads the app before it forks two workers."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tests.server_process import ServerProcess, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRIES = 300


def ask_until(server: ServerProcess, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask until the answer is the wanted one; an idle connection keeps one worker busy every other time."""
    for number in range(TRIES):
        idle = socket.create_connection(("127.0.0.1", server.port)) if number % 2 else nullcontext()
        with idle:
            answer = server.ask()
        if is_it(answer):
            return answer
    raise AssertionError(f"{TRIES} requests never came to the other worker")


def test_forked_workers_write_under_their_own_names(free_port: Callable[[], int], tmp_path: Path) -> None:
    """Two workers draw two writers, neither takes the other's session for its own, and the log names the remedy once."""
    port = free_port()
    arguments = ["gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}", "tests.served:wsgi"]
    with served(arguments, port, tmp_path) as server:
        first = server.ask()
        cookies = dict(server.cookies)
        other = ask_until(server, lambda answer: bool(answer["pid"] != first["pid"]))
        assert other["writer"] != first["writer"]
        assert (other["new"], other["n"]) == (True, 1), "a session of one worker is unknown to the other, never merged"
        assert other["stats"]["unknown_here"] == 1
        assert server.cookies["sid"] != cookies["sid"], "and its id is not adopted"
        server.cookies = cookies
        again = ask_until(server, lambda answer: bool(answer["pid"] == other["pid"]))
        assert again["stats"]["unknown_here"] == 2
        assert again["stats"]["foreign"] == 0
        for pid in (first["pid"], other["pid"]):
            mine = ask_until(server, lambda answer, pid=pid: bool(answer["pid"] == pid))  # type: ignore[misc]
            assert mine["writer"] == {first["pid"]: first, other["pid"]: other}[pid]["writer"]
    assert server.log.count("--workers") in {1, 2}, "one warning for each worker at the most"
    assert "Traceback" not in server.log


def test_a_proxy_that_gunicorn_does_not_trust_is_noticed_once(free_port: Callable[[], int], tmp_path: Path) -> None:
    """Cookies lose Secure without a word of the server, so we say it, and what to set; with trust nothing is lost."""
    port = free_port()
    arguments = ["gunicorn", "--bind", f"127.0.0.1:{port}", "tests.served:wsgi", "--forwarded-allow-ips"]
    with served([*arguments, "192.0.2.1"], port, tmp_path) as server:
        for _ in range(3):
            server.ask(**{"X-Forwarded-Proto": "https"})
        assert set(server.cookies) == {"sid", "sid_v"}
    assert server.log.count("SESSILE_SECURE=true") == 1
    with served([*arguments, "127.0.0.1"], port, tmp_path) as server:
        server.ask(**{"X-Forwarded-Proto": "https"})
        assert set(server.cookies) == {"__Host-sid", "__Host-sid_v"}
    assert "SESSILE_SECURE" not in server.log
