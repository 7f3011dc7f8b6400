"""The browsers of a history."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest

from bench.browser import Browser
from bench.history import users as users_module
from bench.history.operations import Verb
from bench.history.users import Recorder, User

REQUESTS = 400


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What two users did, with a server that answers at once and gives everybody the same session."""

    async def ask(browser: Browser, method: str, path: str) -> tuple[int, Any]:
        assert method in {"GET", "POST"}
        await asyncio.sleep(0)
        browser.given = {}
        if not browser.cookies and method == "POST":
            browser.given = {b"sid": b"1", b"sid_v": b"2"}
        if path.startswith("/api/logout"):
            browser.given = {b"sid": b""}
            browser.cookies.clear()
        browser.cookies.update({name: value for name, value in browser.given.items() if value})
        return 200, {"fields": {"a": 1}}

    monkeypatch.setattr(Browser, "ask", ask)
    monkeypatch.setattr(users_module, "THINK_S", 0.0)
    recorder = Recorder()

    async def play() -> None:
        users = [User(recorder, 80, (81, 82), Random(number)) for number in range(2)]
        await asyncio.gather(*(user.go_on(lambda: recorder.issued < REQUESTS) for user in users))

    asyncio.run(play())
    return recorder


def test_everything_that_is_asked_is_recorded(recorder: Recorder) -> None:
    """Once, with the cookies it was sent with and those that its answer set; values are of that request only."""
    operations = recorder.operations
    assert len(operations) == recorder.issued >= REQUESTS
    assert len({operation.number for operation in operations}) == len(operations)
    assert {operation.verb for operation in operations} == set(Verb)
    assert len({operation.value for operation in operations}) == len(operations)
    assert all(operation.status == 200 and operation.told for operation in operations)
    assert any(operation.given.get(b"sid") for operation in operations)
    assert all(operation.answered_ms >= operation.sent_ms >= 0 for operation in operations)


def test_nobody_without_a_session_reads_or_ends_one(recorder: Recorder) -> None:
    """And whoever has one uses it in many ways, several at a time too."""
    beginnings = {operation.verb for operation in recorder.operations if not operation.cookies}
    assert beginnings
    assert beginnings <= {Verb.SET, Verb.COUNT, Verb.INCREMENT, Verb.LOGIN}
    verbs = Counter(operation.verb for operation in recorder.operations)
    assert min(verbs.values()) > 3
    assert max(verbs, key=lambda verb: verbs[verb]) in {Verb.READ, Verb.INCREMENT}


def test_a_session_with_many_traces_is_logged_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session holds no more than 256 fields."""

    async def ask(browser: Browser, method: str, path: str) -> tuple[int, Any]:
        del method, path
        browser.cookies[b"sid"] = b"1"
        return 200, {"fields": dict.fromkeys(map(str, range(users_module.FIELDS_MAX + 1)))}

    monkeypatch.setattr(Browser, "ask", ask)
    monkeypatch.setattr(users_module, "THINK_S", 0.0)
    monkeypatch.setattr(users_module, "BURST_CHANCE", 0.0)
    monkeypatch.setattr(users_module, "REPLAY_CHANCE", 0.0)
    recorder = Recorder()
    asyncio.run(User(recorder, 80, (81,), Random(0)).go_on(lambda: recorder.issued < 5))
    assert {operation.verb for operation in recorder.operations[1:]} == {Verb.LOGOUT}
