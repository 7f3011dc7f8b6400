"""Which cookies count, which are set and with what, and what the response says to caches."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.cookies import CANDIDATES_MAX, CookiePolicy, add_headers, says_https
from sessile.settings import Settings
from tests.fakes import SECRET

Headers = list[tuple[bytes, bytes]]
SECURE: Final = (True, False, "auto")


def policy(**settings: Any) -> CookiePolicy:
    return CookiePolicy(Settings.load(secret=SECRET, environ={}, **settings))


def read(*headers: bytes, is_https: bool = False, **settings: Any) -> tuple[list[bytes], list[bytes]]:
    presented = policy(**settings).read(headers, is_https=is_https)
    return list(presented.ids), list(presented.versions)


def parts(cookie: bytes) -> tuple[bytes, bytes, set[bytes]]:
    """A Set-Cookie value as name, value and attributes; each attribute once."""
    pair, *attributes = cookie.split(b"; ")
    assert len(set(attributes)) == len(attributes)
    name, _, value = pair.partition(b"=")
    return name, value, set(attributes)


# -- setting ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/shop"])
@pytest.mark.parametrize("partitioned", [True, False])
@pytest.mark.parametrize("samesite", ["lax", "strict", "none"])
@pytest.mark.parametrize("is_https", [True, False])
def test_attributes_follow_the_settings(*, is_https: bool, samesite: str, partitioned: bool, path: str) -> None:
    """Every combination: the prefix the path allows, and nothing that a browser would refuse over this scheme."""
    wanted = policy(samesite=samesite, partitioned=partitioned, path=path, cookie_name="app")
    prefix = b""
    attributes = {b"HttpOnly", b"Path=" + path.encode()}
    if is_https:
        prefix = b"__Host-" if path == "/" else b"__Secure-"
        attributes |= {b"Secure", b"SameSite=" + samesite.capitalize().encode()}
        attributes |= {b"Partitioned"} if partitioned else set()
    else:
        attributes |= {b"SameSite=Strict" if samesite == "strict" else b"SameSite=Lax"}
    assert parts(wanted.id_cookie(b"ID", is_https=is_https)) == (prefix + b"app", b"ID", attributes)
    assert parts(wanted.version_cookie(b"V", is_https=is_https)) == (prefix + b"app_v", b"V", attributes)
    gone = attributes | {b"Max-Age=0", b"Expires=Thu, 01 Jan 1970 00:00:00 GMT"}
    removed = [parts(cookie) for cookie in wanted.removal(is_https=is_https)]
    assert removed == [(prefix + b"app", b"", gone), (prefix + b"app_v", b"", gone)]


def test_the_defaults() -> None:
    """What a browser gets when nothing was set: the strictest there is that still lets links from elsewhere work."""
    assert policy().id_cookie(b"X", is_https=True) == b"__Host-sid=X; HttpOnly; Path=/; SameSite=Lax; Secure"
    assert policy().id_cookie(b"X", is_https=False) == b"sid=X; HttpOnly; Path=/; SameSite=Lax"


@pytest.mark.parametrize("is_https", [True, False])
@pytest.mark.parametrize("path", ["/", "/shop"])
def test_what_is_set_is_read_again(*, is_https: bool, path: str) -> None:
    """A browser that sends both cookies back, in either order, is understood."""
    both = policy(path=path)
    sent = [
        cookie.split(b";")[0]
        for cookie in (both.id_cookie(b"I-_9", is_https=is_https), both.version_cookie(b"V0", is_https=is_https))
    ]
    for header in (b"; ".join(sent), b"; ".join(reversed(sent)), b"a=b; " + b"; ".join(sent) + b"; c=d"):
        presented = both.read([header], is_https=is_https)
        assert (*presented.ids, *presented.versions) == (b"I-_9", b"V0")
        assert (presented.is_https, presented.is_inferred) == (is_https, False)


# -- whether it is HTTPS -----------------------------------------------------------------------------------------------------

PREFIXED: Final = b"__Host-sid=P; __Host-sid_v=PV"
PLAIN: Final = b"sid=U; sid_v=UV"


@pytest.mark.parametrize(
    ("secure", "is_https", "header", "says_https", "is_inferred"),
    [
        ("auto", True, PLAIN, True, False),
        ("auto", True, PREFIXED, True, False),
        ("auto", True, b"", True, False),
        ("auto", False, PLAIN, False, False),
        ("auto", False, PREFIXED, True, True),
        ("auto", False, PLAIN + b"; " + PREFIXED, True, True),
        ("auto", False, b"__Host-sid_v=PV", True, True),
        ("auto", False, b"foo=__Host-sid; " + PLAIN, False, False),
        ("auto", False, b"x__Host-sid=P; " + PLAIN, False, False),
        ("auto", False, b"", False, False),
        *[(True, scheme, header, True, False) for scheme in (True, False) for header in (PLAIN, PREFIXED, b"")],
        *[(False, scheme, header, False, False) for scheme in (True, False) for header in (PLAIN, PREFIXED, b"")],
    ],
)
def test_the_scheme_is_as_set_or_as_told_or_as_the_cookies_say(
    *, secure: object, is_https: bool, header: bytes, says_https: bool, is_inferred: bool
) -> None:
    """Under `auto` a cookie of ours with the prefix over http means that TLS ended in front; a setting overrules the request.

    And only the names that belong to the scheme count: over HTTPS those with the prefix, over HTTP those without.
    """
    presented = policy(secure=secure).read([header], is_https=is_https)
    assert (presented.is_https, presented.is_inferred) == (says_https, is_inferred)
    sent = dict(pair.split(b"=", 1) for pair in header.split(b"; ") if pair)
    prefix = b"__Host-" if says_https else b""
    assert list(presented.ids) == [sent[name] for name in (prefix + b"sid",) if name in sent]
    assert list(presented.versions) == [sent[name] for name in (prefix + b"sid_v",) if name in sent]


def test_a_cookie_planted_over_http_does_not_count() -> None:
    """Over HTTPS a cookie without the prefix is nobody's: anybody on the way may have set it."""
    assert read(b"sid=EVIL; __Host-sid=MINE", is_https=True) == ([b"MINE"], [])
    assert read(b"sid=EVIL", is_https=True) == ([], [])
    assert read(b"__Secure-sid=EVIL; sid=EVIL", is_https=True) == ([], [])
    assert read(b"__Host-sid=EVIL; __Secure-sid=MINE", is_https=True, path="/shop") == ([b"MINE"], [])


