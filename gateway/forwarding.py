"""Who the client is when proxies stand before us: X-Forwarded-* and Forwarded (RFC 7239), believed from trusted ones.

The list of addresses is walked from the right, from the nearest proxy outwards, for as long as each is trusted; the
first that is not is the client, and what it claims about itself is its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Networks = tuple[IPv4Network | IPv6Network, ...]
MAX_HOPS = 32
# A Host header: a name or an address, and a port.
HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class Sender:
    """host: as the outermost trusted proxy was asked for it, None: as it stands in the request."""

    ip: str
    scheme: bytes
    host: bytes | None = None


def networks(blocks: Sequence[str]) -> Networks:
    """Raises ValueError for a block that is not in CIDR notation."""
    return tuple(network(block) for block in blocks)


def network(block: str) -> IPv4Network | IPv6Network:
    """Raises ValueError."""
    try:
        return ip_network(block, strict=False)
    except ValueError:
        raise ValueError("it is no network in CIDR notation") from None


def plain(ip: str) -> str:
    """One spelling of an address: a socket that takes both versions tells of 192.0.2.1 as ::ffff:192.0.2.1, which no
    trusted 192.0.2.0/24 holds. Whatever is no address stays as it is."""
    try:
        return str(_address(ip))
    except ValueError:
        return ip


def is_trusted(ip: str, trusted: Networks) -> bool:
    try:
        address = _address(ip)
    except ValueError:
        return False
    return any(address in network for network in trusted if network.version == address.version)


def _address(text: str) -> IPv4Address | IPv6Address:
    """Raises ValueError."""
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def counted(ip: str, prefix: int) -> str:
    """An address as limits count it: of IPv6 its network, for whoever has one address has 2**64 of them. prefix: the
    bits of that network."""
    if ":" not in ip:
        return ip
    try:
        address = _address(ip)
    except ValueError:
        return ip
    if isinstance(address, IPv4Address) or prefix >= 128:
        return str(address)
    return str(IPv6Network((int(address), prefix), strict=False))


def sender(peer: str, scheme: bytes, headers: Sequence[tuple[bytes, bytes]], trusted: Networks) -> Sender:
    """headers: of the request. Of a peer that is not trusted nothing is believed.

    Forwarded counts where it is there, and X-Forwarded-* only where it is not: the two are never mixed.
    """
    peer = plain(peer)
    if not is_trusted(peer, trusted):
        return Sender(peer, scheme)
    given: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        given.setdefault(name.lower(), []).append(value)
    if b"forwarded" in given:
        whole = b",".join(given[b"forwarded"])
        # A quote that the client left open would swallow what the proxies have written behind it.
        hops = [_parameters(part) for part in _split(whole)] if whole.count(b'"') % 2 == 0 else []
    else:
        hops = _old(given)
    return _walk(peer, scheme, hops, trusted)


def chain(peer: str, found: Sender, headers: Sequence[tuple[bytes, bytes]], trusted: Networks) -> bytes:
    """The X-Forwarded-For that goes on. found: by `sender`, of the same: with a trusted proxy before us it is what the proxies
    said, and then the last of them."""
    peer = plain(peer)
    if not is_trusted(peer, trusted):
        return peer.encode()
    given = b", ".join(value for name, value in headers if name.lower() == b"x-forwarded-for")
    if not given or any(name.lower() == b"forwarded" for name, _ in headers):
        given = found.ip.encode()  # a proxy that writes Forwarded passes on whatever stands in the other
    return given + b", " + peer.encode()


def bare_host(host: bytes) -> str:
    """In lower case, without the port. An IPv6 address keeps it: no route has one for a host."""
    text = host.decode("latin-1").lower()
    return text.partition(":")[0] if text.count(":") == 1 else text


def _walk(peer: str, scheme: bytes, hops: list[dict[bytes, bytes]], trusted: Networks) -> Sender:
    found = Sender(peer, scheme)
    for hop in reversed(hops[-MAX_HOPS:]):
        address = _node(hop.get(b"for", b""))
        if address is None:
            break
        proto = hop.get(b"proto", b"").lower()
        host = hop.get(b"host", b"")
        found = Sender(
            address,
            proto if proto in (b"http", b"https") else found.scheme,
            host if HOST.fullmatch(host) else found.host,
        )
        if not is_trusted(address, trusted):
            break
    return found


def _old(given: dict[bytes, list[bytes]]) -> list[dict[bytes, bytes]]:
    """X-Forwarded-Proto and -Host say one thing about the whole way: they go with each address."""
    common = {
        parameter: given[name][-1].split(b",")[-1].strip()
        for parameter, name in ((b"proto", b"x-forwarded-proto"), (b"host", b"x-forwarded-host"))
        if name in given
    }
    addresses = b",".join(given.get(b"x-forwarded-for", [])).split(b",")
    return [{**common, b"for": address.strip()} for address in addresses if address.strip()]


def _split(value: bytes) -> list[bytes]:
    """At the commas outside of quotes."""
    parts, current, quoted = [], bytearray(), False
    for i in range(len(value)):
        byte = value[i : i + 1]
        if byte == b'"':
            quoted = not quoted
        if byte == b"," and not quoted:
            parts.append(bytes(current))
            current.clear()
        else:
            current += byte
    return [*parts, bytes(current)]


def _parameters(part: bytes) -> dict[bytes, bytes]:
    found = {}
    for pair in part.split(b";"):
        name, _, value = pair.strip().partition(b"=")
        found[name.strip().lower()] = value.strip().strip(b'"')
    return found


def _node(value: bytes) -> str | None:
    """The address in `192.0.2.43`, `192.0.2.43:47011`, `[2001:db8::1]:47011` or `2001:db8::1`; None for `unknown`,
    an obfuscated name (RFC 7239 section 6.3) and anything else."""
    text = value.decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(_address(text))
    except ValueError:
        return None
