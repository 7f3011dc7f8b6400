"""Every message: it survives the wire, it has a number of its own, and it is as small as it is said to be."""

from __future__ import annotations

import inspect
import pickle

import msgspec
import pytest
from hypothesis import given

from sessile.replication import messages
from sessile.replication.messages import PROTOCOL, Hello, MemberInfo, Message
from sessile.replication.wire import LENGTH_BYTES, Frames, decode, encode
from tests.replication.samples import KINDS, SMALL, USUAL, any_message

BYTES = {
    "Hello": 170,
    "Members": 99,
    "Beat": 10,
    "Writing": 14,
    "Changed": 39,
    "Whole": 97,
    "Told": 97,
    "Acked": 8,
    "Denied": 27,
    "Pull": 49,
    "Answered": 81,
    "Touched": 26,
    "Digest": 520,
    "Differ": 12,
    "Offered": 248,
    "Wanted": 168,
    "TombstonesAsked": 7,
    "TombstonesTold": 101,
    "Listed": 26,
    "Rejoin": 5,
    "Goodbye": 5,
}
"""What the usual message of each kind takes on the wire, its length included."""


def test_what_messages_cost() -> None:
    """A number that changes here changes what the network carries."""
    assert {type(message).__name__: len(encode(message)) for message in USUAL} == BYTES


def test_a_small_change_costs_little_more_than_what_it_says() -> None:
    """The name and the value as they are encoded, and at most 30 bytes."""
    (change,) = (message for message in USUAL if isinstance(message, messages.Changed))
    said = len(msgspec.msgpack.encode(change.values))
    assert len(encode(change)) <= said + 30


def test_every_kind_is_sampled_once_and_named() -> None:
    """The union, the module's names and the samples speak of the same kinds."""
    assert tuple(map(type, USUAL)) == KINDS
    structs = {name for name, one in inspect.getmembers(messages, inspect.isclass) if issubclass(one, msgspec.Struct)}
    tagged = {name for name in structs if getattr(messages, name).__struct_config__.tag is not None}
    assert tagged == {kind.__name__ for kind in KINDS} <= set(messages.__all__)


def test_numbers_are_given_once() -> None:
    """From 1 on, without a gap, in the order of the file: none is ever given to something else."""
    assert [kind.__struct_config__.tag for kind in KINDS] == list(range(1, len(KINDS) + 1))


@pytest.mark.parametrize("message", USUAL, ids=lambda message: type(message).__name__)
def test_the_usual_message_survives(message: Message) -> None:
    """What arrives is what was sent, and of the same kind."""
    (frame,) = Frames().feed(encode(message))
    assert decode(frame, is_greeting=isinstance(message, Hello)) == message


@given(message=any_message())
def test_any_message_survives(message: Message) -> None:
    """Whatever a field's type allows comes through, the empty and the greatest included."""
    payload = encode(message)[LENGTH_BYTES:]
    assert decode(payload, is_greeting=isinstance(message, Hello)) == message


@pytest.mark.parametrize("message", USUAL, ids=lambda message: type(message).__name__)
def test_messages_do_not_change(message: Message) -> None:
    """Frozen: what was sent may be sent to the next peer too."""
    for name in message.__struct_fields__:
        with pytest.raises(AttributeError, match="immutable"):
            setattr(message, name, None)


def test_a_later_release_may_add_fields() -> None:
    """What is behind the fields that are known is not looked at, and what has a default may be missing."""
    hello = USUAL[0]
    assert isinstance(hello, Hello)
    fields = msgspec.msgpack.decode(encode(hello)[LENGTH_BYTES:])
    assert decode(msgspec.msgpack.encode([*fields, "more"]), is_greeting=True) == hello
    assert decode(msgspec.msgpack.encode(fields[:-2]), is_greeting=True) == msgspec.structs.replace(hello, links=())
    assert msgspec.convert(["a:7400", "host", 3], MemberInfo) == MemberInfo("a:7400", "host", 3, 0)


def test_the_protocol_has_a_number() -> None:
    """It changes when a node of the last release could not follow."""
    assert PROTOCOL == 2


def test_no_message_carries_anything_that_runs() -> None:
    """A record in a message is bytes, not an object of Python's."""
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(SMALL)
