"""Which servers a URL names, and how they are dialled: one server, a primary behind Sentinels, or a cluster. Pure.

redis://  rediss://  valkey://  valkeys://  unix://                    one server, as redis-py spells it
redis+cluster://user:password@host:port,host:port                      any nodes of a cluster
redis+sentinel://user:password@host:port,host:port/service/db          Sentinels, and the service they watch
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

Node = tuple[str, int]
SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")  # of one server
SINGLE, CLUSTER, SENTINEL = "single", "cluster", "sentinel"
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}  # redis-py knows the protocol, not the name
_PORTS = {CLUSTER: 6379, SENTINEL: 26379}


@dataclass(frozen=True, slots=True)
class Servers:
    """url: one server, with credentials, database and options, as redis-py reads it. nodes: of a cluster, or the
    Sentinels; `url` names the first node, or the service in a host's place."""

    kind: str
    url: str
    nodes: tuple[Node, ...] = ()
    service: str = ""

    @property
    def name(self) -> str:
        """For messages and registries: no credentials, no options."""
        if self.kind == SINGLE:
            scheme, _, rest = self.url.partition("://")
            place = rest.partition("?")[0] if scheme == "unix" else rest.partition("/")[0].partition("?")[0]
            return place.rpartition("@")[2]
        listed = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return f"{self.service}@{listed}" if self.service else listed


def parse(url: str) -> Servers:
    """Raises ValueError for a URL that names no servers."""
    scheme, separator, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    base = _SCHEMES.get(base, base)
    if not kind:
        return Servers(SINGLE, f"{base}{separator}{rest}")
    if kind not in _PORTS or base not in ("redis", "rediss"):
        raise ValueError(f"{scheme}:// is no scheme of Redis or Valkey")
    place, path, options = _split(rest)
    login, at, hosts = place.rpartition("@")
    nodes = tuple(_node(text, _PORTS[kind]) for text in hosts.split(",") if text)
    if not nodes:
        raise ValueError(f"{scheme}:// names no host")
    if kind == CLUSTER:
        host, port = nodes[0]
        return Servers(CLUSTER, f"{base}://{login}{at}{_bracketed(host)}:{port}/0{options}", nodes)
    service, _, db = path.strip("/").partition("/")
    if not service:
        raise ValueError(f"{scheme}:// names no service: write …/service/0")
    return Servers(SENTINEL, f"{base}://{login}{at}{service}/{db or 0}{options}", nodes, service)


def of_node(servers: Servers, node: Node) -> str:
    """The URL of one node of a cluster, as if it were a server alone."""
    scheme, _, rest = servers.url.partition("://")
    place, path, options = _split(rest)
    login, at, _ = place.rpartition("@")
    return f"{scheme}://{login}{at}{_bracketed(node[0])}:{node[1]}{path}{options}"


def of_alias(location: Any, options: Mapping[str, Any]) -> str:
    """The URL of an alias: its LOCATION, with CLUSTER, SENTINELS and SENTINEL_SERVICE of its OPTIONS in it.

    Where several servers are listed the first one is the primary, unless they are nodes of a cluster.
    """
    listed = _listed(location)
    return _with_login(_named(listed, options), options)


def names_servers(location: Any, options: Mapping[str, Any]) -> bool:
    """Whether LOCATION and OPTIONS name servers that can be dialled."""
    try:
        url = parse(of_alias(location, options)).url
    except (ValueError, IndexError, KeyError, TypeError):
        return False
    return url.partition("://")[0] in SCHEMES


def _named(listed: list[str], options: Mapping[str, Any]) -> str:
    first = listed[0]
    scheme, _, rest = first.partition("://")
    if "+" in scheme:
        return first
    if options.get("CLUSTER"):
        place, path, query = _split(rest)
        others = [_split(other.partition("://")[2])[0].rpartition("@")[2] for other in listed[1:]]
        return f"{scheme}+{CLUSTER}://{','.join([place, *others])}{path}{query}"
    if options.get("SENTINELS"):
        return _through_sentinels(scheme, rest, options)
    return first


def _with_login(url: str, options: Mapping[str, Any]) -> str:
    """django-redis' USERNAME and PASSWORD; what the URL says itself goes first."""
    given = {name.lower(): options.get(name) for name in ("USERNAME", "PASSWORD")}
    login = urlencode({name: value for name, value in given.items() if value})
    if not login or "@" in url.partition("?")[0] or "password=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{login}"


def replicas_of(location: Any) -> list[str]:
    """The servers after the first one, which django-redis takes for replicas; none of a cluster."""
    listed = _listed(location)
    return [] if "+" in listed[0].partition("://")[0] else listed[1:]


def _through_sentinels(scheme: str, rest: str, options: Mapping[str, Any]) -> str:
    """django-redis' way is LOCATION = redis://service/db; with SENTINEL_SERVICE its host does not matter."""
    place, path, query = _split(rest)
    login, at, host = place.rpartition("@")
    service = options.get("SENTINEL_SERVICE") or host.partition(":")[0]
    nodes = ",".join(f"{_bracketed(node[0])}:{node[1]}" for node in options["SENTINELS"])
    kept = [part for part in query.removeprefix("?").split("&") if part and not part.startswith("is_master=")]
    ending = f"?{'&'.join(kept)}" if kept else ""
    return f"{scheme}+{SENTINEL}://{login}{at}{nodes}/{service}/{path.strip('/') or 0}{ending}"


def _listed(location: Any) -> list[str]:
    """The commas of a cluster's or of Sentinels' URL stand between its hosts, others between URLs."""
    if not isinstance(location, str):
        return [str(one) for one in location]
    return [location] if "+" in location.partition("://")[0] else [one.strip() for one in location.split(",")]


def _split(rest: str) -> tuple[str, str, str]:
    """What follows `://` as place, path and query, each with its sign."""
    before, mark, query = rest.partition("?")
    place, slash, path = before.partition("/")
    return place, slash + path, mark + query


def _node(text: str, port: int) -> Node:
    if text.startswith("["):  # an IPv6 address
        host, _, after = text[1:].partition("]")
        return host, int(after.removeprefix(":") or port)
    host, _, given = text.partition(":")
    return host, int(given or port)


def _bracketed(host: Any) -> str:
    return f"[{host}]" if ":" in str(host) else str(host)


def dial_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What django-redis takes from OPTIONS for a connection, as arguments of redis-py's."""
    named = {
        "socket_timeout": options.get("SOCKET_TIMEOUT"),
        "socket_connect_timeout": options.get("SOCKET_CONNECT_TIMEOUT"),
        "sentinel_kwargs": options.get("SENTINEL_KWARGS"),
    }
    pool = dict(options.get("CONNECTION_POOL_KWARGS") or {})
    # redis-py's own retries: a command whose answer got lost would be sent again, and an INCR counted twice.
    for name in _RETRIES:
        pool.pop(name, None)
    return {name: value for name, value in named.items() if value} | pool


_RETRIES: Iterable[str] = ("retry", "retry_on_timeout", "retry_on_error")
