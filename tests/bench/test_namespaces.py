"""Networks that are cut apart by `bench.namespaces`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench import namespaces as made
from bench.namespaces import Namespaces, namespaces
from bench.show import CannotShow

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 7400), 0.3)
except OSError as error:
    print(type(error).__name__)
"""


def tried(net: Namespaces, source: int, target: int) -> str:
    """What comes of a connection to a port where nobody listens."""
    host = net.addresses[target].partition(":")[0]
    command = ("ip", "netns", "exec", net.names[source], sys.executable, "-c", CONNECT, host)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def registered() -> str:
    return subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout


def test_without_root_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with the remedy."""
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    with pytest.raises(CannotShow, match="run it as root"), namespaces(2):
        pass


def test_each_direction_is_cut_without_a_word() -> None:
    """Nobody is refused or told: packets go nowhere. Others are reached, and after healing all are. Nothing is left."""
    try:
        with namespaces(3) as net:
            assert tried(net, 0, 1) == tried(net, 0, 2) == "ConnectionRefusedError"
            net.cut([(0, 1)])
            assert (tried(net, 0, 1), tried(net, 1, 0)) == ("TimeoutError", "TimeoutError")
            assert tried(net, 0, 2) == tried(net, 1, 2) == "ConnectionRefusedError"
            net.heal()
            assert tried(net, 0, 1) == tried(net, 1, 0) == "ConnectionRefusedError"
            assert net.names[0] in registered()
    except CannotShow as reason:
        pytest.skip(str(reason))
    assert net.names[0] not in registered()


def test_what_a_killed_run_left_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """By its process, which is no more; those of others that live stay."""
    del tmp_path
    try:
        with namespaces(1) as net:
            gone = f"{made.PREFIX}{2**22 + 1}-0"
            subprocess.run(("ip", "netns", "add", gone), check=True)
            made._remove_old()
            assert gone not in registered() and net.names[0] in registered()
    except CannotShow as reason:
        pytest.skip(str(reason))
