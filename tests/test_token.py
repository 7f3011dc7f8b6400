"""What a browser may carry: only values that one of our secrets signed, for this session, this cluster and this name."""

from __future__ import annotations

import base64
import string
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.cookies import Presented
from sessile.record import COUNTER_MAX, WRITER_BITS, Heads, Stamp
from sessile.token import HEADS_MAX, ID_BYTES, Identity, Keyring, Visitor, _Recent, derive_key, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET: Final = b"first secret of the cluster"
OTHER: Final = b"second secret of the cluster"
ID: Final = bytes(range(ID_BYTES))
ALPHABET: Final = (string.ascii_letters + string.digits + "-_").encode()
HEAD: Final = (Stamp(7, 0xABCDEF),)
GOLDEN_ID: Final = b"Alh2A4BdkorL8KQkUigPAAECAwQFBgcICQoLDA0ODxAR"
GOLDEN_VERSION: Final = b"5SVMosoQZtBtP_nfAAAAq83vBw"
GOLDEN_KEY: Final = "109c1b8d45657708dd3efde186a25278"


def test_no_repr_shows_an_id() -> None:
    """Whoever reads a log or a traceback cannot take over a session: what is shown is the key, a hash."""
    identity = Identity(b"eighteen raw bytes", key_of(b"eighteen raw bytes"))
    for shown in (
        repr(identity),
        repr(Visitor(identity)),
        repr(Presented([b"the-id"], [b"v"], is_https=True, is_inferred=False)),
    ):
        assert "eighteen" not in shown and "the-id" not in shown
    assert identity.key.hex() in repr(Visitor(identity))


def ring(*secrets: bytes, cluster: str = "shop", cookie_name: str = "sid") -> Keyring:
    """A keyring that remembers nothing yet: another process with the same settings."""
    return Keyring(secrets or (SECRET,), cluster=cluster, cookie_name=cookie_name)


def identity(session_id: bytes = ID) -> Identity:
    return Identity(session_id, key_of(session_id))


def flips(text: bytes) -> list[bytes]:
    """The text with each of its bits flipped."""
    return [text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :] for at in range(len(text)) for bit in range(8)]


def read_id(keyring: Keyring, text: bytes) -> Identity | None:
    """Whose id this is, going by the id alone."""
    visitor = keyring.read(text, b"")
    assert visitor is None or (visitor.seen == () and not visitor.is_version_foreign)
    return None if visitor is None else visitor.identity


def read_version(keyring: Keyring, session_id: bytes, text: bytes) -> Heads | None:
    """What a version says beside a valid id; None where there is none, or one not ours or of another session."""
    visitor = keyring.read(keyring.sign_id(identity(session_id)), text)
    assert visitor is not None and visitor.identity == identity(session_id)
    if visitor.is_version_foreign or not text:
        assert visitor.seen == ()
        return None
    return visitor.seen


def remembered(keyring: Keyring) -> int:
    """How many visitors a keyring holds in memory."""
    return len(keyring._recent._now) + len(keyring._recent._past)


_ids = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
_stamps = st.builds(Stamp, st.integers(1, COUNTER_MAX), st.integers(0, (1 << WRITER_BITS) - 1))
_heads = st.lists(_stamps, min_size=1, max_size=HEADS_MAX).map(lambda stamps: tuple(sorted(stamps)))


# -- round trips -----------------------------------------------------------------------------------------------------------


@given(_ids)
def test_an_id_comes_back(session_id: bytes) -> None:
    """Whoever has the secret reads what was signed: at the signer from memory, elsewhere by its MAC."""
    signer = ring()
    text = signer.sign_id(identity(session_id))
    assert len(text) == 44 and set(text) <= set(ALPHABET)
    for reader in (signer, ring()):
        for _ in range(2):
            assert read_id(reader, text) == identity(session_id)


@given(_ids, _heads)
def test_a_version_comes_back(session_id: bytes, heads: Heads) -> None:
    """One head to sixty-four, with counters up to the greatest, for the session it was signed for."""
    signer = ring()
    text = signer.sign_version(identity(session_id), heads)
    assert set(text) <= set(ALPHABET)
    for reader in (signer, ring()):
        for _ in range(2):
            assert read_version(reader, session_id, text) == heads


