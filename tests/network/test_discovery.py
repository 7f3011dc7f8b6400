from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import pytest

from sessile.errors import SettingsError
from sessile.network import discovery
from sessile.network.discovery import Discovery, find_me, is_mine, resolve_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEADLINE_S = 10.0


class Names:
    """A name service of which a test says what it answers: addresses, or an error; a name it does not know hangs."""

    def __init__(self, **answers: Iterable[str] | Exception) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []
        self.hanging = 0

    async def resolve(self, name: str) -> Iterable[str]:
        self.asked.append(name)
        if name not in self.answers:
            self.hanging += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.hanging -= 1
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Found:
    """What discovery has told, each time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def __call__(self, addresses: tuple[str, ...]) -> None:
        self.told.append(addresses)


async def wait(until: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not until():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def rounds(names: Names, number: int = 3) -> None:
    """So many rounds more are asked; the last of them may not be answered yet."""
    until = len(names.asked) + number
    await wait(lambda: len(names.asked) >= until)


def start(members: list[str], names: Names, found: Found, *, timeout_s: float = DEADLINE_S) -> asyncio.Task[None]:
    it = Discovery(members, found, resolve=names.resolve, every_s=0.001, timeout_s=timeout_s)
    return asyncio.create_task(it.run())


async def stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_a_static_list_is_told_once() -> None:
    """As it was given but for order and repetition, with nobody asked, and that is all."""
    names, found = Names(), Found()
    members = ["web2:7400", "web1:7400", "[2001:db8::1]:7400", "web1:7400"]

    async def play() -> None:
        await Discovery(members, found, resolve=names.resolve).run()

    asyncio.run(play())
    assert found.told == [("[2001:db8::1]:7400", "web1:7400", "web2:7400")]
    assert not names.asked


def test_names_become_all_their_addresses() -> None:
    """With the port of each name, IPv6 in brackets, sorted, each once, together with those that were given."""
    names, found = Names(web=["10.0.0.2", "10.0.0.1", "10.0.0.2", "fd00::1"], other=["10.0.0.1"]), Found()

    async def play() -> None:
        running = start(["dns:web:7400", "dns:other:7401", "10.0.0.1:7400", "db:7400"], names, found)
        await rounds(names, 6)
        await stop(running)

    asyncio.run(play())
    assert found.told == [
        ("10.0.0.1:7400", "10.0.0.1:7401", "10.0.0.2:7400", "[fd00::1]:7400", "db:7400"),
    ]


def test_what_changes_is_told_when_it_has_changed() -> None:
    """Every answer counts, in whatever order it comes; the same one again is no news."""
    names, found = Names(web=["10.0.0.1", "10.0.0.2"]), Found()

    async def play() -> None:
        running = start(["dns:web:7400"], names, found)
        await wait(lambda: found.told)
        names.answers["web"] = ["10.0.0.2", "10.0.0.1"]
        await rounds(names)
        names.answers["web"] = ["10.0.0.3"]
        await wait(lambda: len(found.told) > 1)
        await rounds(names)
        await stop(running)

    asyncio.run(play())
    assert found.told == [("10.0.0.1:7400", "10.0.0.2:7400"), ("10.0.0.3:7400",)]


@pytest.mark.parametrize(
    "trouble",
    [socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), OSError("down"), UnicodeError("label too long"), []],
    ids=["gaierror", "OSError", "no name", "empty"],
)
def test_an_answer_stands_until_there_is_another(
    trouble: Iterable[str] | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A name service that fails takes nobody away. It is said once, and once that it is over."""
    names, found = Names(web=["10.0.0.1"]), Found()
    caplog.set_level(logging.INFO, "sessile.cluster")

    async def play() -> None:
        running = start(["dns:web:7400"], names, found)
        await wait(lambda: found.told)
        names.answers["web"] = trouble
        await rounds(names, 5)
        names.answers["web"] = ["10.0.0.1"]
        await rounds(names)
        await stop(running)

    asyncio.run(play())
    assert found.told == [("10.0.0.1:7400",)]
    first, second = caplog.messages
    assert first.startswith("dns:web:7400 cannot be resolved: ")
    assert first.endswith("; going on with 1 known addresses")
    assert second == "dns:web:7400 is resolved again: 1 addresses"


