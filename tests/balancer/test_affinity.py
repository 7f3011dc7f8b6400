"""Affinity tokens and learned values."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.balancer.affinity import Learned, cookie_name, derived_key, set_cookie, token, tokens_of
from sessile.balancer.settings import Affinity
from sessile.cookies import CookiePolicy
from sessile.settings import Settings


def test_tokens_are_opaque_and_keyed() -> None:
    """A token says nothing of its server, differs by secret, and is made of letters a cookie may hold."""
    one, other = (token(derived_key(secret), "server-1") for secret in ("a", "b"))
    assert one != other and b"server" not in one and len(one) == 20
    assert one.replace(b"-", b"").replace(b"_", b"").isalnum()


def test_several_secrets_rotate() -> None:
    """Tokens of every secret are accepted; those of no secret are not."""
    tokens = tokens_of(["new", "old"], ["s1", "s2"])
    assert tokens[token(derived_key("old"), "s2")] == "s2" and tokens[token(derived_key("new"), "s1")] == "s1"
    assert len(tokens) == 4 and token(derived_key("other"), "s1") not in tokens


def test_the_cookie() -> None:
    """The attributes are those a browser protects it by; no cache keeps it."""
    line = set_cookie(b"stay", b"T", Affinity(), is_secure=True)
    assert line == b"Set-Cookie: stay=T; Path=/; HttpOnly; SameSite=Lax; Secure\r\nCache-Control: no-store\r\n"
    assert b"Secure" not in set_cookie(b"stay", b"T", Affinity(), is_secure=False)


@pytest.mark.parametrize("samesite", ["lax", "strict", "none"])
@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("is_secure", [False, True])
def test_the_cookie_looks_as_the_session_s(*, samesite: Any, partitioned: bool, is_secure: bool) -> None:
    """With equal settings it has the attributes of the session cookie, over https and over http."""
    affinity = Affinity(samesite=samesite, partitioned=partitioned)
    line = set_cookie(b"stay", b"T", affinity, is_secure=is_secure).split(b"\r\n")[0]
    policy = CookiePolicy(Settings(samesite=samesite, partitioned=partitioned))
    session = policy.id_cookie(b"T", is_https=is_secure)
    assert set(line.split(b"; ")[1:]) == set(session.split(b"; ")[1:])


def test_two_services_have_two_cookies() -> None:
    """A name of its own for each secret, cluster and port, which tells nothing of the secret or of a server."""
    names = {cookie_name(secret, cluster, port) for secret in "ab" for cluster in "cd" for port in (80, 81)}
    assert len(names) == 8 and cookie_name("a", "c", 80) in names
    assert all(name.startswith(b"affinity-") and len(name) == 17 for name in names)


def test_learned_values_are_bounded() -> None:
    """The least recently used is forgotten first, and no value is kept in the clear."""
    learned = Learned(2)
    learned.learn(b"a", "s1")
    learned.learn(b"b", "s2")
    assert learned.server_of(b"a") == "s1"
    learned.learn(b"c", "s3")
    assert learned.server_of(b"b") is None and learned.server_of(b"a") == "s1" and len(learned) == 2
    assert b"a" not in learned._entries
