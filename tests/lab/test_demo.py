from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.errors import SettingsError
from sessile.lab.demo import ROUTINGS, DemoPlan
from tests.lab.waiting import wait_until

if TYPE_CHECKING:
    from tests.lab.running import RunningDemo


def test_a_strategy_that_there_is_not_is_one_clear_line() -> None:
    """It names the strategy and those there are."""
    with pytest.raises(SettingsError, match=r"--strategy paxos is not in this version yet.*: sticky, all-to-all"):
        DemoPlan("paxos")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"servers": 0}, "--servers 0"),
        ({"servers": 33}, "--servers 33"),
        ({"port": 0}, "--port 0"),
        ({"port": 65535}, "--port 65535"),
        ({"port": -1}, "--port -1"),
    ],
)
def test_a_number_out_of_range_is_named(options: dict[str, int], named: str) -> None:
    """Before anything is started."""
    with pytest.raises(SettingsError, match=named):
        DemoPlan(**options)  # type: ignore[arg-type]  # only the numbers


def test_the_dashboard_is_on_the_port_after_the_service() -> None:
    """As the demo contract says."""
    plan = DemoPlan(port=8080)
    assert (plan.url, plan.dashboard) == ("http://127.0.0.1:8080/", "http://127.0.0.1:8081/")
    assert plan.routing in ROUTINGS


def test_the_status_is_that_of_the_contract(demo: RunningDemo) -> None:
    """Everything by its name: outside checks read exactly these."""
    status = demo.status()
    assert (status["strategy"], status["routing"]) == ("sticky", "sticky")
    assert status["balancer"]["state"] == "ready"
    assert status["pid"] == demo.process.pid
    assert {"s1", "s2", "s3"} <= {one["name"] for one in status["servers"]}
    for server in status["servers"]:
        assert server["state"] == "ready"
        assert all(
            type(server[name]) is int
            for name in ("pid", "port", "sessions", "copies", "bytes", "bytes_sent", "bytes_received", "requests")
        )
    assert len({one["pid"] for one in status["servers"]}) == len(status["servers"])
    assert len({one["port"] for one in status["servers"]}) == len(status["servers"])


def test_every_user_stays_on_one_server_and_users_are_spread(demo: RunningDemo) -> None:
    """The point of it all: a cookie of the balancer, and sessions that are exact."""
    servers = set()
    for _ in range(6):
        with demo.browser() as browser:
            answers = [browser.post("/api/count?name=n").json() for _ in range(5)]
            answers += [browser.post("/api/increment?name=n").json() for _ in range(5)]
            assert answers[-1]["fields"] == {"n": 10}
            assert len({one["server"] for one in answers}) == 1
            assert len({one["key"] for one in answers}) == 1
            assert [one["new"] for one in answers] == [True, *[False] * 9]
            names = [cookie.name for cookie in browser.cookies.jar]
            assert all(str(demo.port) in name for name in names)
            assert any(name.startswith("affinity") for name in names)
        servers.add(answers[0]["server"])
    assert len(servers) == 3


def test_a_server_that_is_added_gets_users(demo: RunningDemo) -> None:
    """It is ready and known to the balancer when the answer comes; it is told of in the status."""
    before = {one["name"] for one in demo.status()["servers"]}
    answer = demo.add()
    assert answer.status_code == 201
    added = answer.json()
    assert added["state"] == "ready"
    assert {one["name"] for one in demo.status()["servers"]} == before | {added["name"]}

    def is_used() -> bool:
        with demo.browser() as browser:
            return bool(browser.post("/api/count?name=n").json()["server"] == added["name"])

    wait_until(is_used, "the new server got a user")


def test_both_pages_are_served(demo: RunningDemo) -> None:
    """With all their files, through the balancer and on the control port."""
    with demo.browser() as browser:
        for client, names in ((browser, ("demo.css", "demo.js")), (demo.control, ("dashboard.css", "dashboard.js"))):
            page = client.get("/")
            assert page.headers["content-type"].startswith("text/html")
            for name in (*names, "look.css", "dom.js", "mark.svg"):
                assert client.get(f"/static/{name}").status_code == 200


def test_what_is_the_supervisors_is_not_for_the_balancers_clients(demo: RunningDemo) -> None:
    """They do not know the token, and find nothing; the server goes on as it is."""
    with demo.browser() as browser:
        for method, path in (("GET", "status"), ("POST", "drain"), ("POST", "serve")):
            answer = browser.request(method, f"/_lab/{path}", headers={"X-Sessile-Lab": "guess"})
            assert answer.status_code == 404
    assert {one["state"] for one in demo.status()["servers"]} == {"ready"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-Sessile": "0"}, 403),
        ({"X-Sessile": "1", "Host": "evil.example"}, 403),
        ({"X-Sessile": "1", "Origin": "http://evil.example"}, 403),
        ({"X-Sessile": "1", "Origin": "null"}, 403),
        ({"X-Sessile": "1"}, 409),
    ],
)
def test_only_this_machine_and_this_page_may_act(demo: RunningDemo, headers: dict[str, str], status: int) -> None:
    """A refusal is JSON with the reason; the last one is let through and refused only for what it asks."""
    answer = demo.control.post("/api/servers/s1/resume", headers=headers)
    assert answer.status_code == status
    assert len(answer.json()["error"]) > 10
    assert demo.server("s1")["state"] == "ready"


def test_the_services_page_is_a_stranger_to_the_control_api(demo: RunningDemo) -> None:
    """It is another origin: a mistake in the demo's app is no way to kill servers."""
    origin = {"Origin": f"http://127.0.0.1:{demo.port}", "X-Sessile": "1"}
    assert demo.control.post("/api/servers/s1/resume", headers=origin).status_code == 403
    assert demo.control.get("/api/status", headers=origin).status_code == 403
    own = {"Origin": f"http://127.0.0.1:{demo.port + 1}", "X-Sessile": "1"}
    assert demo.control.post("/api/servers/s1/resume", headers=own).status_code == 409
