"""The stand-ins themselves: a test can only be as right as what it is played on."""

from __future__ import annotations

import asyncio

import pytest

from sessile.backend import Acknowledged, Change, Ended, PullStatus, Whole
from sessile.delta import Delta, Outcome
from sessile.record import ENDED, LIVE, Record
from tests.fakes import HERE, KEY, FakeBackend, FakeBrowser, FakeClock, encoded, make_engine, make_record, nobody


def pull_status(backend: FakeBackend, have: Record | None = None) -> PullStatus:
    return asyncio.run(backend.pull(KEY, have, ())).status


def push(backend: FakeBackend, change: Change | None, ack: str = "one") -> Acknowledged:
    return asyncio.run(backend.push(KEY, change, ack))


def test_the_clock_passes_only_when_told() -> None:
    """Time stands still between two calls, and never goes back."""
    clock = FakeClock(5_000)
    assert (clock(), clock()) == (5_000, 5_000)
    clock.advance(1.5)
    assert clock() == 6_500
    with pytest.raises(AssertionError):
        clock.advance(-1)


def test_the_backend_answers_by_what_it_holds() -> None:
    """Nothing, a newer record, the same one and silence are four different answers."""
    backend = FakeBackend()
    record = make_record({"a": 1})
    assert pull_status(backend) is PullStatus.NONE
    backend.records[KEY] = record
    assert asyncio.run(backend.pull(KEY, None, record.heads)).record == record
    assert pull_status(backend, record) is PullStatus.CURRENT
    older = Record.create(now_ms=0, idle_ms=1_000, deadline_ms=10_000)
    assert pull_status(backend, older) is PullStatus.RECORD
    backend.is_reachable = False
    assert pull_status(backend, record) is PullStatus.UNREACHABLE
    assert [have for _, have, _ in backend.pulls] == [None, None, record, older, record]


def test_the_backend_applies_what_it_is_told_by_the_rules_of_a_holder() -> None:
    """A delta needs its base; a whole record is merged; an end stays."""
    backend = FakeBackend()
    record = make_record({"a": 1})
    after, stamp = record.write(HERE, encoded(b=2), now_ms=1)
    delta = Delta.of(after, KEY, record, stamp, names=["b"], counted=())
    assert push(backend, delta) is Acknowledged.NO
    assert push(backend, Whole(KEY, record)) is Acknowledged.YES
    assert push(backend, delta, "all") is Acknowledged.YES
    assert backend.outcomes == [Outcome.NEED, Outcome.APPLIED]
    assert backend.records[KEY].same_state(after)
    push(backend, Ended(KEY, record.end(ENDED, 2)))
    push(backend, Whole(KEY, record))
    assert backend.records[KEY].state == ENDED
    assert [ack for _, ack in backend.pushes] == ["one", "one", "all", "one", "one"]


def test_the_backend_loses_and_keeps_silent_when_told_to() -> None:
    """A lost change never arrives; one that is not confirmed has arrived all the same."""
    backend = FakeBackend(lose=1)
    change = Whole(KEY, make_record({}))
    assert push(backend, change) is Acknowledged.NO
    assert not backend.records
    backend.is_confirming = False
    assert push(backend, change) is Acknowledged.NO
    assert backend.records[KEY].state == LIVE


def test_the_backend_is_unsettled_until_it_confirms() -> None:
    """A wait without a change is written down and loses nothing; once it is confirmed the session is settled."""
    backend = FakeBackend(lose=1, unsettled={KEY}, is_confirming=False)
    assert push(backend, None) is Acknowledged.NO
    assert not backend.is_settled(KEY)
    backend.is_confirming = True
    backend.is_reachable = False
    assert push(backend, None) is Acknowledged.NO
    assert not backend.is_settled(KEY)
    backend.is_reachable = True
    assert push(backend, None, "all") is Acknowledged.YES
    assert backend.is_settled(KEY)
    assert (backend.waits, backend.pushes, backend.lose) == ([(KEY, "one"), (KEY, "one"), (KEY, "all")], [], 1)


def test_the_backend_is_sure_of_what_it_hears_of() -> None:
    """A holder that does not hear of changes is not, and a server that is no holder never is."""
    assert FakeBackend().is_sure(KEY, 0)
    assert not FakeBackend(is_informed=False).is_sure(KEY, 0)
    assert not FakeBackend(is_holder=nobody).is_sure(KEY, 0)


def test_an_end_is_remembered_where_nothing_was_held() -> None:
    """What arrives after it does not live again."""
    backend = FakeBackend()
    push(backend, Ended(KEY, make_record({}).end(ENDED, 0)))
    push(backend, Whole(KEY, make_record({"a": 1})))
    assert backend.records[KEY].state == ENDED


def test_the_backend_waits_at_its_gate() -> None:
    """With a gate set, no answer comes before it is opened."""

    async def play() -> None:
        backend = FakeBackend(gate=asyncio.Event())
        asked = asyncio.create_task(backend.pull(KEY, None, ()))
        told = asyncio.create_task(backend.push(KEY, Whole(KEY, make_record({})), "one"))
        waiting = asyncio.create_task(backend.push(KEY, None, "one"))
        await asyncio.sleep(0)
        assert (len(backend.pulls), len(backend.pushes), len(backend.waits)) == (1, 1, 1)
        assert not any(task.done() for task in (asked, told, waiting))
        assert backend.gate is not None
        backend.gate.set()
        assert (await told) is (await waiting) is Acknowledged.YES
        assert (await asked).status in {PullStatus.NONE, PullStatus.RECORD}

    asyncio.run(play())


def test_the_browser_keeps_replaces_and_forgets_cookies() -> None:
    """A Set-Cookie replaces the one of its name, and `Max-Age=0` removes it."""
    browser = FakeBrowser(make_engine())
    browser.keep([b"sid=one; Path=/", b"sid_v=two; Path=/"])
    other = browser.copy()
    browser.keep([b"sid=three; Path=/", b"sid_v=; Max-Age=0; Path=/"])
    assert browser.header == b"sid=three"
    assert other.header == b"sid=one; sid_v=two"


def test_the_engine_of_a_seed_draws_the_same() -> None:
    """What a failing test drew, it draws again."""
    assert make_engine(seed=3).writer == make_engine(seed=3).writer != make_engine(seed=4).writer
