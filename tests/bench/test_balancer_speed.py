"""The measurement of the balancer's speed."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import httptools
import pytest

from bench import balancer_speed, environments
from bench.balancer_speed import Sample
from bench.show import CannotShow
from bench.show import balancer_speed as promise

if TYPE_CHECKING:
    from pathlib import Path


def sample(name: str, number: int, rate: float, *, busy: float = 0.98, errors: int = 0) -> Sample:
    return Sample(name, number, rate, 1e6 / rate, busy, 0.5, errors)


def rounds(ours: list[float], theirs: list[float], *, busy: float = 0.98, errors: int = 0) -> list[Sample]:
    samples = []
    for number, (mine, peers) in enumerate(zip(ours, theirs, strict=True)):
        samples.append(sample("sessile", number, mine, busy=busy, errors=errors))
        samples += [sample(name, number, peers) for name in ("haproxy", "nginx")]
    return samples


def test_ratios_are_within_rounds() -> None:
    """A machine that slows down between rounds does not change the ratio."""
    found = balancer_speed.summary(rounds([9.0, 90.0, 900.0], [10.0, 100.0, 1000.0]))
    assert found["ratio haproxy"] == pytest.approx(0.9)
    assert found["haproxy requests/s"] == 100.0


@pytest.mark.parametrize(
    ("samples", "holds"),
    [
        (rounds([85.0] * 3, [100.0] * 3), True),
        (rounds([84.0] * 3, [100.0] * 3), False),
        (rounds([99.0] * 3, [100.0] * 3, errors=1), False),
        (rounds([99.0] * 3, [100.0] * 3, busy=0.5), False),
    ],
)
def test_the_verdict(samples: list[Sample], holds: bool) -> None:  # noqa: FBT001 - a table's column
    """Too slow, an error, or a balancer that was not the bottleneck: it does not hold."""
    assert promise.judged(balancer_speed.summary(samples)).holds is holds


def test_the_pure_balancer_stands_beside_the_compiled_one() -> None:
    """Where ours was compiled that one is judged, the pure one is only shown, and the notes say which is which."""
    samples = rounds([90.0] * 3, [100.0] * 3)
    pure = [sample(balancer_speed.PURE, number, 70.0) for number in range(3)]
    both = promise.judged(balancer_speed.summary(samples + pure))
    assert both.holds
    (shown,) = (figure for figure in both.figures if figure.name.endswith("pure Python"))
    assert shown.value == pytest.approx(0.7) and shown.holds is None
    assert promise.COMPILED in both.notes
    assert promise.NOT_COMPILED in promise.judged(balancer_speed.summary(samples)).notes


def test_a_wheel_is_compiled_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by default, and never for the tree itself: what is written is Python."""
    monkeypatch.syspath_prepend(str(environments.ROOT))
    hook = importlib.import_module("hatch_build")
    monkeypatch.delenv("SESSILE_COMPILE", raising=False)
    assert not hook.is_wanted()
    monkeypatch.setenv("SESSILE_COMPILE", "1")
    assert hook.is_wanted()
    monkeypatch.setattr(hook, "compile_into", None)
    hook.CompileBalancer.initialize(None, "editable", {})  # compiles nothing


def test_without_a_compiler_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What stood in the way, for the line that says why the wheel is pure."""
    monkeypatch.syspath_prepend(str(environments.ROOT))
    hook = importlib.import_module("hatch_build")
    monkeypatch.setattr(hook.sys, "executable", "/bin/false")
    with pytest.raises(OSError, match=r"^no reason given$"):
        hook.compile_into(tmp_path)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its peers the promise cannot be shown, and does not pass."""
    monkeypatch.setattr(balancer_speed, "PROGRAMS", ("no-such-program",))
    with pytest.raises(CannotShow, match="no-such-program"):
        promise.run(lambda _: None)


class Names:
    """Counts the fields that llhttp sees."""

    def __init__(self) -> None:
        self.count = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1


def test_the_heads_are_a_browsers_and_all_different() -> None:
    """2 048 well-formed heads of 16 fields, no two alike, each with one of the affinity cookies."""
    heads = balancer_speed.browser_heads(["affinity=a", "affinity=b", "affinity=c"])
    assert len(set(heads)) == len(heads) == balancer_speed.HEADS
    for head in heads[:50]:
        names = Names()
        httptools.HttpRequestParser(names).feed_data(head.encode())
        assert names.count == 16 and "affinity=" in head
    assert balancer_speed.lua(heads[:3]).count("GET /shop/") == 3


def test_cpu_is_counted() -> None:
    """Work shows in the CPU time of its process."""
    before = balancer_speed.cpu_s(os.getpid())
    while balancer_speed.cpu_s(os.getpid()) < before + 0.05:
        sum(range(10_000))
