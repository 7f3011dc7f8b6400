"""What a forked child forgets: once, in order, whatever forks and whatever fails; and that it disturbs nobody by it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from sessile import forks
from sessile.forks import call_after_fork, cut_off, cut_off_transport, keep_forever, notice_fork, taken
from sessile.network import tls
from tests.forked import DEADLINE_S, Child, bypassing_python, in_a_child

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT_S = 60.0


class Told:
    """Notes that it was told, and whether a fork has held it."""

    def __init__(self, steps: list[str] | None = None, name: str = "") -> None:
        self.times = 0
        self.steps = [] if steps is None else steps
        self.name = name

    def after_fork(self) -> None:
        self.times += 1
        self.steps.append(f"{self.name} forgets")

    def fails(self) -> None:
        self.steps.append(f"{self.name} fails")
        raise RuntimeError(self.name)

    def before_fork(self) -> Callable[[], None]:
        self.steps.append(f"{self.name} is held")
        return lambda: self.steps.append(f"{self.name} goes on")


# -- who is told -------------------------------------------------------------------------------------------------------


def test_a_child_is_told_and_its_parent_is_not() -> None:
    """Once in each child, however many there are, and once more in a child's child."""
    told = Told()
    call_after_fork(told.after_fork)
    assert [in_a_child(lambda: told.times) for _ in range(2)] == ["1", "1"]
    assert in_a_child(lambda: (told.times, in_a_child(lambda: told.times))) == "(1, '2')"
    assert told.times == 0


def test_a_hook_keeps_nobody_alive_and_leaves_nothing_behind() -> None:
    """An object is gone when its users let go of it; a thousand of them cost a later fork nothing."""
    gc.collect()
    before = forks._registry.size
    there = Told()
    many = [Told() for _ in range(1_000)]
    for told in (*many, there):
        call_after_fork(told.after_fork, before=told.before_fork)
    find = weakref.ref(many[0])
    assert forks._registry.size == before + 1_001
    del many, told
    gc.collect()
    assert find() is None
    assert forks._registry.size == before + 1
    assert in_a_child(lambda: there.times) == "1"


def test_the_order_is_that_of_registration_and_one_failure_keeps_no_other_from_forgetting() -> None:
    """It is reported as Python reports what a hook raises, and the fork goes on."""
    steps: list[str] = []
    objects = [Told(steps, name) for name in "abc"]
    for told in objects:
        call_after_fork(told.fails if told.name == "b" else told.after_fork, before=told.before_fork)
    held = ["a is held", "b is held", "c is held"]
    said = in_a_child(lambda: steps)
    assert said == repr([*held, "a forgets", "b fails", "c forgets"])
    assert steps == [*held, "c goes on", "b goes on", "a goes on"]


