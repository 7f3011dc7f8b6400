from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from sessile.engine import Engine
from sessile.lab.states import Phase
from sessile.lab.vitals import DRAIN_PATH, SERVE_PATH, STATUS_PATH, TOKEN_HEADER, Vitals
from tests.fakes import SECRET

TOKEN = "t" * 40


class Inner:
    """The app behind; it only notes what reaches it."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def vitals(inner: Inner) -> Vitals:
    made = Vitals(inner, Engine(url="sticky://", secret=SECRET), TOKEN)
    made.phase = Phase.READY
    return made


def asked(vitals: Vitals, method: str, path: str, *tokens: str) -> tuple[int, Any]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing here has a body")

    headers = [(TOKEN_HEADER.lower().encode(), token.encode()) for token in tokens]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(vitals(scope, receive, send))
    return messages[0]["status"], json.loads(messages[1]["body"])


@pytest.mark.parametrize(("phase", "status"), [(Phase.JOINING, 503), (Phase.READY, 200), (Phase.DRAINING, 503)])
def test_only_a_ready_server_is_healthy(vitals: Vitals, phase: Phase, status: int) -> None:
    """The balancer asks without a token, and is told why."""
    vitals.phase = phase
    assert asked(vitals, "GET", "/healthz") == (status, {"state": phase})


def test_draining_is_told_and_taken_back_by_the_supervisor(vitals: Vitals) -> None:
    """The answer is the new state."""
    status, figures = asked(vitals, "POST", DRAIN_PATH, TOKEN)
    assert (status, figures["phase"], vitals.phase) == (200, "draining", Phase.DRAINING)
    status, figures = asked(vitals, "POST", SERVE_PATH, TOKEN)
    assert (status, figures["phase"], vitals.phase) == (200, "ready", Phase.READY)


def test_the_figures_are_this_process_and_its_engine(vitals: Vitals) -> None:
    """Requests are those that reached the service, not health checks and not the supervisor's own."""
    asked(vitals, "GET", "/healthz")
    asked(vitals, "GET", "/api/session")
    status, figures = asked(vitals, "GET", STATUS_PATH, TOKEN)
    assert status == 200
    assert figures["pid"] == os.getpid()
    assert figures["requests"] == 1
    assert figures["stats"]["sessions"] == 0


@pytest.mark.parametrize("tokens", [(), ("wrong",), ("",), (TOKEN, TOKEN), (TOKEN + "x",)])
@pytest.mark.parametrize(("method", "path"), [("GET", STATUS_PATH), ("POST", DRAIN_PATH), ("POST", SERVE_PATH)])
def test_without_the_token_there_is_nothing(
    vitals: Vitals, inner: Inner, method: str, path: str, tokens: tuple[str, ...]
) -> None:
    """Such a request is the service's own to answer, which knows no such path; nothing changes."""
    vitals.phase = Phase.DRAINING
    assert asked(vitals, method, path, *tokens)[0] == 404
    assert inner.paths == [path]
    assert vitals.phase is Phase.DRAINING


def test_the_supervisor_is_told_of_no_other_path(vitals: Vitals, inner: Inner) -> None:
    """With the token, too, what does not exist is 404, and a state is not changed by a GET."""
    assert asked(vitals, "GET", DRAIN_PATH, TOKEN)[0] == 404
    assert asked(vitals, "GET", "/api/session", TOKEN)[0] == 404
    assert inner.paths == []
    assert vitals.phase is Phase.READY


def test_a_server_joins_serves_and_drains_with_its_lifespan(inner: Inner) -> None:
    """Before start-up is complete and once it is told to end, it is not healthy."""
    vitals = Vitals(inner, Engine(url="sticky://", secret=SECRET), TOKEN)
    phases = [vitals.phase]
    coming = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Any:
        return {"type": next(coming)}

    async def send(message: Any) -> None:
        phases.append(vitals.phase)

    asyncio.run(vitals({"type": "lifespan"}, receive, send))
    assert phases == [Phase.JOINING, Phase.READY, Phase.DRAINING]
    assert inner.paths == []
