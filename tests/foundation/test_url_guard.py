from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.settings import FoundationConf
from foundation.url_guard import Pinned, Policy, Refused, check, check_address, embedded

PUBLIC = Policy()
OPEN = Policy(allow_loopback=True, allow_private=True, allowed_networks=(ipaddress.ip_network("0.0.0.0/0"),))
DEVELOPMENT = Policy(allow_loopback=True, allow_private=True)


def answers(*addresses: str):
    return lambda host, port: list(addresses)


def test_check__public_name__pinned_to_the_first_checked_address():
    pinned = check("https://api.example.com/v1?x=1", PUBLIC, answers("93.184.216.34", "2606:2800:220:1::1"))
    assert pinned == Pinned(
        "https", "api.example.com", 443, "93.184.216.34", ("93.184.216.34", "2606:2800:220:1::1")
    )


def test_check__one_of_many_addresses_is_private__refused():
    with pytest.raises(Refused, match="private"):
        check("http://mixed.example.com", PUBLIC, answers("93.184.216.34", "10.0.0.5"))


def test_check__port_and_ipv6_literal__kept_and_not_resolved():
    pinned = check("http://[2606:2800:220:1::1]:8080/", PUBLIC, answers())
    assert (pinned.host, pinned.port, pinned.ip) == ("2606:2800:220:1::1", 8080, "2606:2800:220:1::1")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com", "file:///etc/passwd", "gopher://example.com", "//example.com", "example.com", "",
        "http://", "http:///path", "http://user@example.com", "http://user:pw@example.com", "http://a@b@c.com",
        "http://example.com:99999", "http://example.com:0", "http://example.com:port", "http://[::1", "http://[zz]/",
        "http://exa mple.com", "http://example.com\\@evil.com", "http://example.com\r\nHost: x", "http://ex\tample.com",
        "http://ⓔxample.com", "http://127。0。0。1", "http://%31%32%37.0.0.1", "http://exa<mple.com",
    ],
)  # fmt: skip
def test_check__url_that_parsers_may_read_differently__refused(url):
    with pytest.raises(Refused):
        check(url, OPEN, answers("93.184.216.34"))


def test_check__name_without_an_address__refused():
    with pytest.raises(Refused, match="does not resolve"):
        check("http://nowhere.example.com", PUBLIC, answers())


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "127.0.0.1", "localhost"]
)
def test_check__loopback_in_any_spelling__refused_by_what_the_system_resolves(host):
    with pytest.raises(Refused, match="loopback|does not resolve"):
        check(f"http://{host}/", PUBLIC)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd20:ce::254",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1",
        "255.255.255.255", "240.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1",
        "::169.254.169.254", "fd12:3456::5efe:a9fe:a9fe", "2001:0:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_check_address__metadata_and_link_local_in_any_form__refused_under_every_policy(address):
    for policy in (PUBLIC, DEVELOPMENT, OPEN):
        with pytest.raises(Refused):
            check_address(address, policy)


@pytest.mark.parametrize(
    ("address", "loopback", "private"),
    [
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("::1", True, False),
        ("::ffff:127.0.0.1", True, False),
        ("10.1.2.3", False, True),
        ("172.31.0.1", False, True),
        ("192.168.1.1", False, True),
        ("fd12::1", False, True),
        ("::ffff:192.168.1.1", False, True),
        ("64:ff9b::a01:203", False, True),
        ("2002:c0a8:101::1", False, True),
    ],
)
def test_check_address__loopback_and_private__only_by_their_own_setting(address, loopback, private):
    for policy, is_allowed in (
        (PUBLIC, False),
        (Policy(allow_loopback=True), loopback),
        (Policy(allow_private=True), private),
    ):
        if is_allowed:
            check_address(address, policy)
        else:
            with pytest.raises(Refused):
                check_address(address, policy)


@pytest.mark.parametrize("address", ["100.64.0.1", "198.18.0.1", "192.0.2.1", "2001:db8::1"])
def test_check_address__special_ranges__refused_unless_their_network_is_named(address):
    with pytest.raises(Refused, match="not a public address"):
        check_address(address, DEVELOPMENT)
    named = Policy(allowed_networks=(ipaddress.ip_network(address),))
    assert str(check_address(address, named)) == address


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_check_address__public__allowed(address):
    check_address(address, PUBLIC)


def test_check_address__mapped__connects_to_the_plain_form():
    assert str(check_address("::ffff:93.184.216.34", PUBLIC)) == "93.184.216.34"


def test_check_address__no_address__refused():
    with pytest.raises(Refused, match="not an IP address"):
        check_address("example.com", PUBLIC)


@given(st.integers(0, 2**32 - 1))
def test_check_address__any_ipv4__as_strict_in_every_ipv6_clothing(number):
    plain = ipaddress.IPv4Address(number)
    clothed = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(0x64FF9B << 96 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1),
    ]
    if _is_refused(plain):
        assert all(_is_refused(address) for address in clothed)
    else:
        assert plain.is_global


@given(st.ip_addresses(v=6))
def test_check_address__any_ipv6__allowed_means_public_inside_and_out(address):
    if not _is_refused(address):
        assert address.is_global or embedded(address) or address.ipv4_mapped
        assert not any(_is_refused(inner) for inner in embedded(address))


@given(st.text(max_size=60))
def test_check__any_text__refused_or_pinned_never_another_error(text):
    for url in (text, f"http://{text}"):
        try:
            pinned = check(url, PUBLIC, answers("93.184.216.34"))
        except Refused:
            continue
        assert pinned.host.isascii()


def test_policy__settings__become_rules():
    policy = Policy.of(FoundationConf(ALLOW_PRIVATE_TARGETS=True, ALLOWED_NETWORKS=("100.64.0.0/10",)))
    assert policy == Policy(allow_private=True, allowed_networks=(ipaddress.ip_network("100.64.0.0/10"),))


def _is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        check_address(address, PUBLIC)
    except Refused:
        return True
    return False