def test_the_trouble_of_one_name_is_not_the_others() -> None:
    """Those that were given, and those of names that answer, are told all the same."""
    names, found = Names(web=OSError("unknown"), other=["10.0.0.9"]), Found()

    async def play() -> None:
        running = start(["dns:web:7400", "dns:other:7400", "db:7400"], names, found)
        await wait(lambda: found.told)
        await stop(running)

    asyncio.run(play())
    assert found.told == [("10.0.0.9:7400", "db:7400")]


def test_nothing_found_is_nothing_told() -> None:
    """Whoever waits for the first addresses goes on waiting while the name service is not up yet."""
    names, found = Names(web=[]), Found()

    async def play() -> None:
        running = start(["dns:web:7400"], names, found)
        await rounds(names)
        assert not found.told
        names.answers["web"] = ["10.0.0.1"]
        await wait(lambda: found.told)
        await stop(running)

    asyncio.run(play())
    assert found.told == [("10.0.0.1:7400",)]


def test_a_name_that_never_answers_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    """It is waited for a while, asked for once for as long as it hangs, and let go in the end."""
    names, found = Names(web=["10.0.0.1"]), Found()

    async def play() -> None:
        running = start(["dns:web:7400", "dns:slow:7400"], names, found, timeout_s=0.002)
        await wait(lambda: names.asked.count("web") >= 5)
        assert names.asked.count("slow") == names.hanging == 1
        await stop(running)
        assert names.hanging == 0

    asyncio.run(play())
    assert found.told == [("10.0.0.1:7400",)]
    assert caplog.messages == [
        "dns:slow:7400 cannot be resolved: no answer within 0.002 s; going on with 0 known addresses"
    ]


def test_a_late_answer_counts_in_the_next_round() -> None:
    """What took longer than a round waits for is not thrown away."""
    found, late = Found(), asyncio.Event()

    async def resolve(name: str) -> list[str]:
        if name == "slow":
            await late.wait()
        return ["10.0.0.1" if name == "web" else "10.0.0.2"]

    async def play() -> None:
        it = Discovery(["dns:web:7400", "dns:slow:7400"], found, resolve=resolve, every_s=0.001, timeout_s=0.001)
        running = asyncio.create_task(it.run())
        await wait(lambda: found.told)
        late.set()
        await wait(lambda: len(found.told) > 1)
        await stop(running)

    asyncio.run(play())
    assert found.told == [("10.0.0.1:7400",), ("10.0.0.1:7400", "10.0.0.2:7400")]


def test_a_name_is_asked_for_at_once_soon_and_then_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon again while there is no answer yet, later and later; never more often than that once there is one."""
    names, found, pauses = Names(web=[]), Found(), list[float]()

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 7:
            names.answers["web"] = ["10.0.0.1"]
        if len(pauses) == 9:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def play() -> None:
        with pytest.raises(asyncio.CancelledError):
            await Discovery(["dns:web:7400"], found, resolve=names.resolve, every_s=16.0).run()

    asyncio.run(play())
    assert len(names.asked) == 9
    for pause_s, expected_s in zip(pauses, [2, 4, 8, 16, 16, 16, 16, 16, 16], strict=True):
        assert expected_s * 0.8 <= pause_s <= expected_s * 1.2
    assert len(set(pauses)) == 9


def test_it_can_run_again() -> None:
    """On another loop, when the first is gone: what is known is told anew."""
    names, found = Names(web=["10.0.0.1"]), Found()
    it = Discovery(["dns:web:7400"], found, resolve=names.resolve, every_s=0.001)

    async def play() -> None:
        told = len(found.told)
        running = asyncio.create_task(it.run())
        await wait(lambda: len(found.told) > told)
        await stop(running)

    asyncio.run(play())
    asyncio.run(play())
    assert found.told == [("10.0.0.1:7400",)] * 2


def test_the_system_resolves_names() -> None:
    """Through the loop's look-up, so through /etc/hosts as well; what is no name is refused as a ValueError."""

    async def play() -> None:
        assert "127.0.0.1" in await resolve_name("localhost")
        with pytest.raises((OSError, ValueError)):
            await resolve_name("a" * 64 + ".invalid")

    asyncio.run(play())