@pytest.mark.parametrize(
    "header",
    [
        b"foo=bar __Host-sid=EVIL",
        b"foo=bar\t__Host-sid=EVIL",
        b"foo=bar,__Host-sid=EVIL",
        b'foo="bar __Host-sid=EVIL"',
        b"foo=__Host-sid=EVIL",
        b"foo __Host-sid=EVIL",
        b"x__Host-sid=EVIL",
        b"-__Host-sid=EVIL",
        b"__host-sid=EVIL",
        b"foo=a\x0b__Host-sid=EVIL",
        b"foo=a\x0c__Host-sid=EVIL",
        b"foo=a\r\n__Host-sid=EVIL",
        b"__Host-sid=E VIL",
        b"__Host-sid=EVIL x",
        b"__Host-sid=EVIL, x=y",
        b"__Host-sid =EVIL",
        b"__Host-sid",
        b"__Host-sid_v_v=EVIL",
        b"__Host-sid2=EVIL",
    ],
)
def test_no_other_cookie_s_name_or_value_passes_for_ours(header: bytes) -> None:
    """Only a semicolon ends a cookie: whoever may set another one cannot plant ours inside its value."""
    assert read(header, is_https=True) == ([], [])
    assert read(b"a=b; " + header + b"; c=d", is_https=True) == ([], [])