@pytest.mark.parametrize("counter", [1, 127, 128, 16_383, 16_384, 2**32, COUNTER_MAX])
@pytest.mark.parametrize("count", [1, 2, HEADS_MAX])
def test_versions_of_every_size_come_back(counter: int, count: int) -> None:
    """Each length of a counter, next to its neighbours, in few heads and in as many as there may be."""
    heads = tuple(Stamp(counter, (1 << WRITER_BITS) - 1 - at) for at in range(count))
    assert read_version(ring(), ID, ring().sign_version(identity(), heads)) == heads


def test_an_ordinary_version_is_short() -> None:
    """One head with a small counter makes 26 characters, the empty version sixteen."""
    assert len(ring().sign_version(identity(), HEAD)) == 26
    assert read_version(ring(), ID, ring().sign_version(identity(), ())) == ()


@pytest.mark.parametrize(("counter", "size"), [(1, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3)])
@pytest.mark.parametrize("count", [1, 2])
def test_seven_bits_of_a_counter_take_a_byte(counter: int, size: int, count: int) -> None:
    """No byte too many, however many heads there are."""
    heads = tuple(Stamp(counter, 5 + at) for at in range(count))
    text = ring().sign_version(identity(), heads)
    data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    assert len(data) == 12 + count * (WRITER_BITS // 8 + size)


def test_of_more_heads_than_are_ever_signed_only_so_many_are_read() -> None:
    """Whatever another version of this package may sign: what a request holds is bounded."""
    heads = tuple(Stamp(1, 5 + at) for at in range(HEADS_MAX + 1))
    assert read_version(ring(), ID, ring().sign_version(identity(), heads)) == heads[:HEADS_MAX]


# -- refusals --------------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_an_id_is_refused() -> None:
    """No single bit of the value can be changed, neither where it was signed nor elsewhere."""
    signer = ring()
    text = signer.sign_id(identity())
    for forged in flips(text):
        assert read_id(signer, forged) is None and read_id(ring(), forged) is None


@pytest.mark.parametrize("heads", [HEAD, (Stamp(300, 5),), (Stamp(1, 2), Stamp(1, 3)), ()])
def test_every_flipped_bit_of_a_version_is_refused(heads: Heads) -> None:
    """The same for a version, its last character's unused bits included: a value has one spelling."""
    signer = ring()
    text = signer.sign_version(identity(), heads)
    for forged in flips(text):
        assert read_version(signer, ID, forged) is None and read_version(ring(), ID, forged) is None


@given(st.one_of(st.binary(max_size=60), st.text(ALPHABET.decode(), max_size=60).map(str.encode)))
def test_a_guess_is_refused(text: bytes) -> None:
    """Nobody without the secret writes a value; nothing that is presented raises."""
    assert read_id(ring(), text) is None
    assert read_version(ring(), ID, text) is None


def test_a_value_of_the_other_kind_is_refused() -> None:
    """An id is no version and a version no id, not even of the same length."""
    signer = ring()
    id_text = signer.sign_id(identity())
    assert read_version(signer, ID, id_text) is None and read_version(ring(), ID, id_text) is None
    for count in range(1, 5):
        version_text = signer.sign_version(identity(), HEAD * count)
        assert read_id(signer, version_text) is None and read_id(ring(), version_text) is None


def test_a_version_of_another_session_is_refused() -> None:
    """A version cannot be moved to another id, not even at the process that remembers it."""
    signer = ring()
    text = signer.sign_version(identity(), HEAD)
    other = ID[::-1]
    for reader in (signer, ring()):
        assert read_version(reader, other, text) is None
        assert read_version(reader, ID, text) == HEAD
        assert read_version(reader, other, text) is None


MALFORMED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "empty": lambda text: b"",
    "padding": lambda text: text + b"=",
    "two paddings": lambda text: text + b"==",
    "padding in place of the end": lambda text: text[:-2] + b"==",
    "leading blank": lambda text: b" " + text,
    "trailing blank": lambda text: text + b" ",
    "trailing newline": lambda text: text + b"\n",
    "newline within": lambda text: text[:10] + b"\n" + text[10:],
    "too short": lambda text: text[:-1],
    "a quarter short": lambda text: text[:-4],
    "a character more": lambda text: text + b"A",
    "a quarter more": lambda text: text + b"AAAA",
    "not ASCII": lambda text: "é".encode() + text[2:],
    "a zero byte": lambda text: text[:-1] + b"\0",
    "percent encoded": lambda text: b"%" + text[:-1],
    "megabytes": lambda text: text * 50_000,
}


