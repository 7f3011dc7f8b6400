"""A demo whose servers hold sessions for each other: used, drained, restarted, killed and grown while users work."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.running import RunningDemo, running
from tests.lab.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2

ROLES = {"all-to-all": ["backup", "backup", "primary"], "primary-backup": ["backup", "primary", "proxy"]}
USERS = 12


@pytest.fixture(scope="module", params=list(ROLES))
def started(request: pytest.FixtureRequest) -> Iterator[RunningDemo]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SESSILE_DRAIN_GRACE", "0.7s")  # long enough for the balancer to notice
        with running("--servers", "3", "--strategy", request.param, "--routing", "round-robin") as demo:
            yield demo


@pytest.fixture
def cluster(started: RunningDemo) -> RunningDemo:
    """Three servers or more that are ready and see each other alive, whatever a test before did to them."""
    started.mend()
    wait_until(lambda: started.status()["remarks"] == [], "all see each other alive")
    return started


class Users:
    """Some who have counted, and come back later."""

    def __init__(self, demo: RunningDemo) -> None:
        self.demo = demo
        self.browsers: list[httpx2.Client] = [demo.browser() for _ in range(USERS)]
        self.counts = [0] * USERS

    def count(self) -> set[str]:
        """Each counts once more, and is shown what must be by now; who answered."""
        servers = set()
        for place, browser in enumerate(self.browsers):
            self.counts[place] += 1
            answer = browser.post("/api/count?name=n")
            assert answer.status_code == 200, answer.text
            assert answer.json()["fields"] == {"n": self.counts[place]}
            servers.add(str(answer.json()["server"]))
        return servers

    def work_while(self, act: Callable[[], Any]) -> Any:
        """Count for as long as it takes, and to the end of a round; what it returned."""
        done: list[Any] = []
        acting = threading.Thread(target=lambda: done.append(act()))
        acting.start()
        try:
            while acting.is_alive():
                self.count()
        finally:
            acting.join()
        return done[0]


@pytest.fixture
def users(cluster: RunningDemo) -> Iterator[Users]:
    made = Users(cluster)
    made.count()
    yield made
    for browser in made.browsers:
        browser.close()


def test_every_server_answers_and_says_what_it_is_to_the_session(cluster: RunningDemo) -> None:
    """In turns, exactly; the roles are those of the strategy."""
    with cluster.browser() as browser:
        answers = [browser.post("/api/count?name=n").json() for _ in range(2 * len(cluster.status()["servers"]))]
    assert [one["fields"]["n"] for one in answers] == list(range(1, len(answers) + 1))
    assert len({one["key"] for one in answers}) == 1
    roles = {one["server"]: one["role"] for one in answers}
    assert sorted(roles.values()) == ROLES[cluster.status()["strategy"]]


def test_the_status_tells_whose_every_session_is(cluster: RunningDemo, users: Users) -> None:
    """Of each there is one primary; distinct sessions are told as such, copies beside them; traffic and lag are there."""
    del users

    def is_told() -> bool:
        status = cluster.status()
        primaries = sum(server["cluster"]["primary"] for server in status["servers"])
        return bool(status["totals"]["sessions"] == primaries >= USERS)

    wait_until(is_told, "as many primaries as sessions")
    status = cluster.status()
    for server in status["servers"]:
        assert set(server["sees"]) == {other["name"] for other in status["servers"]} - {server["name"]}
        assert set(server["sees"].values()) == {"alive"}
        assert server["bytes_sent"] > 0 < server["bytes_received"]
        assert server["copies"] == server["cluster"]["backup"] + server["cluster"]["other"]
    assert status["totals"]["lag_ms"] > 0
    is_listed = status["strategy"] == "primary-backup"
    assert status["totals"]["directory"] == (status["totals"]["sessions"] if is_listed else None)


def test_a_draining_server_is_spared_and_still_holds(cluster: RunningDemo, users: Users) -> None:
    """The balancer sends nobody there; it stays a member and keeps its sessions; `resume` takes it back."""
    held = cluster.server("s1")["sessions"]
    assert users.work_while(lambda: cluster.act("s1", "drain")).json()["state"] == "draining"
    wait_until(lambda: cluster.server("s1")["balancer_sees"] == "draining", "the balancer has noticed")
    assert users.count() == {one["name"] for one in cluster.status()["servers"]} - {"s1"}
    assert (cluster.server("s1")["state"], cluster.status()["remarks"]) == ("draining", [])
    assert cluster.server("s1")["sessions"] >= held
    assert cluster.act("s1", "resume").json()["state"] == "ready"
    wait_until(lambda: "s1" in users.count(), "it is asked again")


def test_a_restarted_server_comes_back_to_its_share(cluster: RunningDemo, users: Users) -> None:
    """Nobody notices, nothing is lost; the new process holds again what is its to hold."""
    before = cluster.server("s2")
    answer = users.work_while(lambda: cluster.act("s2", "restart"))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["state"], answer.json()["starts"]) == ("ready", before["starts"] + 1)
    share = before["cluster"]["primary"] + before["cluster"]["backup"]

    def is_back() -> bool:
        roles = cluster.server("s2")["cluster"]
        return bool(share and roles["primary"] + roles["backup"] >= share)

    wait_until(is_back, "it holds its share")
    wait_until(lambda: cluster.status()["remarks"] == [], "all see each other alive")
    users.count()


def test_a_killed_server_is_seen_dead_and_takes_nothing_along(cluster: RunningDemo, users: Users) -> None:
    """All others are of one mind; its users go on; restarted, it is seen alive again."""
    users.count()
    cluster.act("s3", "kill")
    wait_until(
        lambda: all(server["sees"].get("s3") == "dead" for server in cluster.status()["servers"] if server["sees"]),
        "the others see it dead",
    )
    assert cluster.server("s3")["sees"] == {}
    assert cluster.status()["remarks"] == [
        "s3 is seen as dead by " + ("all others" if is_grown(cluster) else "s1 and s2")
    ]
    wait_until(lambda: cluster.server("s3")["balancer_sees"] == "down", "the balancer has noticed")
    users.count()
    assert cluster.act("s3", "restart").json()["state"] == "ready"
    wait_until(lambda: cluster.status()["remarks"] == [], "all see each other alive")
    users.count()


def test_a_paused_server_is_missed_and_taken_back(cluster: RunningDemo, users: Users) -> None:
    """Its view of the others is then the last one it told, and no view any more."""
    cluster.act("s1", "pause")
    wait_until(lambda: cluster.server("s2")["sees"]["s1"] == "dead", "s2 sees it dead")
    assert set(cluster.server("s1")["sees"].values()) == {"alive"}
    wait_until(lambda: cluster.server("s1")["balancer_sees"] == "down", "the balancer has noticed")
    users.count()
    assert cluster.act("s1", "resume").json()["state"] == "ready"
    wait_until(lambda: cluster.status()["remarks"] == [], "all see each other alive")
    wait_until(lambda: cluster.server("s1")["balancer_sees"] == "up", "the balancer uses it again")
    users.count()


def test_a_server_added_while_users_work_takes_its_share(cluster: RunningDemo, users: Users) -> None:
    """Nobody notices; it is met by all, asked by the balancer, and holds sessions that began before it."""
    answer = users.work_while(cluster.add)
    assert answer.status_code == 201, answer.text
    name = answer.json()["name"]

    def has_share() -> bool:
        roles = cluster.server(name)["cluster"]
        return bool(roles["primary"] + roles["backup"] > 0)

    wait_until(has_share, "it holds some")
    wait_until(
        lambda: all(
            one["sees"].get(name, "alive" if one["name"] == name else "") == "alive"
            for one in cluster.status()["servers"]
        ),
        "all see it alive",
    )
    wait_until(lambda: name in users.count(), "it is asked")


def is_grown(demo: RunningDemo) -> bool:
    """Whether there are more servers than it began with."""
    return len(demo.status()["servers"]) > 3
