"""The demo on a store: servers that share sessions, and a store whose primary may be killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.cli import main
from tests.lab.running import running, told_at_start
from tests.lab.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.needs("redis-server")
def test_the_stores_primary_may_be_killed_and_all_of_it() -> None:
    """The session goes on, exactly, and another primary takes over. Without any, answers, dashboard and status say so."""
    with (
        running("--strategy", "store", "--servers", "2", "--routing", "round-robin") as demo,
        demo.browser() as browser,
    ):

        def count() -> int:
            answer = browser.post("/api/count?name=n")
            assert answer.status_code == 200, answer.text
            value: int = answer.json()["fields"]["n"]
            return value

        def primaries() -> int:
            return [each["role"] for each in demo.status()["store"]].count("primary")

        def is_settled() -> bool:
            views = [server["cluster"] for server in demo.status()["servers"]]
            return all(view["state"] == "ready" and not view["queued"] for view in views)

        assert {each["role"] for each in demo.status()["store"]} == {"primary", "replica", "sentinel"}
        assert demo.status()["remarks"] == []
        assert [count() for _ in range(4)] == [1, 2, 3, 4]
        assert demo.act("r1", "kill").status_code == 200
        wait_until(lambda: primaries() == 1, "another primary")
        wait_until(is_settled, "a store that is there")
        assert [count() for _ in range(4)] == [5, 6, 7, 8]

        asked = ["status", f"http://127.0.0.1:{demo.port + 1}"]
        wait_until(lambda: demo.status()["remarks"] == [], "both hear the store again")
        assert main(asked) == 0
        for each in demo.status()["store"]:
            if each["state"] != "dead":
                demo.act(each["name"], "kill")
        wait_until(lambda: all("alone" in browser.get("/api/session").json() for _ in range(4)), "both say so")
        assert browser.post("/api/count?name=n").json()["alone"] is True
        wait_until(
            lambda: "the store is not reached by s1 and s2: " in " ".join(demo.status()["remarks"]), "a sentence"
        )
        assert main(asked) == 1


@pytest.mark.needs("redis-server")
def test_its_processes_are_told_at_start() -> None:
    """Each with what it is: one may be killed by hand, too."""
    told = told_at_start("--strategy", "store", "--servers", "1")
    assert [told.count(f", {role}\n") for role in ("primary", "replica", "sentinel")] == [1, 2, 3]
    assert "Mind:" not in told


def test_without_a_redis_it_is_said_that_one_file_is_a_single_point_of_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the terminal and on the dashboard, with what would make it another one."""
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing is there
    assert "Mind: the store is one file, a single point of failure: " in told_at_start(
        "--strategy", "store", "--servers", "1"
    )
    with running("--strategy", "store", "--servers", "1") as demo:
        assert "single point of failure" in " ".join(demo.status()["remarks"])
