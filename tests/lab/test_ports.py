from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from sessile.errors import SettingsError
from sessile.lab import ports

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_taken_port_is_one_clear_line(free_port: Callable[[], int]) -> None:
    """It names the port and the option that changes it."""
    port = free_port()
    with ports.listen(port):
        for attempt in (ports.bind, ports.listen, ports.require_free):
            with pytest.raises(SettingsError, match=rf"port {port} is taken .* --port") as raised:
                attempt(port)
            assert "\n" not in str(raised.value)


def test_listening_notices_a_port_that_another_listens_on_by_the_time(free_port: Callable[[], int]) -> None:
    """Two sockets may be bound to one port, and only one of them can listen."""
    port = free_port()
    with ports.bind(port), ports.listen(port), pytest.raises(SettingsError):
        ports.listen(port)


def test_a_bound_port_refuses_connections_until_it_listens(free_port: Callable[[], int]) -> None:
    """So a balancer asks another server at once while this one starts."""
    port = free_port()
    with ports.bind(port) as bound:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ports.HOST, port), timeout=5).close()
        bound.listen()
        socket.create_connection((ports.HOST, port), timeout=5).close()


def test_servers_get_ports_near_that_nobody_has(free_port: Callable[[], int]) -> None:
    """What is given away already and what somebody listens on is passed over."""
    port = min(free_port(), 60_000)
    with ports.bind_near(port) as first:
        taken = first.getsockname()[1]
        assert taken > port + 1
        with ports.bind_near(port, [taken]) as second:
            assert second.getsockname()[1] > taken
        first.listen()
        with ports.bind_near(port) as third:
            assert third.getsockname()[1] > taken


def test_servers_of_a_demo_on_a_high_port_are_below_it() -> None:
    """There is no port beyond 65535."""
    with ports.bind_near(65_000) as bound:
        assert bound.getsockname()[1] < 65_000
