"""Kong's services and the upstreams behind them → services of ours, each with its targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .imported import Findings, name_of

META = frozenset(("_comment", "_ignore", "created_at", "id", "tags", "updated_at"))  # nothing that acts

_SERVICE = frozenset(
    {
        "name", "url", "protocol", "host", "port", "path", "connect_timeout", "read_timeout", "retries", "enabled",
        "routes", "plugins", "tls_verify",
    }
)  # fmt: skip
_UPSTREAM = frozenset(
    {"name", "targets", "algorithm", "hash_on", "hash_on_header", "hash_on_cookie", "healthchecks"}
)
_ALGORITHMS = {
    "round-robin": "round_robin",
    "least-connections": "least_connections",
    "consistent-hashing": "consistent_hash",
    "latency": "peak_ewma",
}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MOST_RETRIES, _MOST_WEIGHT, _SHORTEST_S = 10, 1000, 0.01

Upstreams = Mapping[str, tuple[str, dict[str, Any]]]  # by name: the place in the file, and what stands there


class Services:
    """Collects the services; `at` is always the place in Kong's file."""

    def __init__(self, found: Findings, upstreams: Upstreams) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.bases: dict[str, str] = {}  # a service's own path, which Kong puts in front
        self.off: set[str] = set()  # services that are not enabled
        self._found, self._upstreams = found, upstreams

    def read(self, at: str, values: dict[str, Any]) -> str:
        """Its name here; "" for one that is not carried over."""
        name = name_of(name_in(values), self.made, "service")
        service = _read(at, values, self._upstreams, self._found)
        if service is None:
            return ""
        self.made[name], self.bases[name] = service, _base_path(values)
        if values.get("enabled") is False:
            self.off.add(name)
        return name


def name_in(values: Mapping[str, Any]) -> str:
    """What Kong knows it by."""
    return str(values.get("name") or values.get("host") or "")


def _read(at: str, values: dict[str, Any], upstreams: Upstreams, found: Findings) -> dict[str, Any] | None:
    """None for one that speaks neither http nor https."""
    scheme, host, port, _ = _origin(values)
    if scheme not in _DEFAULT_PORTS or not host:
        name = values.get("name") or host
        found.note(at, f"service {name} is not carried over: {scheme}://{host} is not http or https")
        return None
    service: dict[str, Any] = {}
    if host in upstreams:
        _read_upstream(*upstreams[host], scheme, service, found)
    else:
        service["targets"] = [_url(scheme, host, port)]
    for key, ours in (("connect_timeout", "connect_timeout"), ("read_timeout", "response_timeout")):
        if isinstance(values.get(key), int):
            service[ours] = max(values[key] / 1000, _SHORTEST_S)
    if isinstance(values.get("retries"), int):
        service["retry"] = {"retries": min(values["retries"], _MOST_RETRIES)}
    if scheme == "https" and values.get("tls_verify") is not True:
        found.note(at, "the targets' certificates are verified here; give tls.ca for authorities of your own")
    found.leftover(values, _SERVICE | META, at)
    return service


def _base_path(values: Mapping[str, Any]) -> str:
    """The path that Kong puts in front of what comes in."""
    return _origin(values)[3].rstrip("/")


def _read_upstream(
    at: str, values: dict[str, Any], scheme: str, service: dict[str, Any], found: Findings
) -> None:
    weights = [
        _target(place, target, scheme, found)
        for place, target in found.mappings(values.get("targets"), f"{at}.targets")
    ]
    if not weights:
        found.wrong(at, f"upstream {values.get('name')} has no targets")
    algorithm = str(values.get("algorithm", "round-robin"))
    service["strategy"] = _ALGORITHMS.get(algorithm, "round_robin")
    if algorithm not in _ALGORITHMS:
        found.note(f"{at}.algorithm", f"{algorithm} is not carried over: targets take turns")
    if len({weight for _, weight in weights if weight}) > 1 and algorithm == "round-robin":
        service["strategy"] = "weighted"
    if algorithm == "consistent-hashing":
        service["hash_on"] = _hash_on(at, values, found)
    service["targets"] = _targets(weights)
    checks = found.mapping(values.get("healthchecks"), f"{at}.healthchecks")
    active = found.mapping(checks.get("active"), f"{at}.healthchecks.active")
    if active.get("http_path") and active.get("type", "http") != "tcp":
        service["health"] = {"path": str(active["http_path"])}
    if checks:
        found.note(
            f"{at}.healthchecks", "thresholds and intervals are not carried over; ours are on by default"
        )
    found.leftover(values, _UPSTREAM | META, at)


def _target(at: str, values: dict[str, Any], scheme: str, found: Findings) -> tuple[str, int]:
    text = str(values.get("target", ""))
    host, _, port = text.rpartition(":")
    has_port = bool(host) and port.isdigit() and not text.endswith("]")
    found.leftover(values, {"target", "weight"} | META, at)
    weight = values.get("weight", 100)
    return _url(scheme, *((host, int(port)) if has_port else (text, 8000))), weight if isinstance(
        weight, int
    ) else 100


def _hash_on(at: str, values: Mapping[str, Any], found: Findings) -> str:
    on = str(values.get("hash_on", "none"))
    name = values.get(f"hash_on_{on}") if on in ("header", "cookie") else None
    if name:
        return f"{on}:{name}"
    if on != "ip":
        found.note(f"{at}.hash_on", f"{on} is not carried over: callers are spread by their address")
    return "ip"


def _targets(weights: Sequence[tuple[str, int]]) -> list[Any]:
    """Weights as small as they get; a weight of 0 is a target that is off."""
    divisor = math.gcd(*(weight for _, weight in weights)) or 1
    most = max((weight // divisor for _, weight in weights), default=1)
    targets: list[Any] = []
    for url, weight in weights:
        share = max(1, round(weight / divisor * min(1.0, _MOST_WEIGHT / max(most, 1))))
        if weight == 0:
            targets.append({"url": url, "state": "off"})
        else:
            targets.append(url if share == 1 else {"url": url, "weight": share})
    return targets


def _origin(values: Mapping[str, Any]) -> tuple[str, str, int, str]:
    """scheme, host, port and path."""
    if values.get("url"):
        parts = urlsplit(str(values["url"]))
        return (
            parts.scheme,
            parts.hostname or "",
            parts.port or _DEFAULT_PORTS.get(parts.scheme, 80),
            parts.path,
        )
    scheme, port = str(values.get("protocol", "http")), values.get("port", 80)
    return (
        scheme,
        str(values.get("host", "")),
        port if isinstance(port, int) else 80,
        str(values.get("path") or ""),
    )


def _url(scheme: str, host: str, port: int) -> str:
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{host}" + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")