# -- reading ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "ids", "versions"),
    [
        ([], [], []),
        ([b""], [], []),
        ([b"other=1"], [], []),
        ([b"sid=A"], [b"A"], []),
        ([b"sid_v=V"], [], [b"V"]),
        ([b"sid="], [b""], []),
        ([b"sid=A;sid_v=V"], [b"A"], [b"V"]),
        ([b" sid=A ;\tsid_v=V\t"], [b"A"], [b"V"]),
        ([b"sid=A; sid=B"], [b"A", b"B"], []),
        ([b"sid=A; sid_v=V; sid=B; sid_v=W"], [b"A", b"B"], [b"V", b"W"]),
        ([b"sid=A", b"sid_v=V"], [b"A"], [b"V"]),
        ([b"sid_v=V", b"sid=A", b"x=y"], [b"A"], [b"V"]),
        ([b"sid=A", b"sid=B; sid_v=V"], [b"A", b"B"], [b"V"]),
        ([b"sidx=1; xsid=2; sid_=3; sid_vv=4; sid=A"], [b"A"], []),
        ([b"sid=A; sid=no!; sid=B"], [b"A", b"B"], []),
        ([b"sid=A; sid_v=V="], [b"A"], []),
        ([b"sid=\xff; sid=A"], [b"A"], []),
    ],
)
def test_candidates_come_in_their_order(headers: list[bytes], ids: list[bytes], versions: list[bytes]) -> None:
    """Every cookie of the right name and of characters that a value of ours may have is a candidate, in their order."""
    assert read(*headers) == (ids, versions)


@pytest.mark.parametrize("is_https", [True, False])
def test_headers_may_come_from_a_generator(*, is_https: bool) -> None:
    """Any iterable will do, one that can be walked only once as well."""
    for sent in (b"sid", b"__Host-sid"):
        headers = [b"x=y", sent + b"=A", b"x=y", sent + b"_v=V"]
        once = policy().read(iter(headers), is_https=is_https)
        assert once == policy().read(headers, is_https=is_https)
        assert list(once.ids) == ([] if is_https and sent == b"sid" else [b"A"])


def test_candidates_are_bounded() -> None:
    """However many cookies of one name come, a few of each are tried."""
    header = b"; ".join(b"sid=%d; sid_v=%d" % (number, number) for number in range(1_000))
    first = [b"%d" % number for number in range(CANDIDATES_MAX)]
    assert read(header) == read(*header.split(b"; ")) == (first, first)


@pytest.mark.parametrize("name", ["a.b", "a|b", "a+b", "s*", "$x", "^sid^", "x_v"])
def test_a_name_is_no_pattern(name: str) -> None:
    """Whatever characters a cookie's name may have, it means itself."""
    mark = name.encode()
    assert read(mark + b"=A; " + mark + b"_v=V", cookie_name=name) == ([b"A"], [b"V"])
    assert read(b"a_b=1; aab=1; ab=1; sss=1; a=1; b=1; x=1; sid=1", cookie_name=name) == ([], [])


_noise = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"sid", b"__Host-", b"_v", b"=", b";", b" ", b'"', b"A", b"\xff", b"\0", b",", b"\n"]),
        max_size=20,
    ).map(b"".join),
)


@given(st.lists(_noise, max_size=4), st.booleans(), st.sampled_from(SECURE))
def test_no_header_raises(headers: list[bytes], is_https: bool, secure: object) -> None:  # noqa: FBT001  # drawn
    """Any bytes at all: nothing raises, and what is read are values of a browser's cookies of ours, split as RFC 6265."""
    presented = policy(secure=secure).read(headers, is_https=is_https)
    pairs = [pair.strip(b" \t").partition(b"=") for header in headers for pair in header.split(b";")]
    prefix = b"__Host-" if presented.is_https else b""
    allowed = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    for suffix, read_ in ((b"", presented.ids), (b"_v", presented.versions)):
        sent = [value for name, is_pair, value in pairs if is_pair and name == prefix + b"sid" + suffix]
        assert list(read_) == [value for value in sent if set(value) <= allowed][:CANDIDATES_MAX]
    assert presented.is_https or secure is not True
    assert not presented.is_inferred or (secure == "auto" and not is_https)


