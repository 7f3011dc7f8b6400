"""Servers as the control API shows and moves them, on a demo that runs."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from sessile.errors import SessileError
from sessile.lab.fleet import Fleet, FleetPlan
from tests.lab.waiting import is_running, wait_until

if TYPE_CHECKING:
    import httpx2

    from tests.lab.running import RunningDemo


def holder_of(browser: httpx2.Client) -> str:
    """Begin a session; returns the name of the server that holds it."""
    return str(browser.post("/api/count?name=n").json()["server"])


def test_killing_a_server_takes_its_process_and_its_sessions(demo: RunningDemo) -> None:
    """Its user is somebody new on another server; a restart brings it back empty, on its port, as another process."""
    with demo.browser() as browser:
        name = holder_of(browser)
        before = demo.server(name)
        answer = demo.act(name, "kill")
        assert answer.status_code == 200
        assert (answer.json()["state"], answer.json()["pid"], answer.json()["sessions"]) == ("dead", None, 0)
        assert answer.json()["detail"] == "ended by SIGKILL"
        assert not is_running(before["pid"])
        after = browser.post("/api/count?name=n").json()
        assert after["server"] != name
        assert (after["new"], after["fields"]) == (True, {"n": 1})
    again = demo.act(name, "restart").json()
    assert (again["state"], again["port"], again["starts"]) == ("ready", before["port"], before["starts"] + 1)
    assert again["pid"] != before["pid"]
    assert demo.server(name)["sessions"] == 0


def test_a_server_killed_from_outside_is_seen_dead(demo: RunningDemo) -> None:
    """Nobody asked the control API."""
    os.kill(demo.server("s2")["pid"], signal.SIGKILL)
    wait_until(lambda: demo.server("s2")["state"] == "dead", "s2 is dead")
    wait_until(lambda: demo.server("s2")["balancer_sees"] == "down", "the balancer has noticed")


def test_a_paused_server_forgets_nothing(demo: RunningDemo) -> None:
    """Its users are served elsewhere while it is paused, and find what it knows when they come back to it."""
    with demo.browser() as browser:
        name = holder_of(browser)
        assert demo.act(name, "pause").json()["state"] == "paused"
        assert demo.server(name)["sessions"] >= 1
        assert demo.act(name, "resume").json()["state"] == "ready"
        wait_until(lambda: demo.server(name)["balancer_sees"] == "up", "the balancer uses it again")
        after = browser.get("/api/session").json()
        assert (after["server"], after["fields"]) == (name, {"n": 1})


def test_a_server_stopped_from_outside_is_seen_paused(demo: RunningDemo) -> None:
    """The state is the kernel's word, whoever sent SIGSTOP; and so it is with SIGCONT."""
    pid = demo.server("s3")["pid"]
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: demo.server("s3")["state"] == "paused", "s3 is paused")
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: demo.server("s3")["state"] == "ready", "s3 is ready")


def test_a_draining_server_keeps_its_users_and_gets_no_new_ones(demo: RunningDemo) -> None:
    """It answers health checks with 503 and everything else as before; `resume` takes it back."""
    with demo.browser() as browser:
        name = holder_of(browser)
        assert demo.act(name, "drain").json()["state"] == "draining"
        wait_until(lambda: demo.server(name)["balancer_sees"] == "draining", "the balancer has noticed")
        kept = browser.post("/api/count?name=n").json()
        assert (kept["server"], kept["fields"]) == (name, {"n": 2})
        for _ in range(6):
            with demo.browser() as stranger:
                assert holder_of(stranger) != name
        assert demo.act(name, "resume").json()["state"] == "ready"


def test_a_live_server_is_restarted_in_good_order(demo: RunningDemo) -> None:
    """A paused one, too: it goes on, ends, and another process has its port."""
    before = demo.server("s1")
    demo.act("s1", "pause")
    after = demo.act("s1", "restart").json()
    assert (after["state"], after["port"]) == ("ready", before["port"])
    assert not is_running(before["pid"])


def test_an_action_that_makes_no_sense_is_409_with_a_sentence(demo: RunningDemo) -> None:
    """And changes nothing."""
    for state, actions in (
        ("ready", ("resume",)),
        ("draining", ("drain",)),
        ("paused", ("drain", "pause")),
        ("dead", ("kill", "pause", "resume", "drain")),
    ):
        first_step = {"draining": "drain", "paused": "pause", "dead": "kill"}.get(state)
        if first_step:
            assert demo.act("s1", first_step).json()["state"] == state
        for action in actions:
            answer = demo.act("s1", action)
            assert answer.status_code == 409
            assert answer.json()["error"].startswith(f"s1 is {state}")
            assert demo.server("s1")["state"] == state


def test_an_unknown_server_is_404(demo: RunningDemo) -> None:
    """With the names there are."""
    answer = demo.act("s99", "kill")
    assert answer.status_code == 404
    assert "s1, s2, s3" in answer.json()["error"]


def test_what_is_reported_is_what_was_done(demo: RunningDemo) -> None:
    """Sessions and requests of a server grow by those it was given."""
    before = {one["name"]: (one["sessions"], one["requests"]) for one in demo.status()["servers"]}
    with demo.browser() as browser:
        name = holder_of(browser)
        for _ in range(4):
            browser.get("/api/session")
    sessions, requests = before[name]
    wait_until(
        lambda: (demo.server(name)["sessions"], demo.server(name)["requests"]) == (sessions + 1, requests + 5),
        "one session and five requests more",
    )
    assert demo.server(name)["bytes"] > 0


def test_a_server_that_does_not_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are ended with it by `stop`, and the error is one line with its last words."""
    plan = FleetPlan(20_000, "sticky", "sticky", "short", "t" * 32, "http://127.0.0.1:20001/")

    async def main() -> None:
        fleet = Fleet(plan, lambda _: None)
        with pytest.raises(SessileError, match=r"server s[12] did not start: .*secret") as raised:
            await fleet.start(2)
        assert "\n" not in str(raised.value)
        await fleet.stop()
        for member in fleet.members.values():
            assert member.child is None or not is_running(member.child.pid)

    asyncio.run(main())
