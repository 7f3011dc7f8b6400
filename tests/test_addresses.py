from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.addresses import (
    MEMBERS_MAX,
    PORT,
    Address,
    DnsName,
    read_listening,
    read_members,
    read_reachable,
    split,
)
from sessile.replication import member, membership


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("web1", "web1", PORT),
        ("web1:1", "web1", 1),
        ("web1:65535", "web1", 65_535),
        (" Web-1.Example.COM:07400 ", "web-1.example.com", 7_400),
        ("shop_web_1", "shop_web_1", PORT),
        ("web.default.svc.cluster.local.", "web.default.svc.cluster.local.", PORT),
        ("10.0.0.1:7401", "10.0.0.1", 7_401),
        ("1web", "1web", PORT),
        ("1.2.web", "1.2.web", PORT),
        ("[::1]", "::1", PORT),
        ("[2001:DB8:0:0::1]:7401", "2001:db8::1", 7_401),
        ("x" * 63, "x" * 63, PORT),
    ],
)
def test_an_address_is_read_into_one_form(text: str, host: str, port: int) -> None:
    """Name or IP address, with a port or the usual one; what is written out reads as itself."""
    address = split(text)
    assert address == Address(host, port)
    assert split(str(address)) == address
    assert read_reachable(text) == str(address)
    assert read_members([text]) == read_members(address) == (address,)


@pytest.mark.parametrize("address", [Address("a", 1), Address("10.0.0.1", 7_400), Address("::1", 65_535)])
def test_an_address_is_written_as_people_write_it(address: Address) -> None:
    """IPv6 in brackets."""
    assert str(address) == (f"[{address.host}]:{address.port}" if ":" in address.host else ":".join(map(str, address)))


NO_ADDRESS = [
    *(
        "",
        " ",
        ":7400",
        "a:",
        "a:x",
        "a:123456",
        "a b",
        "a/b",
        "http://a",
        "http://a:80",
        "user@a",
        "a..b",
        ".a",
        "a:1:2",
    ),
    *(
        "-a",
        "a-",
        "7400",
        "1.2.3",
        "300.0.0.1",
        "010.0.0.1",
        "web.1",
        "ü",
        "a\n:1",
        "x" * 64,
        "a." * 127 + "a",
        "*:7400",
    ),
    *("[a]", "[10.0.0.1]", "[::1", "::1]", "[]:1", "[::1]7400", "[fe80::1%eth0]", "[::1]:", "[[::1]]:1"),
]


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address(text: str) -> None:
    """The refusal says how one looks."""
    with pytest.raises(ValueError, match=r"^is no address: give a host name or an IP address.*, as in web1:7400$"):
        split(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("::1", r"^is an IPv6 address without brackets: write it as in \[2001:db8::1\]:7400$"),
        ("2001:db8::1:7400", "^is an IPv6 address without brackets"),
        ("a:0", "^is an address without a port from 1 to 65535"),
        ("[::1]:65536", "^is an address without a port from 1 to 65535"),
    ],
)
def test_what_is_nearly_an_address(text: str, message: str) -> None:
    """The refusal says what is missing."""
    with pytest.raises(ValueError, match=message):
        split(text)


@pytest.mark.parametrize(
    ("text", "is_loopback", "is_unspecified"),
    [
        ("localhost", True, False),
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("[::1]", True, False),
        ("localhost.example.com", False, False),
        ("web1", False, False),
        ("10.0.0.1", False, False),
        ("0.0.0.0", False, True),
        ("[::]", False, True),
    ],
)
def test_what_an_address_reaches(text: str, *, is_loopback: bool, is_unspecified: bool) -> None:
    """This machine alone, others, or every interface."""
    assert split(text).is_loopback is is_loopback
    assert split(text).is_unspecified is is_unspecified


