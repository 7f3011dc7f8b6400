from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from sessile.dashboard.control import ACTIONS, Outcome, control_app

MARKED = {"X-Sessile": "1"}


class Recorder:
    """Something to control that does nothing but remember."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def status(self) -> dict[str, Any]:
        return {"strategy": "sticky", "servers": []}

    async def act(self, name: str, action: str) -> Outcome:
        self.done.append((name, action))
        return Outcome(409, {"error": "no"}) if name == "busy" else Outcome(200, {"name": name})

    async def add(self) -> Outcome:
        self.done.append(("add",))
        return Outcome(201, {"name": "s5"})


def asked(method: str, path: str, **options: Any) -> tuple[httpx2.Response, list[tuple[str, ...]]]:
    recorder = Recorder()

    async def main() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=control_app(recorder))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as client:
            return await client.request(method, path, **options)

    return asyncio.run(main()), recorder.done


def test_the_status_is_passed_on() -> None:
    """As JSON that nobody keeps."""
    answer, _ = asked("GET", "/api/status")
    assert answer.json() == {"strategy": "sticky", "servers": []}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_reaches_the_server_of_that_name(action: str) -> None:
    """Its outcome is the answer, whatever it is."""
    answer, done = asked("POST", f"/api/servers/s1/{action}", headers=MARKED)
    assert (answer.status_code, answer.json(), done) == (200, {"name": "s1"}, [("s1", action)])
    answer, done = asked("POST", f"/api/servers/busy/{action}", headers=MARKED)
    assert (answer.status_code, answer.json(), done) == (409, {"error": "no"}, [("busy", action)])


def test_adding_a_server_is_asked_for_at_the_list() -> None:
    """201 when it was made."""
    answer, done = asked("POST", "/api/servers", headers=MARKED)
    assert (answer.status_code, done) == (201, [("add",)])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/servers/s1/explode", 404),
        ("POST", "/api/nothing", 404),
        ("GET", "/static/nothing.js", 404),
        ("GET", "/static/demo.html", 404),
        ("GET", "/nothing", 404),
        ("GET", "/api/servers/s1/kill", 405),
        ("GET", "/api/servers", 405),
        ("DELETE", "/api/servers", 405),
        ("POST", "/api/status", 405),
    ],
)
def test_what_there_is_not_is_told_as_json(method: str, path: str, status: int) -> None:
    """And nothing is done."""
    answer, done = asked(method, path, headers=MARKED)
    assert (answer.status_code, list(answer.json()), done) == (status, ["error"], [])


@pytest.mark.parametrize(
    "headers", [{}, {**MARKED, "Host": "evil.example"}, {**MARKED, "Origin": "http://evil.example"}]
)
@pytest.mark.parametrize("path", ["/api/servers/s1/kill", "/api/servers"])
def test_the_guard_stands_before_everything(headers: dict[str, str], path: str) -> None:
    """A refused request does nothing; it is told why."""
    answer, done = asked("POST", path, headers=headers)
    assert (answer.status_code, list(answer.json()), done) == (403, ["error"], [])


def test_the_page_is_guarded_too() -> None:
    """A rebound name gets to see nothing."""
    assert asked("GET", "/")[0].status_code == 200
    assert asked("GET", "/", headers={"Host": "evil.example"})[0].status_code == 403
