"""The guard against server-side request forgery: resolve → check every address → connect to the checked one.

Whoever connects uses `Pinned.ip` for the socket and `Pinned.host` for Host and TLS names, so that a second DNS answer
(rebinding) changes nothing; redirects are not followed, or come through here again.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from .settings import FoundationConf, conf

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Iterable[str]]

_PORTS = {"http": 80, "https": 443}
_NEVER = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",  # "this host" (RFC 1122): Linux connects it to loopback
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "100.100.100.200/32",  # Alibaba Cloud metadata
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle Cloud metadata
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
        "::/128",
        "fe80::/10",  # link-local
        "fd00:ec2::/32",  # AWS metadata over IPv6
        "fd20:ce::254/128",  # Google Cloud metadata over IPv6
        "ff00::/8",  # multicast
    )
)
_PRIVATE = tuple(
    ipaddress.ip_network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_NAT64 = tuple(
    ipaddress.IPv6Network(block) for block in ("64:ff9b::/96", "64:ff9b:1::/48")
)  # RFC 6052, RFC 8215
_COMPATIBLE = IPv6Network("::/96")  # IPv4-compatible, deprecated by RFC 4291
_ISATAP = (0x5EFE, 0x0200_5EFE)  # RFC 5214: the upper half of the interface identifier

# Parsers disagree about everything else in an authority; a URL that two of them read differently is an attack.
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")


class Refused(ValueError):
    """The platform does not connect there. The message names the reason."""


class Unresolved(Refused):
    """The name has no address now."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be connected to besides the public internet. Metadata and link-local addresses: never, by no setting."""

    allow_loopback: bool = False
    allow_private: bool = False
    allowed_networks: tuple[Network, ...] = ()
    schemes: tuple[str, ...] = ("http", "https")

    @classmethod
    def of(cls, settings: FoundationConf) -> Policy:
        """Raises ValueError for a block that is not in CIDR notation."""
        return cls(
            allow_loopback=settings.ALLOW_LOOPBACK_TARGETS,
            allow_private=settings.ALLOW_PRIVATE_TARGETS,
            allowed_networks=tuple(ipaddress.ip_network(block) for block in settings.ALLOWED_NETWORKS),
        )


@dataclass(frozen=True, slots=True)
class Pinned:
    """A target that was checked. ip: connect here. addresses: all that the name resolved to, all of them checked."""

    scheme: str
    host: str
    port: int
    ip: str
    addresses: tuple[str, ...]


def resolve_by_system(host: str, port: int) -> list[str]:
    """Addresses by getaddrinfo, which also reads 127.1, 0x7f000001 and 017700000001 as the addresses they are."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unresolved(f"{host} does not resolve") from error
    return [str(entry[4][0]) for entry in found]


def check(url: str, policy: Policy | None = None, resolve: Resolve = resolve_by_system) -> Pinned:
    """Where to connect for `url`. Raises Refused. policy: the settings' by default. Blocks while it resolves."""
    rules = policy or Policy.of(conf())
    scheme, host, port = _parts(url, rules)
    addresses = tuple(dict.fromkeys(_addresses(host, port, resolve)))
    if not addresses:
        raise Unresolved(f"{host} does not resolve")
    checked = tuple(check_address(address, rules) for address in addresses)
    return Pinned(scheme, host, port, str(checked[0]), tuple(map(str, checked)))


def _parts(url: str, policy: Policy) -> tuple[str, str, int]:
    if _CONTROL.search(url):
        raise Refused("the URL holds a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused("the URL's host or port cannot be read") from error
    scheme = parts.scheme.lower()
    if scheme not in policy.schemes:
        raise Refused(f"the scheme {scheme!r} is not one of {', '.join(policy.schemes)}")
    if "@" in parts.netloc:
        raise Refused("the URL holds a user name or password")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host):
        raise Refused(
            "the URL's host is missing or not plain ASCII (write an international name in its xn-- form)"
        )
    if port == 0:
        raise Refused("port 0 cannot be connected to")
    return scheme, host, port or _PORTS.get(scheme, 0)


def _addresses(host: str, port: int, resolve: Resolve) -> Iterable[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        return resolve(host, port)


def check_address(address: str | Address, policy: Policy) -> Address:
    """The address to connect to (an IPv4-mapped one as plain IPv4). Raises Refused for one that is not allowed."""
    try:
        # An IPv6 zone (fe80::1%eth0) names an interface of ours; only link-local addresses have one.
        ip = ipaddress.ip_address(address.partition("%")[0] if isinstance(address, str) else address)
    except ValueError as error:
        raise Refused(f"{address} is not an IP address") from error
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    for candidate in (ip, *embedded(ip)):
        _refuse(candidate, policy)
    return ip


def embedded(ip: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a gateway on the way would make of an IPv6 one: NAT64, 6to4, Teredo, ISATAP, compatible."""
    if isinstance(ip, IPv4Address):
        return ()
    last = IPv4Address(int(ip) & 0xFFFF_FFFF)
    found = []
    if any(ip in network for network in _NAT64) or (ip in _COMPATIBLE and int(ip) > 1):
        found.append(last)
    if (int(ip) >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(last)
    if ip.sixtofour:
        found.append(ip.sixtofour)
    if ip.teredo:
        found.extend(ip.teredo)
    return tuple(found)


def _refuse(ip: Address, policy: Policy) -> None:
    if any(ip in network for network in _NEVER):
        raise Refused(f"{ip} is a link-local, metadata, multicast or reserved address")
    if any(ip in network for network in policy.allowed_networks):
        return
    if ip.is_loopback:
        if not policy.allow_loopback:
            raise Refused(f"{ip} is a loopback address (BRAIN['FOUNDATION']['ALLOW_LOOPBACK_TARGETS'])")
        return
    if any(ip in network for network in _PRIVATE):
        if not policy.allow_private:
            raise Refused(f"{ip} is a private address (BRAIN['FOUNDATION']['ALLOW_PRIVATE_TARGETS'])")
        return
    if not (ip.is_global or (isinstance(ip, IPv6Address) and embedded(ip))):
        raise Refused(
            f"{ip} is not a public address (BRAIN['FOUNDATION']['ALLOWED_NETWORKS'] can name its network)"
        )
