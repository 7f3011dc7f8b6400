"""A request's body: kept in memory and in a file, read from the beginning as often as needed, and given back."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.balancer.bodies import CHUNKED, BodyError, ChunkedReader, chunk
from sessile.balancer.request_body import RequestBody
from sessile.balancer.room import Room

if TYPE_CHECKING:
    from pathlib import Path


def a_room(disk_bytes: int = 1 << 20) -> tuple[Room, list[str]]:
    failures: list[str] = []
    return Room(disk_bytes, 10, failures.append), failures


def everything(body: RequestBody) -> bytes:
    """All that there is to send now."""
    return b"".join(iter(body.next, b""))


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=12), st.integers(1, 100), st.booleans())
def test_what_was_collected_is_sent(pieces: list[bytes], memory: int, is_chunked: bool) -> None:  # noqa: FBT001 - drawn
    """In memory, in the file or in both, with either framing: the same bytes come out, again after a rewind."""
    whole = b"".join(pieces)
    room, _ = a_room()
    left = (room.memory_bytes, room.disk_bytes, room.files)
    body = RequestBody(CHUNKED if is_chunked else len(whole), room, memory)
    for piece in [*(chunk(each, is_last=False) for each in pieces), b"0\r\n\r\n"] if is_chunked else pieces:
        body.take(piece)
        assert body.make_room() and body.in_memory <= memory
    assert body.is_whole and body.size == len(whole)
    for _ in range(2):
        sent = everything(body)
        assert body.is_sent
        assert (ChunkedReader().feed(sent) if is_chunked else sent) == whole
        body.rewind()
    body.close()
    assert (room.memory_bytes, room.disk_bytes, room.files) == left


def test_what_is_passed_on_is_forgotten_beyond_the_bound() -> None:
    """As long as little was sent it can be sent again; then only the end is kept."""
    room, _ = a_room()
    body = RequestBody(100, room, 10)
    body.take(b"x" * 10)
    assert everything(body) == b"x" * 10 and body.can_rewind
    body.take(b"y" * 10)
    assert everything(body) == b"y" * 10 and not body.can_rewind and not body.in_memory
    body.take(b"z" * 80)
    assert everything(body) == b"z" * 80 and body.is_sent


def test_what_is_sent_once_is_not_kept() -> None:
    """A body of a request that must not be repeated leaves memory as it is sent."""
    room, _ = a_room()
    body = RequestBody(3, room, 10)
    body.forget()
    body.take(b"abc")
    assert everything(body) == b"abc" and not body.in_memory and not body.can_rewind


def test_no_room() -> None:
    """On disk, among the files, or in a folder that cannot be written: the body stays in memory, to be passed on."""
    room, failures = a_room(disk_bytes=5)
    body = RequestBody(100, room, 2)
    body.take(b"abcdef")
    assert not body.make_room() and everything(body) == b"abcdef"
    room, failures = a_room()
    room.files = 0
    body = RequestBody(100, room, 2)
    body.take(b"abcdef")
    assert not body.make_room() and everything(body) == b"abcdef" and failures == []


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The body is passed on, and nothing is taken from the room."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    room, failures = a_room()
    left = (room.memory_bytes, room.disk_bytes, room.files)
    body = RequestBody(100, room, 2)
    body.take(b"abcdef")
    assert not body.make_room() and everything(body) == b"abcdef"
    body.close()
    assert len(failures) == 1 and (room.memory_bytes, room.disk_bytes, room.files) == left


def test_memory_of_all_together_is_bounded() -> None:
    """When others take much, a body goes to its file sooner."""
    room, _ = a_room()
    room.memory_bytes = 3
    body = RequestBody(10, room, 1_000)
    body.take(b"abcdef")
    assert body.make_room() and not body.in_memory and room.memory_bytes == 3
    body.take(b"ghij")
    assert everything(body) == b"abcdefghij"
    body.close()


def test_without_room_nothing_is_kept_of_what_was_sent() -> None:
    """Where others take all memory and no file can be made, a body that is passed on is not kept for another try."""
    room, _ = a_room(disk_bytes=0)
    room.memory_bytes = 3
    body = RequestBody(10, room, 1_000)
    body.take(b"abcdef")
    assert not body.make_room() and everything(body) == b"abcdef"
    assert not body.in_memory and not body.can_rewind and room.memory_bytes == 3


def test_a_body_that_is_none() -> None:
    """What the reader refuses is passed up; what it has not yet looked at is there in the next turn."""
    room, _ = a_room()
    body = RequestBody(CHUNKED, room, 10)
    with pytest.raises(BodyError):
        body.take(b"zz\r\n")
    body = RequestBody(CHUNKED, room, 10_000)
    body.take(b"1\r\nx\r\n" * 1_000 + b"0\r\n\r\nbeyond")
    turns = 0
    while body.is_behind:
        body.take(b"")
        turns += 1
    assert body.is_whole and body.size == 1_000 and body.rest == b"beyond" and turns > 1
