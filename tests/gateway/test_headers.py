from __future__ import annotations

import pytest

from gateway import forwarding, headers, trace
from gateway.auth import Identity

TRUSTED = forwarding.networks(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"Accept", headers.PASS), (b"X-Custom", headers.PASS), (b"Proxy-Connection", headers.DROP),
        (b"X-Consumer-Id", headers.DROP), (b"x-consumer-anything", headers.DROP), (b"X_Consumer_Id", headers.DROP),
        (b"X-Forwarded-Port", headers.DROP), (b"X-Real-IP", headers.DROP), (b"My-Key", headers.KEY),
        (b"Proxy", headers.DROP), (b"HOST", headers.HOST), (b"Keep-Alive", headers.DROP),
    ],
)  # fmt: skip
def test_of_requests__name__judged_once_and_the_same_again(name: bytes, kind: int) -> None:
    names = headers.of_requests(b"my-key")
    assert (names[name], names[name], name in names) == (kind, kind, True)


def test_names__strangers_names__bounded() -> None:
    names = headers.of_requests(b"k")
    for i in range(10_000):
        assert names[b"X-%d" % i] == headers.PASS
    assert len(names) <= 4096
    assert names[b"Accept"] == headers.PASS
    assert b"Accept" in names, "strangers keep nobody's names out"


def test_names__stranger_s_long_name__judged_and_not_remembered() -> None:
    names = headers.of_requests(b"k")
    before = len(names)
    for long in (b"X-Consumer-" + b"a" * 10_000, b"b_" * 5_000):
        assert names[long] == headers.DROP
    assert names[b"c" * 10_000] == headers.PASS
    assert len(names) == before


def test_listed__connection__cannot_take_off_what_gives_the_message_its_meaning() -> None:
    assert headers.listed([b"X-A, close", b"Authorization , x-b"]) == {b"x-a", b"close", b"x-b"}


def test_consumer__characters_that_a_header_cannot_carry__encoded() -> None:
    found = dict(headers.consumer(Identity("key:a b", "a\r\nb", frozenset({"x,y"}))))
    assert found == {
        b"X-Consumer-Id": b"key:a%20b", b"X-Consumer-Username": b"a%0D%0Ab", b"X-Consumer-Roles": b"x%2Cy",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "segments", "expected"),
    [
        (b"/a/b/c?x=/1", 0, b"/a/b/c?x=/1"), (b"/a/b/c?x=/1", 2, b"/c?x=/1"), (b"/a/b", 2, b"/"),
        (b"/%61/b/c", 1, b"/b/c"), (b"/a/b/", 2, b"/"), (b"/a?x", 1, b"/?x"),
    ],
)  # fmt: skip
def test_stripped__segments__whatever_their_spelling(uri: bytes, segments: int, expected: bytes) -> None:
    assert headers.stripped(uri, segments) == expected


@pytest.mark.parametrize(
    ("hash_on", "expected"),
    [("", None), ("ip", b"1.2.3.4"), ("header:X-Who", b"ada"), ("cookie:sid", b"7"), ("cookie:no", None)],
)
def test_hash_key__place__found(hash_on: str, expected: bytes | None) -> None:
    fields = [(b"x-who", b"ada"), (b"Cookie", b"a=1; sid=7"), (b"X-Who", b"bob")]
    assert headers.hash_key(hash_on, "1.2.3.4", fields) == expected


# --- who the client is
# ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("peer", "given", "ip", "scheme", "host"),
    [
        ("1.1.1.1", {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}, "1.1.1.1", b"http", None),
        ("10.0.0.1", {}, "10.0.0.1", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6"}, "6.6.6.6", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6, 7.7.7.7"}, "7.7.7.7", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6, 7.7.7.7, 10.0.0.2"}, "7.7.7.7", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "10.0.0.3, 10.0.0.2"}, "10.0.0.3", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6, nonsense, 10.0.0.2"}, "10.0.0.2", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6:4711"}, "6.6.6.6", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "a"},
         "6.6.6.6", b"https", b"a"),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher"}, "6.6.6.6", b"http", None),
        ("10.0.0.1", {"Forwarded": 'for="[2001:db9::1]:47";proto=https;host=b, for=10.0.0.2'},
         "2001:db9::1", b"https", b"b"),
        ("10.0.0.1", {"Forwarded": "for=unknown, for=10.0.0.2"}, "10.0.0.2", b"http", None),
        ("10.0.0.1", {"Forwarded": "for=5.5.5.5", "X-Forwarded-For": "6.6.6.6"}, "5.5.5.5", b"http", None),
        ("2001:db8::7", {"X-Forwarded-For": "6.6.6.6"}, "6.6.6.6", b"http", None),
        ("unix", {"X-Forwarded-For": "6.6.6.6"}, "unix", b"http", None),
        ("::ffff:1.1.1.1", {"X-Forwarded-For": "6.6.6.6"}, "1.1.1.1", b"http", None),
        ("::ffff:10.0.0.1", {"X-Forwarded-For": "::ffff:6.6.6.6"}, "6.6.6.6", b"http", None),
        ("10.0.0.1", {"Forwarded": 'for=9.9.9.9;x=", for=6.6.6.6'}, "10.0.0.1", b"http", None),
        ("10.0.0.1", {"Forwarded": 'for=9.9.9.9;x=", for="[2001:db9::1]:47"'}, "10.0.0.1", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "a/b"}, "6.6.6.6", b"http", None),
        ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "[2001:db9::1]:80"},
         "6.6.6.6", b"http", b"[2001:db9::1]:80"),
    ],
)  # fmt: skip
def test_sender__walks_past_trusted_proxies_and_no_further(
    peer: str, given: dict[str, str], ip: str, scheme: bytes, host: bytes | None
) -> None:
    fields = [(name.encode(), value.encode()) for name, value in given.items()]
    assert forwarding.sender(peer, b"http", fields, TRUSTED) == forwarding.Sender(ip, scheme, host)


# --- traces
# -----------------------------------------------------------------------------------------------------------------------
GOOD = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_carry_on__valid__the_same_trace_with_another_span() -> None:
    assert trace.carry_on(GOOD, lambda bits: 7) == b"00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01"
    assert trace.carry_on(GOOD[:-2] + b"fe", lambda bits: 7).endswith(b"-02"), "flags that mean nothing yet"
    assert trace.trace_id(GOOD) == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    "given",
    [
        None, b"", b"00-1-2-01", GOOD.upper(), b"ff" + GOOD[2:], GOOD + b"-x", b"00-" + b"0" * 32 + GOOD[35:],
        GOOD[:36] + b"0" * 16 + b"-01",
    ],
)  # fmt: skip
def test_carry_on__missing_or_not_valid__a_new_trace(given: bytes | None) -> None:
    begun = trace.carry_on(given, lambda bits: 0)
    assert begun == b"00-0000000000000001" + b"0" * 16 + b"-0000000000000001-01"
    assert trace.carry_on(b"01" + GOOD[2:] + b"-more", lambda bits: 7).startswith(b"00-0af7651916cd43dd")


@pytest.mark.parametrize(
    ("ip", "prefix", "expected"),
    [
        ("192.0.2.7", 64, "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::1", 56, "2001:db8:1::/56"),
        ("2001:DB8::1", 128, "2001:db8::1"),
        ("::ffff:192.0.2.7", 64, "192.0.2.7"),
        ("fe80::1%eth0", 64, "fe80::/64"),
        ("a:socket", 64, "a:socket"),
    ],
)
def test_counted__address__of_ipv6_its_network(ip: str, prefix: int, expected: str) -> None:
    assert forwarding.counted(ip, prefix) == expected
