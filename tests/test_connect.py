"""From a URL to the other holders."""

from __future__ import annotations

import threading

import pytest

from sessile.engine import IDLE_SLACK, Engine
from sessile.network.cluster import Cluster
from tests.fakes import SECRET, FakeBackend, make_engine


@pytest.mark.parametrize("scheme", ["all-to-all", "primary-backup"])
def test_a_cluster_is_a_backend_and_starts_nothing(scheme: str) -> None:
    """Sessions are held a little longer where they may be used elsewhere."""
    threads = threading.active_count()
    engine = Engine(url=f"{scheme}://?members=127.0.0.1:7400,127.0.0.1:7401", secret=SECRET)
    assert isinstance(engine.backend, Cluster)
    assert engine.table._idle_slack == IDLE_SLACK
    assert threading.active_count() == threads


def test_alone_there_is_no_backend() -> None:
    """Nobody is asked, nobody is told."""
    assert make_engine().backend is None


def test_a_backend_that_is_given_counts() -> None:
    """Whatever the URL says."""
    backend = FakeBackend()
    assert make_engine(backend=backend).backend is backend
