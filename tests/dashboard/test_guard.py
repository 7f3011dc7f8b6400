from __future__ import annotations

import pytest

from sessile.dashboard.guard import refusal

HOST = (b"host", b"127.0.0.1:8081")
MARK = (b"x-sessile", b"1")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8081", "localhost:8081", "LocalHost", "[::1]:8081", "[::1]", "127.9.9.9:1"]
)
def test_a_loopback_name_may_pass(host: str) -> None:
    """In each of its spellings."""
    assert refusal("GET", [(b"Host", host.encode())]) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8081",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        ":8081",
        "::1",
        "[::1",
        "127.0.0.1:8081:1",
        "127.0.0.1@evil.example",
        "0.0.0.0:8081",
        "[::]",
        "127.0.0.1:x",
        "2130706433",
    ],
)
def test_another_name_is_a_rebound_one(host: str) -> None:
    """A page whose DNS name now leads to 127.0.0.1 sends its own name still."""
    assert "Host" in (refusal("GET", [(b"host", host.encode())]) or "")


def test_no_host_or_two_are_refused() -> None:
    """Which of two would count is nobody's to guess."""
    assert refusal("GET", []) is not None
    assert refusal("GET", [HOST, HOST]) is not None


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "https://127.0.0.1:8081",
        "http://127.0.0.1:8080",
        "http://localhost:8081",
        "http://127.0.0.1",
        "http://127.0.0.1:8081/",
        "http://127.0.0.1:80811",
    ],
)
def test_a_foreign_origin_is_refused(method: str, origin: str) -> None:
    """Also when it only reads, and also when it is another server on this machine."""
    assert "Origin" in (refusal(method, [HOST, MARK, (b"origin", origin.encode())]) or "")


def test_one_of_two_origins_is_enough_to_be_foreign() -> None:
    """Every one must be ours."""
    ours = (b"origin", b"http://127.0.0.1:8081")
    assert refusal("POST", [HOST, MARK, ours]) is None
    assert refusal("POST", [HOST, MARK, ours, (b"origin", b"http://evil.example")]) is not None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("marks", [[], [b"0"], [b""], [b"1", b"1"], [b"true"]])
def test_what_changes_something_carries_the_mark_once(method: str, marks: list[bytes]) -> None:
    """No form can send it, and no script of another origin without asking first."""
    headers = [HOST, *((b"x-sessile", mark) for mark in marks)]
    assert "X-Sessile: 1" in (refusal(method, headers) or "")
    assert refusal("GET", headers) is None
    assert refusal(method, [HOST, MARK]) is None
