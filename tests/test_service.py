"""What lives on a loop and is asked from anywhere."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from sessile.blocking import running_loop
from sessile.errors import SettingsError
from sessile.service import Service
from tests.forked import bypassing_python, in_a_child

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Counted(Service):
    """Counts what happens to it."""

    def __init__(self, *, error: str = "") -> None:
        super().__init__()
        self.error = error
        self.steps: list[str] = []
        self.begins = 0

    async def begin(self) -> None:
        self.begins += 1
        await asyncio.sleep(0.01)
        if self.error:
            raise SettingsError(self.error)
        self.steps.append("began")

    async def end(self) -> None:
        self.steps.append("ended")

    def abandon(self) -> None:
        self.steps.append("abandoned")

    def forget(self) -> None:
        self.steps.append("forgotten")


async def where() -> str:
    return threading.current_thread().name


def asked(service: Service) -> Coroutine[None, None, str | None]:
    return service.ask(where, 1.0)


def test_whoever_starts_it_meanwhile_waits_for_the_same_start() -> None:
    """A hundred at once, and one more later: it begins once."""

    async def run() -> list[str]:
        service = Counted()
        await asyncio.gather(*(service.start() for _ in range(100)))
        await service.start()
        assert service.is_running
        await service.stop()
        await service.stop()
        assert not service.is_running
        return service.steps

    assert asyncio.run(run()) == ["began", "ended"]


def test_one_that_cannot_start_says_so_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """To everybody who asked, and to the next, without another attempt for a while; once it can, it does."""

    async def run() -> None:
        service = Counted(error="no port")
        told = await asyncio.gather(*(service.start() for _ in range(3)), return_exceptions=True)
        assert [str(each) for each in told] == ["no port"] * 3
        with pytest.raises(SettingsError, match="no port"):
            await service.start()
        assert service.begins == 1
        service.error = ""
        monkeypatch.setattr("sessile.service.RETRY_S", 0.0)
        await service.start()
        assert service.begins == 2
        assert service.is_running
        await service.stop()

    asyncio.run(run())


def test_who_gives_up_waiting_does_not_stop_the_start_of_others() -> None:
    """The first request is cancelled while it starts; the second is served."""

    async def run() -> None:
        service = Counted()
        first = asyncio.create_task(service.start())
        await asyncio.sleep(0)
        second = asyncio.create_task(service.start())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert service.steps == ["began"]
        await service.stop()

    asyncio.run(run())


def test_it_is_asked_where_it_lives() -> None:
    """From a thread, from another loop, and from its own."""
    service = Counted()
    service.start_in_thread()
    service.start_in_thread()
    coroutine = asked(service)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == "sessile-portal", "a thread without a loop waits, and needs none"
    assert asyncio.run(asked(service)) == "sessile-portal"
    service.stop_in_thread()
    assert service.steps == ["began", "ended"]
    assert asyncio.run(asked(service)) is None

    async def run() -> str | None:
        await service.start()
        answer = await asked(service)
        await service.stop()
        return answer

    assert asyncio.run(run()) == "MainThread"


def test_a_loop_that_was_closed_is_left_behind() -> None:
    """Nobody is asked there; the next start begins anew."""
    service = Counted()
    asyncio.run(service.start())
    assert not service.is_running
    assert asyncio.run(asked(service)) is None
    asyncio.run(service.start())
    assert service.steps == ["began", "abandoned", "began"]


def test_a_forked_child_has_none_of_it() -> None:
    """It starts its own; the parent's goes on."""
    service = Counted()
    service.start_in_thread()
    child = os.fork()
    if not child:
        is_right = not service.is_running and service.steps == ["began", "forgotten"]
        os._exit(0 if is_right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert service.is_running
    service.stop_in_thread()


def test_the_running_loop_is_that_of_this_thread() -> None:
    """None where there is none."""

    async def run() -> bool:
        return running_loop() is asyncio.get_running_loop()

    assert running_loop() is None
    assert asyncio.run(run())


@pytest.mark.parametrize("fork", [os.fork, bypassing_python], ids=["by Python", "in C"])
def test_a_child_that_has_used_nothing_ends_without_a_word_to_its_parents_loop(fork: Callable[[], int]) -> None:
    """What is called when a program ends finds nothing to stop there; and so is anything else that is asked."""
    service = Counted()
    service.start_in_thread()
    assert in_a_child(service.stop_in_thread, fork) == "None"
    assert in_a_child(lambda: (service.is_running, asyncio.run(asked(service))), fork) == "(False, None)"

    def starts() -> list[str]:
        service.start_in_thread()
        return service.steps

    assert in_a_child(starts, fork) == "['began', 'forgotten', 'began']"
    assert service.is_running
    service.stop_in_thread()
    assert service.steps == ["began", "ended"]