def answering(*hosts: str) -> Callable[..., list[tuple[object, ...]]]:
    """A look-up that gives these IP addresses for every name."""
    families = {host: socket.AF_INET6 if ":" in host else socket.AF_INET for host in hosts}
    return lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (host, 0)) for host, family in families.items()]


def test_an_address_that_means_something_else_elsewhere_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link-local one goes by the number of an interface of this machine."""
    monkeypatch.setattr(socket, "getaddrinfo", answering("fe80::1%2", "fd00::1", "10.0.0.1"))
    assert asyncio.run(resolve_name("web")) == ["fd00::1", "10.0.0.1"]


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        ("127.0.0.1:7400", True),
        ("localhost:7400", True),
        ("203.0.113.1:7400", False),  # RFC 5737: of nobody
        ("[2001:db8::1]:7400", False),  # RFC 3849
        ("no address", False),
    ],
)
def test_an_address_of_this_machine_is_one_that_can_be_bound(address: str, is_local: bool) -> None:  # noqa: FBT001
    """Whether or not the port is taken."""
    assert is_mine(address) is is_local


def test_an_address_is_of_this_machine_though_its_port_is_taken() -> None:
    """By the node itself, say."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert is_mine(f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_name_without_an_answer_is_nobody_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses of a name, one that can be bound is enough."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", answering("203.0.113.1", "127.0.0.1"))
    assert is_mine("web1:7400")
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert not is_mine("web1:7400")


def test_the_one_address_that_is_local_is_me() -> None:
    """Named once or twice."""
    assert find_me(("203.0.113.1:7400", "127.0.0.1:7400", "203.0.113.2:7400")) == "127.0.0.1:7400"
    assert find_me(("127.0.0.1:7400", "127.0.0.1:7400")) == "127.0.0.1:7400"


def test_an_ipv4_and_an_ipv6_address_with_one_port_are_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by the first; with two ports they may be two."""
    monkeypatch.setattr(discovery, "is_mine", lambda address: "203.0.113" not in address)
    assert find_me(["[fd00::1]:7400", "10.0.0.1:7400", "203.0.113.1:7400"]) == "10.0.0.1:7400"
    for several in (["[fd00::1]:7400", "10.0.0.1:7401"], ["[fd00::1]:7400", "[fd00::2]:7400"]):
        with pytest.raises(SettingsError, match="set me="):
            find_me(several)


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        (
            ["127.0.0.1:7400", "127.0.0.1:7401", "203.0.113.1:7400"],
            "^127.0.0.1:7400, 127.0.0.1:7401 are all this machine's own: set me= .SESSILE_ME. to the one that is this server's$",
        ),
        (
            [f"127.0.0.1:{port}" for port in range(7400, 7410)],
            "^127.0.0.1:7400, .*, 127.0.0.1:7407 and 2 more are all this machine's own: set me= .SESSILE_ME. to",
        ),
        (
            ["203.0.113.1:7400", "203.0.113.2:7400"],
            "^none of the addresses found, 203.0.113.1:7400, 203.0.113.2:7400, is this machine's own: set me= .SESSILE_ME. to the host",
        ),
        ([], "^no addresses were found, so none is this machine's own: set me= .SESSILE_ME. to the host:port"),
    ],
    ids=["two", "ten", "none", "nothing"],
)
def test_who_cannot_be_told_apart_has_to_say_who_they_are(addresses: list[str], message: str) -> None:
    """Several servers on one machine, or addresses that are given out by something between."""
    with pytest.raises(SettingsError, match=message):
        find_me(addresses)
