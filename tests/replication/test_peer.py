"""What waits for acknowledgement, in order, and what an acknowledgement or a denial settles."""

from __future__ import annotations

import pytest

from sessile.replication.peer import Peer


def peer_with(count: int, *, size: int = 100) -> tuple[Peer, list[str]]:
    """A peer to which so many messages were sent, a millisecond apart, and what became of them."""
    peer = Peer("b", 1, 7)
    heard: list[str] = []

    def send(number: int) -> None:
        def held() -> None:
            heard.append(f"held {number}")

        def denied(why: int) -> None:
            heard.append(f"denied {number} {why}")

        peer.sequence(size, number, held, denied)

    for number in range(1, count + 1):
        send(number)
    return peer, heard


def test_an_acknowledgement_settles_everything_up_to_it() -> None:
    """In order, once, and the bytes are free again."""
    peer, heard = peer_with(4)
    assert peer.outstanding_bytes == 400
    for one in peer.take_acked(3, 10):
        one.held()
    assert heard == ["held 1", "held 2", "held 3"]
    assert (peer.outstanding_bytes, peer.acked, len(peer.outstanding)) == (100, 3, 1)
    assert peer.take_acked(3, 11) == []


@pytest.mark.parametrize("upto", [5, 0, -1])
def test_an_acknowledgement_of_what_was_not_sent_is_none(upto: int) -> None:
    """Beyond the last message sent, or before the last acknowledged."""
    peer, _ = peer_with(4)
    peer.take_acked(1, 5)
    with pytest.raises(ValueError, match="acknowledges"):
        peer.take_acked(upto, 5)


def test_a_denied_message_is_not_acknowledged_as_well() -> None:
    """It leaves the queue with its reason; the acknowledgement that covers it settles only the others."""
    peer, heard = peer_with(3)
    peer.take_denied(2).denied(0)
    for one in peer.take_acked(3, 10):
        one.held()
    assert heard == ["denied 2 0", "held 1", "held 3"]
    assert peer.outstanding_bytes == 0
    with pytest.raises(ValueError, match="denies"):
        peer.take_denied(2)


def test_how_long_acknowledgements_take_is_learned_slowly() -> None:
    """One slow answer moves the usual time by an eighth; a clock that seems to go back counts as no time."""
    peer, _ = peer_with(2)
    before = peer.usual_ms
    peer.take_acked(1, 81)
    assert peer.usual_ms == before + (80 - before) / 8
    after = peer.usual_ms
    peer.take_acked(2, 0)
    assert peer.usual_ms == after - after / 8


def test_of_several_that_are_acknowledged_together_the_last_one_counts() -> None:
    """Those before it waited for the acknowledgement of all."""
    peer, _ = peer_with(4)
    before = peer.usual_ms
    peer.take_acked(3, 43)
    assert peer.usual_ms == before + (40 - before) / 8


def test_a_peer_says_who_it_is() -> None:
    """For logs."""
    assert repr(peer_with(1)[0]) == "<Peer b on 1, 100 bytes outstanding>"