def test_a_long_header_takes_no_longer_than_it_is_long() -> None:
    """Nothing in a header makes reading it worse than linear: half a megabyte of near misses is read at once."""
    for near in (b"sid", b"sid=", b";", b"; ", b" ", b"__Host-sid", b"__Host-__Host-", b"sid=A ", b"sid_v=A;"):
        ids, versions = read(near * (500_000 // len(near)))
        assert len(ids) <= CANDIDATES_MAX and len(versions) <= CANDIDATES_MAX


# -- the response's other headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [(b"vary", b"Cookie")]),
        ([(b"vary", b"Accept")], [(b"vary", b"Accept, Cookie")]),
        ([(b"Vary", b"Accept, Origin")], [(b"Vary", b"Accept, Origin, Cookie")]),
        ([(b"vary", b"Cookie")], [(b"vary", b"Cookie")]),
        ([(b"VARY", b"Accept ,\tcookie")], [(b"VARY", b"Accept ,\tcookie")]),
        ([(b"vary", b"COOKIE")], [(b"vary", b"COOKIE")]),
        ([(b"vary", b"*")], [(b"vary", b"*")]),
        ([(b"vary", b"Accept, *")], [(b"vary", b"Accept, *")]),
        ([(b"vary", b"Cookies, X-Cookie")], [(b"vary", b"Cookies, X-Cookie, Cookie")]),
        ([(b"vary", b"")], [(b"vary", b"Cookie")]),
        ([(b"vary", b"  ")], [(b"vary", b"Cookie")]),
        ([(b"vary", b"A"), (b"x", b"y"), (b"vary", b"B")], [(b"vary", b"A"), (b"x", b"y"), (b"vary", b"B, Cookie")]),
        ([(b"vary", b"cookie"), (b"vary", b"B")], [(b"vary", b"cookie"), (b"vary", b"B")]),
        ([(b"vary", b"*"), (b"vary", b"B")], [(b"vary", b"*"), (b"vary", b"B")]),
        ([(b"vary", b"A"), (b"vary", b"cookie")], [(b"vary", b"A"), (b"vary", b"cookie")]),
        ([(b"vary", b"A"), (b"vary", b"*")], [(b"vary", b"A"), (b"vary", b"*")]),
        ([(b"very", b"A"), (b"x-vary", b"*")], [(b"very", b"A"), (b"x-vary", b"*"), (b"vary", b"Cookie")]),
        ([(b"cache-control", b"public")], [(b"cache-control", b"public"), (b"vary", b"Cookie")]),
    ],
)
def test_vary_is_merged(before: Headers, after: Headers) -> None:
    """Caches learn that the answer depends on the cookie, once, beside whatever else it depends on; nothing else changes."""
    headers = list(before)
    add_headers(headers, [])
    assert headers == after
    add_headers(headers, [])
    assert headers == after, "a second time changes nothing"


def test_an_answer_that_sets_a_cookie_is_stored_nowhere() -> None:
    """Cache-Control is replaced, in every spelling and number; cookies that are there stay, and ours come after them."""
    headers = [
        (b"Cache-Control", b"public, max-age=60"),
        (b"set-cookie", b"theirs=1"),
        (b"cache-control", b"immutable"),
        (b"CACHE-CONTROL", b"no-cache"),
        (b"x-cache-control", b"stays"),
        (b"cache-contro1", b"stays"),
    ]
    same = headers
    add_headers(headers, [b"one=1", b"two=2"])
    assert headers == [
        (b"set-cookie", b"theirs=1"),
        (b"x-cache-control", b"stays"),
        (b"cache-contro1", b"stays"),
        (b"vary", b"Cookie"),
        (b"cache-control", b"no-store"),
        (b"set-cookie", b"one=1"),
        (b"set-cookie", b"two=2"),
    ]
    assert headers is same, "in place: a framework keeps its own list"
    plain: Headers = []
    add_headers(plain, [b"one=1"])
    assert plain == [(b"vary", b"Cookie"), (b"cache-control", b"no-store"), (b"set-cookie", b"one=1")]


@pytest.mark.parametrize(
    ("value", "is_https"),
    [
        (b"https", True),
        (b" HTTPS", True),
        (b"https, http", True),
        (b"wss", True),
        (b"for=1.2.3.4; Proto=https;by=x", True),
        (b'proto="https"', True),
        (b"http", False),
        (b"http, https", False),
        (b"for=https", False),
        (b"", False),
        (b"x" * 300 + b"proto=https", False),
    ],
)
def test_what_a_proxy_says_of_the_browser(*, value: bytes, is_https: bool) -> None:
    """X-Forwarded-Proto begins with the browser's side; Forwarded names it. No more than its beginning is read."""
    assert says_https(value) is is_https
