from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.running import RunningDemo, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def started_demo() -> Iterator[RunningDemo]:
    with running("--servers", "3") as started:
        yield started


@pytest.fixture
def demo(started_demo: RunningDemo) -> RunningDemo:
    """A demo of three servers, shared by these tests; each finds all of them ready."""
    started_demo.mend()
    return started_demo
