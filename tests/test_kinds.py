from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile import kinds
from sessile.addresses import Address, DnsName

if TYPE_CHECKING:
    from sessile.kinds import Kind

DURATION = kinds.duration("0s", "3650d")
SIZE = kinds.size(2**40)
NUMBER = kinds.number(100)
TRI = kinds.choice("auto", True, False)
WORD = kinds.choice("lax", "strict", "none")
FLAG = kinds.choice(True, False)
FEW = kinds.number(16, at_least=2)
DRAWN, OTHER = "Qm2xV9tL4rYw7sKd8HnP3fJz6bGc1aTe", "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
BYTES = bytes.fromhex("f3e19a07c45b82d6ee10937fb8a4c25d")


READ: list[tuple[Kind, Any, Any]] = [
    *(
        (DURATION, given, 1_800.0)
        for given in (1800, 1800.0, "1800", "1800s", "30m", "0.5h", " 30 M ", timedelta(minutes=30))
    ),
    *((DURATION, each, 0.5) for each in (0.5, "0.5", "500ms", "500 ms", "0.5s")),
    *((DURATION, each, 0.0) for each in (0, "0", "0s", "0ms", timedelta())),
    *((DURATION, each, 172_800.0) for each in ("2d", "48h", 172_800)),
    *((SIZE, each, 2**28) for each in (2**28, "268435456", "256MiB", "0.25GiB", "262144 kib", "268435456B")),
    *((SIZE, each, 10**6) for each in ("1MB", "1000kB", 1e6)),
    *((NUMBER, each, 7) for each in (7, "7", 7.0, " 7 ")),
    *((TRI, each, True) for each in (True, "true", "TRUE", "yes", "on", "1")),
    *((TRI, each, False) for each in (False, "false", "no", "off", "0")),
    *((TRI, each, "auto") for each in ("auto", " Auto ")),
    *((WORD, each, "none") for each in ("none", "NONE")),
    *((FLAG, each, True) for each in (True, "1")),
    (kinds.COOKIE_NAME, "sid_8080", "sid_8080"),
    (kinds.COOKIE_NAME, "!#$%&'*+-.^_`|~0aZ", "!#$%&'*+-.^_`|~0aZ"),
    (kinds.COOKIE_NAME, "__hostess", "__hostess"),
    (kinds.PREFIXES, "/static/", ("/static/",)),
    (kinds.PREFIXES, ["/a", "/b,c"], ("/a", "/b,c")),
    (kinds.PREFIXES, (), ()),
    (kinds.SECRETS, DRAWN, (DRAWN.encode(),)),
    (kinds.SECRETS, f"{DRAWN}, and more\n", (f"{DRAWN}, and more".encode(),)),
    (kinds.SECRETS, [f"{DRAWN}\n", f"{OTHER}\r\n".encode()], (DRAWN.encode(), OTHER.encode())),
    (kinds.SECRETS, f"{DRAWN},x".encode(), (f"{DRAWN},x".encode(),)),
    (kinds.SECRETS, "éèüößäñç", ("éèüößäñç".encode(),)),
    (kinds.SECRETS, BYTES.decode(errors="surrogateescape"), (BYTES,)),
    (kinds.SECRETS, (), ()),
    (FEW, "2", 2),
    (FEW, 16, 16),
    *((kinds.FILE, each, Path("/etc/a b.pem")) for each in ("/etc/a b.pem", Path("/etc/a b.pem"))),
    *((kinds.FILE, each, None) for each in ("", None)),
    *((kinds.MEMBERS, each, (Address("a", 7400),)) for each in ("a", ["a:7400"], Address("a", 7400))),
    (kinds.MEMBERS, "a:1, dns:b", (Address("a", 1), DnsName("b", 7400))),
    (kinds.MEMBERS, "", ()),
    (kinds.MEMBERS, [], ()),
    *((kinds.REACHABLE, each, "a:7400") for each in ("a", " A:7400 ")),
    *((kinds.REACHABLE, each, "") for each in ("", None)),
    (kinds.LISTENING, "[::]:7400", "[::]:7400"),
]


@pytest.mark.parametrize(("kind", "given", "read"), READ)
def test_what_people_write_is_read(kind: Kind, given: Any, read: Any) -> None:
    """Text, numbers and objects become one form, of one type, and reading that again changes nothing."""
    found = kind.read(given)
    assert found == read
    assert type(found) is type(read)
    assert kind.read(found) == found