def test_a_fork_that_bypasses_python_is_noticed_at_first_use() -> None:
    """Once, by whoever comes first; and noticing costs the parent nothing."""
    told = Told()
    call_after_fork(told.after_fork)

    def work() -> list[int]:
        times = [told.times]
        threads = [threading.Thread(target=notice_fork) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        notice_fork()
        return [*times, told.times]

    assert in_a_child(work, bypassing_python) == "[0, 1]"
    notice_fork()
    assert told.times == 0


def test_a_fork_while_another_thread_notices_one_leaves_no_lock_behind() -> None:
    """The mechanism's own lock is another one in the child."""
    with forks._registry._noticing:
        assert in_a_child(lambda: forks._registry._noticing.locked()) == "False"  # noqa: PLW0108  # another one, there


def test_a_lock_that_is_not_to_be_had_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is goes back."""
    monkeypatch.setattr(forks, "HOLD_S", 0.01)
    lock = threading.Lock()
    release = taken(lock)
    assert release is not None and lock.locked()
    assert taken(lock) is None
    release()
    assert not lock.locked()


def test_threads_that_fork_at_once_do_not_wait_for_each_other_for_ever() -> None:
    """Each holds and releases for itself."""
    lock = threading.Lock()

    class Guarded:
        def before(self) -> Any:
            return taken(lock)

        def after(self) -> None:
            pass

    guarded = Guarded()
    call_after_fork(guarded.after, before=guarded.before)
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(in_a_child(lambda: "here"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["'here'"] * 6
    assert not lock.locked()


# -- sockets -----------------------------------------------------------------------------------------------------------


def test_what_a_child_has_cut_off_is_its_parents_alone() -> None:
    """The child can write to nobody, and when the parent closes its end the other side sees that, child or no child."""
    ours, theirs = socket.socketpair()

    def work() -> list[str]:
        cut_off(ours.fileno())
        raised = []
        for use in (lambda: ours.send(b"from the child"), lambda: ours.recv(1)):
            try:
                raised.append(repr(use()))
            except OSError as error:
                raised.append(type(error).__name__)
        theirs.close()
        return raised

    child = Child(work)
    try:
        assert child.said() == "['BrokenPipeError', \"b''\"]"
        ours.sendall(b"from the parent")
        assert theirs.recv(100) == b"from the parent"
        ours.close()
        theirs.settimeout(DEADLINE_S)
        assert theirs.recv(100) == b""
    finally:
        child.end()
        theirs.close()


def test_a_port_is_free_when_the_parent_lets_go_of_it() -> None:
    """However long the child lives."""
    listener = socket.create_server(("127.0.0.1", 0))
    where = listener.getsockname()
    child = Child(lambda: cut_off(listener.fileno()))
    try:
        assert child.said() == "None"
        listener.close()
        socket.create_server(where).close()
    finally:
        child.end()


def test_only_open_sockets_are_cut_off() -> None:
    """A number that stands for something else by now, or for nothing, is left alone."""
    reading, writing = os.pipe()
    cut_off(writing)
    os.write(writing, b"x")
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)
    cut_off(writing)
    cut_off(-1)
    cut_off_transport(None)


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_child_that_closes_a_tls_connection_does_not_end_it(is_cut: bool) -> None:  # noqa: FBT001
    """Not even by the alert that TLS says goodbye with; without cutting off, this is what ends it."""

    async def run() -> bytes:
        contexts = tls.contexts([b"k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"], "x", "y")
        came: asyncio.Queue[bytes] = asyncio.Queue()
        served: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(writer)
            while data := await reader.read(100):
                came.put_nowait(data)
            came.put_nowait(b"")

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=contexts.server)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=contexts.client, server_hostname="")
        writer.write(b"before")
        assert await came.get() == b"before"

        def work() -> None:
            if is_cut:
                cut_off_transport(writer.transport)
            writer.write(b"never")
            writer.close()

        await asyncio.to_thread(in_a_child, work)
        try:
            writer.write(b"after")
            return await asyncio.wait_for(came.get(), DEADLINE_S if is_cut else 3.0)
        finally:
            for each in (writer, *served):
                each.transport.abort()
            server.close()

    try:
        assert (asyncio.run(run()) == b"after") is is_cut
    except (OSError, ssl.SSLError):
        assert not is_cut


# -- finalisers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "said"), [("keep_forever(None, it)", ""), ("", "finalised")])
def test_what_is_kept_is_never_finalised(keep: str, said: str) -> None:
    """Not when it is collected, and not when the interpreter ends, which finalises everything else."""
    script = (
        "import gc\nfrom sessile.forks import keep_forever\n"
        "class Loud:\n    def __del__(self): print('finalised', flush=True)\n"
        f"it = Loud()\nit.cycle = [it]\n{keep}\ndel it\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=SCRIPT_S, check=True)
    assert done.stdout.strip() == said


def test_nothing_is_nothing_to_keep() -> None:
    """It costs no import."""
    before = len(forks._kept)
    keep_forever()
    keep_forever(None)
    assert len(forks._kept) == before
