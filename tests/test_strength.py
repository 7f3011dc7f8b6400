from __future__ import annotations

import base64
import random
import string
import uuid

import pytest

from sessile.cli import keygen
from sessile.strength import BITS_MIN, LOOKED_AT_BYTES, bits_of

WEAK = [
    *("s" * 32, "ab" * 20, "1234567890123456", "0123456789abcdef", "9876543210987654", "qwertyuiopasdfghjklzxcvbnm"),
    *("password" * 4, "passwordPassword", "changeme-changeme-changeme", "correct horse battery staple"),
    *(
        "MySuperSecretPassword2024!",
        "please-change-this-secret-key",
        "replace-me-with-a-real-secret",
        "supersecretkey123",
    ),
    *("Passw0rd!Passw0rd!Passw0rd!", "deadbeef" * 4, "00000000-0000-0000-0000-000000000000", "your-256-bit-secret"),
    *("sessile-secret-0001", "geheimes-passwort-2024", "motdepassesecret123", "my-app-production-secret-key", ""),
]
LETTERS = string.ascii_letters + string.digits


@pytest.mark.parametrize("secret", WEAK)
def test_what_people_think_up_is_weak(secret: str) -> None:
    """Words, sequences, repetitions, and what is put together of them, however long it is."""
    assert bits_of(secret.encode()) < BITS_MIN


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: base64.urlsafe_b64encode(rng.randbytes(32)),
        lambda rng: rng.randbytes(16).hex().encode(),
        lambda rng: str(uuid.UUID(bytes=rng.randbytes(16), version=4)).encode(),
        lambda rng: base64.b32encode(rng.randbytes(20)),
        lambda rng: "".join(rng.choices(LETTERS, k=24)).encode(),
        lambda rng: rng.randbytes(16),
    ],
)
def test_what_is_drawn_is_strong(draw: object) -> None:
    """In every usual alphabet: a thousand of each."""
    assert callable(draw)
    rng = random.Random(5)
    assert min(bits_of(draw(rng)) for _ in range(1_000)) >= BITS_MIN


def test_what_keygen_draws_is_far_from_weak() -> None:
    """Nobody is ever asked to draw another."""
    assert min(bits_of(keygen.draw().encode()) for _ in range(1_000)) > 2 * BITS_MIN


def test_more_is_never_less() -> None:
    """Only the first bytes are looked at, so that a long secret costs no time, and more of it does not count against it."""
    drawn = base64.urlsafe_b64encode(random.Random(6).randbytes(96))
    assert len(drawn) == LOOKED_AT_BYTES
    assert bits_of(drawn + b"s" * 4_000) == bits_of(drawn)
