"""The demo on a store: servers that share sessions, and a store whose primary may be killed."""

from __future__ import annotations

import pytest

from tests.lab.running import running
from tests.lab.waiting import wait_until


@pytest.mark.needs("redis-server")
def test_the_stores_primary_may_be_killed() -> None:
    """The session goes on at every server, exactly, and another primary takes over."""
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
