"""Targets and services as they live on from snapshot to snapshot, with their breakers, health and open connections."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from random import random
from typing import Any

import structlog

from foundation import url_guard

from . import dial, origins
from .callers import Sources
from .conf import conf
from .dial import Dial
from .hooks import Watch
from .policy import Policy
from .pool import ACTIVE, Events, Service, Target

log = structlog.get_logger(__name__)

_Key = tuple[str, str, tuple[str, int] | str, str, str]  # service, URL, address, CA, server name


class Living:
    """Of one process. Not for several threads at once. locate: the addresses that a URL may be connected to; raises
    url_guard.Refused."""

    def __init__(
        self, locate: Callable[[str], Sequence[str]] = lambda url: url_guard.check(url).addresses
    ) -> None:
        self._locate = locate
        self._targets: dict[_Key, Target] = {}
        self._services: dict[str, tuple[Any, Service]] = {}  # what it was made of, and it
        self._addresses: dict[
            str, tuple[float, tuple[str, ...]]
        ] = {}  # URL → when, all that passed the guard
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.key_sources: Sources = {}
        self.plugins = Watch()
        self.events: Events | None = None  # who counts what happens to targets and answers

    def service(self, name: str, fields: Any, targets: Sequence[tuple[str, Any]], now: float) -> Service:
        """The service as it is, if nothing about it has changed; else a new one over the same targets. targets: URL and
        fields. Raises ValueError."""
        known = self._services.get(name)
        found = [
            target for url, of in targets if (target := self._target(name, url, fields, of, now)) is not None
        ]
        made_of = (dict(fields), tuple(found), tuple(of["weight"] for _, of in targets))
        if known is not None and known[0] == made_of:
            return known[1]
        if known is not None:
            for target in set(found) - set(known[1].targets):
                target.warm_up(now)
        service = Service(
            name, found, fields["strategy"], random=random, policy=policy(fields), hash_on=fields["hash_on"]
        )
        service.events = self.events
        self._services[name] = made_of, service
        return service

    def keep_keys_fresh(self) -> None:
        """Start fetching the published key sets for which it is time."""
        for source in list(self.key_sources.values()):
            source.keep_fresh()

    def retire(self, services: Iterable[Service]) -> list[Target]:
        """Forget what is in none of these services any more. Returns the targets that are to be closed."""
        names = {service.name for service in services}
        kept = {id(target) for service in services for target in service.targets}
        self._services = {name: known for name, known in self._services.items() if name in names}
        gone = {key: target for key, target in self._targets.items() if id(target) not in kept}
        for key, target in gone.items():
            target.retired = True
            del self._targets[key]
        urls, authorities = {key[1] for key in self._targets}, {key[3] for key in self._targets}
        self._addresses = {url: known for url, known in self._addresses.items() if url in urls}
        self._contexts = {ca: context for ca, context in self._contexts.items() if ca in authorities}
        return list(gone.values())

    def _target(self, service: str, url: str, fields: Any, of: Any, now: float) -> Target | None:
        origin = origins.read(url)
        address = _socket(service, origin) if origin.scheme == "unix" else self._address(service, url, now)
        if address is None:
            return None
        key = (service, url, address, fields["tls_ca"], fields["tls_server_name"])
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = Target(service, origin.name)
            target.dial = Dial(address, origin.host_header, *self._tls(origin, fields), name=origin.name)
        target.weight = of["weight"]
        if target.state != of["state"]:
            target.state = of["state"]
            if target.state == ACTIVE:  # drained, and perhaps started anew since
                target.warm_up(now)
        return target

    def _tls(self, origin: origins.Origin, fields: Any) -> tuple[ssl.SSLContext | None, str]:
        if origin.scheme != "https":
            return None, ""
        ca = fields["tls_ca"]
        if ca not in self._contexts:
            self._contexts[ca] = dial.context(ca)
        return self._contexts[ca], fields["tls_server_name"] or origin.host

    def _address(self, service: str, url: str, now: float) -> tuple[str, int] | None:
        """The address in use for as long as the name still has it. Looked up again every RESOLVE_S."""
        looked_at, addresses = self._addresses.get(url, (float("-inf"), ()))
        if now - looked_at >= conf().RESOLVE_S or not addresses:
            try:
                fresh = self._locate(url)
            except url_guard.Refused as error:
                log.warning("target_refused", service=service, target=url, reason=str(error))
                if not isinstance(error, url_guard.Unresolved) or not addresses:
                    return None
            else:
                # The one in use stays first; names such as localhost come with ::1, where a small server seldom listens.
                current = addresses[0] if addresses else ""
                addresses = tuple(sorted(fresh, key=lambda ip: (ip != current, ":" in ip)))
                self._addresses[url] = now, addresses
        return addresses[0], origins.read(url).port


def _socket(service: str, origin: origins.Origin) -> str | None:
    try:
        origins.check_socket(origin.path, conf().UNIX_SOCKET_DIRS)
    except ValueError as error:
        log.warning("target_refused", service=service, target=origin.name, reason=str(error))
        return None
    return origin.path


def policy(fields: Any) -> Policy:
    """A service's policies in the words of the pool. Raises ValueError."""
    return Policy(
        slow_start_s=fields["slow_start_s"],
        breaker_window_s=fields["breaker_window_s"],
        breaker_volume=fields["breaker_volume"],
        breaker_error_ratio=fields["breaker_failure_ratio"],
        breaker_slow_s=fields["breaker_slow_s"] or 0.0,
        breaker_slow_ratio=fields["breaker_slow_ratio"],
        breaker_open_s=fields["breaker_open_s"],
        breaker_open_max_s=fields["breaker_open_max_s"],
        breaker_probes=fields["breaker_probes"],
        breaker_successes=fields["breaker_probes"],
        outlier_failures=fields["eject_after"],
        outlier_ejection_s=fields["eject_s"],
        outlier_max_percent=fields["eject_most_percent"],
        retry_attempts=fields["retries"] + 1,
        retry_budget_ratio=fields["retry_budget_ratio"],
        retry_budget_min=fields["retry_budget_min"],
        health_enabled=fields["health_enabled"],
        health_path=fields["health_path"],
        health_interval_s=fields["health_interval_s"],
        health_timeout_s=fields["health_timeout_s"],
        health_statuses=fields["health_statuses"],
        healthy_after=fields["healthy_after"],
        unhealthy_after=fields["unhealthy_after"],
    )