REFUSED: list[tuple[Kind, list[Any]]] = [
    (DURATION, [-1, "-1s", "", "s", "5 weeks", "1e3", "1h30m", "٣s", True, None, [], b"5s", "1.s"]),
    (DURATION, [float("nan"), float("inf"), 1e300, 10**400, "9" * 400, "4000d", timedelta(days=-1)]),
    (SIZE, [0, -1, 1.5, "0", "0.3KiB", "1M", "2048GiB", "", None, True, float("nan"), 10**30, [1]]),
    (NUMBER, [0, 101, "0", "101", 1.5, "1.5", "1_0", "7k", "", None, False, b"7", float("inf")]),
    (TRI, ["maybe", "", 1, 0, None, [], b"auto", 1.0]),
    (WORD, ["laxx", True, None, "", "true", 0]),
    (FLAG, ["auto", 1, 0, None, ""]),
    (kinds.COOKIE_NAME, ["", "a b", "a=b", "a;b", "ä", "x" * 65, None, b"sid", "a\n", '"a"']),
    (kinds.COOKIE_NAME, ["__Host-sid", "__secure-sid", "__HTTP-x", "__Host-Http-x"]),
    (kinds.PREFIXES, ["static", "", None, 5, ["/a", "b"], ["/a", 5], {"/a"}, b"/a"]),
    (kinds.SECRETS, ["hush", "", b"Qm2xV9tL4rYw7sK", [DRAWN, "hush"], 5, None, [DRAWN] * 9, {DRAWN}]),
    (kinds.SECRETS, [[5], [[DRAWN]], "\ud800" * 16, f"{DRAWN},{OTHER}", [OTHER, f"{DRAWN} , {OTHER}\n"]]),
    (
        kinds.SECRETS,
        ["s" * 32, "password" * 4, [DRAWN, "please-change-this-secret-key"], b"correct horse battery staple"],
    ),
    (FEW, [1, 17, "1", 2.5, None]),
    (kinds.FILE, ["a\nb", "a\0", 5, b"a", ["a"]]),
    (kinds.MEMBERS, [None, 5, b"a", {"a"}, [5], ["a", ""], "a,", "a b"]),
    (kinds.REACHABLE, ["a b", 5, ["a"], "0.0.0.0", "dns:a"]),
    (kinds.LISTENING, ["a", "0.0.0.0", 5, "a:x"]),
]


@pytest.mark.parametrize(("kind", "given"), [(kind, each) for kind, several in REFUSED for each in several])
def test_what_cannot_be_meant_is_refused(kind: Kind, given: Any) -> None:
    """Each refusal is one line that ends a sentence, and does not repeat a secret."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        kind.read(given)
    message = str(caught.value)
    assert message.startswith(("is ", "begins ", "holds "))
    assert "\n" not in message
    if kind.is_hidden and given:
        assert str(given) not in message


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        *(
            (DURATION, value, shown)
            for value, shown in ((1800.0, "30m"), (43_200.0, "12h"), (90.0, "90s"), (1.0, "1s"))
        ),
        *(
            (DURATION, value, shown)
            for value, shown in ((0.25, "250ms"), (0.0, "0s"), (1.5, "1500ms"), (86_400.0, "24h"))
        ),
        *(
            (SIZE, value, shown)
            for value, shown in ((2**28, "256MiB"), (2**30, "1GiB"), (1_000, "1000B"), (1_536, "1536B"))
        ),
        *((TRI, value, shown) for value, shown in (("auto", "auto"), (True, "true"), (False, "false"))),
        (NUMBER, 7, "7"),
        (kinds.PREFIXES, ("/a", "/b"), "/a,/b"),
        (kinds.SECRETS, (DRAWN.encode(),), ""),
        (kinds.FILE, Path("/etc/a.pem"), "/etc/a.pem"),
        (kinds.FILE, None, ""),
        (kinds.MEMBERS, (Address("a", 1), Address("::1", 2), DnsName("b", 3)), "a:1,[::1]:2,dns:b:3"),
        (kinds.REACHABLE, "a:1", "a:1"),
    ],
)
def test_a_value_is_shown_as_people_write_it(kind: Kind, value: Any, shown: str) -> None:
    """The largest unit that gives a whole number; a secret not at all."""
    assert kind.show(value) == shown


@given(st.integers(0, 3_650 * 86_400_000))
def test_a_shown_duration_reads_as_itself(milliseconds: int) -> None:
    """What is shown can be written, for every whole number of milliseconds."""
    seconds = milliseconds / 1_000
    assert abs(float(DURATION.read(DURATION.show(seconds))) - seconds) < 1e-6  # type: ignore[arg-type]  # a float


@given(st.integers(1, 2**40))
def test_a_shown_size_reads_as_itself(amount: int) -> None:
    """What is shown can be written, for every size."""
    assert SIZE.read(SIZE.show(amount)) == amount


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.booleans(), st.lists(st.text()), st.binary()))
def test_whatever_is_given(given: Any) -> None:
    """Any value is read or refused by each kind; nothing else happens."""
    text = kinds.text(r"[a-z]+", "is no word")
    numbers, words = (DURATION, SIZE, NUMBER), (TRI, WORD, FLAG)
    lists, places = (kinds.PREFIXES, kinds.SECRETS, kinds.MEMBERS), (kinds.FILE, kinds.REACHABLE, kinds.LISTENING)
    for kind in (*numbers, *words, *lists, *places, text, kinds.COOKIE_NAME):
        try:
            found = kind.read(given)
        except ValueError:
            continue
        assert kind.read(found) == found


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("idle_timeot", "idle_timeout"), ("IDLE", "idle_timeout"), ("secrte", "secret"), ("", "secret")],
)
def test_the_nearest_name(wrong: str, right: str) -> None:
    """There is always one that is nearest."""
    assert kinds.nearest(wrong, ["secret", "idle_timeout"]) == right or not wrong
