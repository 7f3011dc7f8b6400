"""Changes on their way to a store: in order, and together where they wait."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from sessile.stores.lines import AT_ONCE, Lines, each

if TYPE_CHECKING:
    from sessile.token import SessionKey

KEY, OTHER = b"k" * 16, b"o" * 16


class Sent:
    """What was sent, and a gate for what is on its way."""

    def __init__(self) -> None:
        self.batches: list[tuple[SessionKey, list[Any], str]] = []
        self.gate = asyncio.Event()
        self.is_there = True

    async def send(self, key: SessionKey, changes: list[Any], ack: str) -> bool:
        self.batches.append((key, changes, ack))
        await self.gate.wait()
        return self.is_there


def test_what_waits_goes_together() -> None:
    """One is on its way; those that come meanwhile are one batch, with the strongest acknowledgement asked for."""

    async def run() -> None:
        sent = Sent()
        lines = Lines(sent.send)
        changes: list[Any] = [object() for _ in range(4)]
        first = lines.add(KEY, changes[0], "none")
        await asyncio.sleep(0)
        others = [lines.add(KEY, change, ack) for change, ack in zip(changes[1:], ("none", "all", "one"), strict=True)]
        elsewhere = lines.add(OTHER, changes[0], "one")
        await asyncio.sleep(0)
        assert sent.batches == [(KEY, changes[:1], "none"), (OTHER, changes[:1], "one")]
        assert (len(lines), KEY in lines, lines.last(KEY)) == (2, True, others[0])
        sent.gate.set()
        assert await asyncio.gather(first, *others, elsewhere) == [True] * 5
        await lines.idle()
        assert sent.batches[2:] == [(KEY, changes[1:], "all")]
        assert (len(lines), KEY in lines, lines.last(KEY)) == (0, False, None)

    asyncio.run(run())


def test_whoever_waits_for_what_is_on_its_way_sends_nothing() -> None:
    """`last` is the arrival of what was sent; without anything there is none."""

    async def run() -> None:
        sent = Sent()
        sent.is_there = False
        lines = Lines(sent.send)
        assert lines.last(KEY) is None
        arriving = lines.add(KEY, None, "one")
        await asyncio.sleep(0)
        assert lines.last(KEY) is arriving
        sent.gate.set()
        assert await arriving is False
        assert sent.batches == [(KEY, [], "one")]

    asyncio.run(run())


def test_idle_is_when_everything_has_arrived() -> None:
    """Whoever stops waits for it, and for what was added meanwhile."""

    async def run() -> None:
        sent = Sent()
        lines = Lines(sent.send)
        lines.add(KEY, None, "one")
        idle = asyncio.create_task(lines.idle())
        await asyncio.sleep(0)
        later = lines.add(KEY, None, "one")
        await asyncio.sleep(0)
        assert not idle.done()
        sent.gate.set()
        await idle
        assert later.done() and len(lines) == 0

    asyncio.run(run())


def test_what_is_given_up_on_its_way_has_not_arrived() -> None:
    """The server stops in the middle: whoever waits for a change is not told that it is confirmed."""

    async def run() -> None:
        sent = Sent()
        lines = Lines(sent.send)
        arrival = lines.add(KEY, None, "one")
        await asyncio.sleep(0)
        lines._moving[KEY].cancel()
        assert await arrival is False
        await lines.idle()

    asyncio.run(run())


def test_each_is_done_a_few_at_a_time() -> None:
    """Every one once, and never more than so many at once."""

    async def run() -> None:
        done: list[bytes] = []
        under_way = most = 0

        async def do(key: bytes) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            done.append(key)

        keys = [bytes([number]) for number in range(100)]
        await each(keys, do)
        assert sorted(done) == keys and most == AT_ONCE

    asyncio.run(run())


def test_the_strongest_acknowledgement_counts_in_whatever_order() -> None:
    """Of those that wait for one batch."""
    acks = ("none", "one", "all")

    async def run() -> None:
        for one, other in itertools.product(acks, repeat=2):
            sent = Sent()
            sent.gate.set()
            lines = Lines(sent.send)
            lines.add(KEY, None, one)
            await lines.add(KEY, None, other)
            assert [ack for _, _, ack in sent.batches] == [max(one, other, key=acks.index)]
            await lines.idle()

    asyncio.run(run())