@pytest.mark.parametrize("damage", MALFORMED.values(), ids=MALFORMED)
def test_malformed_text_is_refused(damage: Callable[[bytes], bytes]) -> None:
    """Padding, blanks, other lengths and other characters are no spelling of a value."""
    signer = ring()
    for reader in (signer, ring()):
        assert read_id(reader, damage(signer.sign_id(identity()))) is None
        assert read_version(reader, ID, damage(signer.sign_version(identity(), HEAD))) is None


def test_the_standard_alphabet_is_refused() -> None:
    """`+` and `/` are no spelling of `-` and `_`: values have these four only if drawn for it."""
    for number in range(200):
        session_id = number.to_bytes(ID_BYTES, "big")
        text = ring().sign_id(identity(session_id))
        standard = text.translate(bytes.maketrans(b"-_", b"+/"))
        if standard != text:
            assert read_id(ring(), standard) is None
            return
    pytest.fail("none of two hundred values has a - or a _")


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_secrets_rotate() -> None:
    """The first secret signs and all verify; a secret that is gone verifies no longer."""
    old, both, new = ring(OTHER), ring(SECRET, OTHER), ring(SECRET)
    for signer, readers, strangers in ((old, [both], [new]), (both, [new, both], [old]), (new, [both], [old])):
        id_text, version_text = signer.sign_id(identity()), signer.sign_version(identity(), HEAD)
        for reader in readers:
            assert read_id(reader, id_text) == identity() and read_version(reader, ID, version_text) == HEAD
        for stranger in strangers:
            assert read_id(stranger, id_text) is None and read_version(stranger, ID, version_text) is None


@pytest.mark.parametrize(
    "stranger",
    [ring(OTHER), ring(cluster="shop2"), ring(cookie_name="sid2"), ring(cluster="shops", cookie_name="id")],
    ids=["secret", "cluster", "cookie name", "boundary moved"],
)
def test_other_settings_give_other_keys(stranger: Keyring) -> None:
    """A value counts for one secret, one cluster and one cookie name, also where their letters together are the same."""
    assert read_id(stranger, ring().sign_id(identity())) is None
    assert read_version(stranger, ID, ring().sign_version(identity(), HEAD)) is None