def test_a_dns_name_stands_for_several_servers() -> None:
    """It keeps its prefix when written, is no address of the same name, and is never loopback for certain."""
    for text in ("dns:web", "DNS:Web:7400", " dns:web "):
        assert read_members(text) == (DnsName("web", PORT),)
    (name,) = read_members("dns:web.default.svc:7500")
    assert str(name) == "dns:web.default.svc:7500"
    assert read_members(name) == read_members([name]) == (name,)
    assert len(read_members("dns:web,web")) == 2
    assert not DnsName("localhost", 1).is_loopback


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ("", ()),
        ("  ", ()),
        ((), ()),
        ("a", (Address("a", PORT),)),
        ("a, b:1 ,[::1]", (Address("a", PORT), Address("b", 1), Address("::1", PORT))),
        (
            ["a", " b ", Address("c", 5), DnsName("d", 6)],
            (Address("a", PORT), Address("b", PORT), Address("c", 5), DnsName("d", 6)),
        ),
    ],
)
def test_members_are_read(value: Any, members: Any) -> None:
    """From one text with commas or from a sequence, in their order; and from what was read."""
    assert read_members(value) == members
    assert read_members(read_members(value)) == members


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a,b:x,c", "^holds 'b:x', which is no address"),
        ("a,", "^holds '', which is no address"),
        ("a,,b", "^holds '', which is no address"),
        ("a b", "^holds 'a b', which is no address"),
        (["a,b"], "^holds 'a,b', which is no address"),
        (["a", 5], "^holds 5, which is no address"),
        (["x" * 500], r"^holds 'x{79}, which is no address"),
        ("a,0.0.0.0", "^holds '0.0.0.0', which is every interface of this machine: give the address at which others"),
        ("dns:", "^holds 'dns:', which is no address"),
        ("dns:7400", "^holds 'dns:7400', which is no address"),
        ("dns:10.0.0.1", "^holds 'dns:10.0.0.1', which is an IP address, which needs no DNS: leave out dns:$"),
        ("a,b,a", "^holds a:7400 twice: leave one out$"),
        ("a,A:7400", "^holds a:7400 twice"),
        ("[::1],[0:0::1]:7400", r"^holds \[::1\]:7400 twice"),
        ("dns:a,dns:A", "^holds dns:a:7400 twice"),
        ([f"web{n}" for n in range(MEMBERS_MAX + 1)], "^holds more than 1024 servers: name some of them"),
        (b"a", "^is no list of addresses"),
        (5, "^is no list of addresses"),
        (None, "^is no list of addresses"),
        ({"a"}, "^is no list of addresses: give some with commas between them, as in web1:7400,web2:7400$"),
    ],
)
def test_members_that_are_wrong(value: Any, message: str) -> None:
    """Which of them is wrong is said: a list is long."""
    with pytest.raises(ValueError, match=message):
        read_members(value)


@pytest.mark.parametrize("nothing", ["", None])
def test_no_address_is_one_too(nothing: Any) -> None:
    """Where one may be left out."""
    assert read_reachable(nothing) == ""
    assert read_listening(nothing) == ""


def test_where_others_reach_a_server_is_no_wildcard() -> None:
    """Nobody can dial every interface."""
    for text in ("0.0.0.0:7400", "[::]:7400"):
        with pytest.raises(ValueError, match="is every interface of this machine"):
            read_reachable(text)
        assert read_listening(text) == text


def test_where_a_server_listens_names_its_port() -> None:
    """The usual port would be a surprise where others reach the server at another."""
    assert read_listening("WEB1:7401") == "web1:7401"
    for text in ("0.0.0.0", "web1", "[::]"):
        with pytest.raises(ValueError, match=r"^is an address without a port: give both, as in 0\.0\.0\.0:7400$"):
            read_listening(text)


@given(st.one_of(st.text(), st.from_regex(r"[\[\]a0:.]{1,12}", fullmatch=True)))
def test_whatever_is_read_is_written_and_read_again(text: str) -> None:
    """Any text is an address whose text is its own, or a ValueError."""
    try:
        address = split(text)
    except ValueError:
        return
    assert split(str(address)) == address
    assert 0 < address.port < 2**16


def test_as_many_as_a_node_looks_at() -> None:
    """Neither more addresses nor longer ones than replication takes."""
    assert MEMBERS_MAX == membership.MEMBERS_MAX
    longest = str(Address(f"{'a.' * 126}a", 65_535))
    assert split(longest) and len(longest) <= member.NAME_CHARS_MAX
