"""What `make show NAME=redis-cluster` promises, on real processes; its judge is the one of `sentinel`."""

from __future__ import annotations

import pytest

from bench.show import redis_cluster


@pytest.mark.needs("redis-server")
def test_the_promise_holds_for_a_few_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it, smaller: a master is killed, its replica takes over, and it comes back."""
    monkeypatch.setattr(redis_cluster, "USERS", 9)
    monkeypatch.setattr(redis_cluster, "SERVERS", 2)
    monkeypatch.setattr(redis_cluster, "BEFORE_S", 1.0)
    monkeypatch.setattr(redis_cluster, "DEAD_S", 5.0)
    monkeypatch.setattr(redis_cluster, "AFTER_S", 2.0)
    shown = redis_cluster.run(lambda _: None)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert any(figure.name == "master killed: failovers" and figure.value == 1 for figure in shown.figures)