def test_a_derived_key_serves_one_purpose() -> None:
    """Another secret, purpose or context, or another split of the same letters, gives another key; the same, the same."""
    keys = [
        derive_key(b"s", "purpose"),
        derive_key(b"t", "purpose"),
        derive_key(b"s", "purpos"),
        derive_key(b"s", "purpose", "e"),
        derive_key(b"s", "purpos", "ee"),
        derive_key(b"s", "purpose", "e", ""),
        derive_key(b"s", "purpose", "", "e"),
        derive_key(b"s" * 200, "purpose"),
        derive_key(b"s" * 201, "purpose"),
        derive_key(b"", "purpose"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)
    assert derive_key(b"s", "purpose") == keys[0]


def test_a_key_is_a_hash_of_its_id() -> None:
    """Sixteen bytes that differ for every id and hold nothing of it."""
    keys = {key_of(number.to_bytes(ID_BYTES, "big")) for number in range(1_000)}
    assert len(keys) == 1_000 and {len(key) for key in keys} == {16}
    assert key_of(ID) == key_of(bytes(ID)) and key_of(ID) not in ID


def test_values_do_not_change_from_one_version_to_the_next() -> None:
    """What browsers hold now they will hold after an upgrade: these values stay valid for ever."""
    assert ring().sign_id(identity()) == GOLDEN_ID
    assert ring().sign_version(identity(), HEAD) == GOLDEN_VERSION
    assert key_of(ID).hex() == GOLDEN_KEY


# -- memory ----------------------------------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded() -> None:
    """However many valid values pass, whether signed or read here, two generations of 2048 are kept."""
    signer, reader = ring(), ring()
    for number in range(10_000):
        one = identity(number.to_bytes(ID_BYTES, "big"))
        id_text, version_text = signer.sign_id(one), signer.sign_version(one, HEAD)
        signer.remember(id_text, one, version_text, HEAD)
        visitor = reader.read(id_text, version_text)
        assert visitor == signer.read(id_text, version_text) == Visitor(one, HEAD, version_text)
        if number % 500 == 0:
            assert max(remembered(signer), remembered(reader)) <= 2 * 2048
    assert min(remembered(signer), remembered(reader)) >= 2048


def test_a_visitor_is_verified_once() -> None:
    """The next request with the same two values finds the same object; of one id, only the newest version is kept."""
    reader = ring()
    id_text = ring().sign_id(identity())
    second_heads = (Stamp(8, 1),)
    first, second = (ring().sign_version(identity(), heads) for heads in (HEAD, second_heads))
    visitor = reader.read(id_text, first)
    assert visitor is not None and visitor is reader.read(id_text, first)
    reader.remember(id_text, identity(), second, second_heads)
    newest = reader.read(id_text, second)
    assert newest == Visitor(identity(), second_heads, second) and newest is reader.read(id_text, second)
    assert remembered(reader) == 1
    for _ in range(2):  # an older tab comes with what it saw last
        assert reader.read(id_text, first) == visitor
        assert reader.read(id_text, b"") == Visitor(identity())
        assert reader.read(id_text, second) == newest
    assert remembered(reader) == 1


def test_what_was_just_signed_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request of a browser that is given new values costs a look-up."""
    keyring = ring()
    id_text, version_text = keyring.sign_id(identity()), keyring.sign_version(identity(), HEAD)
    keyring.remember(id_text, identity(), version_text, HEAD)
    monkeypatch.setattr(keyring, "_id_macs", [])
    monkeypatch.setattr(keyring, "_version_macs", [])
    assert keyring.read(id_text, version_text) == Visitor(identity(), HEAD, version_text)


def test_guesses_are_not_remembered() -> None:
    """A refused value leaves nothing behind, neither beside nothing nor beside a valid id, and pushes nothing out."""
    reader = ring()
    valid = ring().sign_id(identity())
    assert read_id(reader, valid) == identity()
    for number in range(5_000):
        guess = base64.urlsafe_b64encode(number.to_bytes(33, "big"))
        assert reader.read(guess, b"") is None and reader.read(guess, guess) is None
        visitor = reader.read(valid, guess)
        assert visitor == Visitor(identity(), is_version_foreign=True)
    assert remembered(reader) == 1
    assert reader.read(valid, b"") == Visitor(identity())


# Of a drawn length: left to themselves, lists are mostly shorter than five.
_uses = st.integers(0, 80).flatmap(
    lambda count: st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=count, max_size=count)
)


@given(st.integers(1, 5), _uses)
def test_the_last_used_are_remembered(size: int, uses: list[tuple[bool, int]]) -> None:
    """The last `size` entries used are there, with their values; never are more than twice as many."""
    recent = _Recent(size)
    visitors = [Visitor(identity(bytes([number]))) for number in range(13)]
    used: list[int] = []
    for is_put, number in uses:
        text = b"%d" % number
        if is_put:
            recent.put(text, visitors[number])
        found = recent.get(text)
        assert found is visitors[number] or (found is None and not is_put and number not in used[-size:])
        if found is not None:
            used = [other for other in used if other != number] + [number]
        assert len(recent._now) + len(recent._past) <= 2 * size
