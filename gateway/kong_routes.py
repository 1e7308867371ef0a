"""Kong's routes → routes of ours, one for each of its paths. A condition that is lost turns its route off: it would widen it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from . import kong_plugins, routing
from .imported import Findings, name_of
from .kong_attachments import Attachments
from .kong_paths import Paths
from .kong_services import META, Services

_ROUTE = frozenset(
    {
        "name", "hosts", "paths", "methods", "headers", "protocols", "strip_path", "preserve_host", "plugins", "service",
        "https_redirect_status_code", "path_handling", "request_buffering", "response_buffering", "snis", "sources",
        "destinations", "expression",
    }
)  # fmt: skip
_MOST_VARIANTS = 20


class Routes:
    """Collects the routes; `at` is always the place in Kong's file."""

    def __init__(self, found: Findings, services: Services, attachments: Attachments, paths: Paths) -> None:
        self.found = found
        self.made: list[dict[str, Any]] = []
        self.allowed: list[list[str]] = []  # groups that some route asks for any one of
        self.key_headers: list[str] = []
        self._services, self._attachments, self._paths = services, attachments, paths
        self._names: set[str] = set()

    def read(self, at: str, values: dict[str, Any], service: str) -> None:
        found = self.found
        self._attachments.add_of(at, values, ("route", str(values.get("name", at))))
        if service not in self._services.made:
            found.note(at, f"route {values.get('name', '')} is not carried over: it has no service here")
            return
        base: dict[str, Any] = {"name": ""}
        doubts = [self._hosts(at, values, base), self._methods(at, values, base)]
        doubts += [self._conditions(at, values)]
        for headers in self._header_variants(at, values):
            for place, path in self._paths.of(at, values):
                self._one_route(
                    at,
                    place,
                    path,
                    values,
                    service,
                    base | ({"headers": headers} if headers else {}),
                    any(doubts),
                )
        found.leftover(values, _ROUTE | META, at)

    def _one_route(
        self,
        at: str,
        place: str,
        path: str,
        values: dict[str, Any],
        service: str,
        base: dict[str, Any],
        is_doubtful: bool,
    ) -> None:
        route = dict(base)
        if not self._paths.fill_in(place, path, values, route, self._services.bases[service]):
            return
        route["name"] = name_of(str(values.get("name") or f"{service}{route['path']}"), self._names, "route")
        self._names.add(route["name"])
        for transform in route.get("transforms", ()):
            transform["name"] = f"{route['name']}-path"
        route["service"] = service
        if values.get("preserve_host"):
            route["host_header"] = "preserve"
        route["auth_required"] = False
        self._apply_plugins(route, str(values.get("name", at)), service)
        if service in self._services.off or is_doubtful:
            route["enabled"] = False
        self.made.append(route)

    def _hosts(self, at: str, values: dict[str, Any], route: dict[str, Any]) -> bool:
        """Each of these fills in one condition and returns whether one was lost, which would widen the route."""
        hosts = self.found.words(values.get("hosts"), f"{at}.hosts")
        good = [host.lower() for host in hosts if routing.HOST.fullmatch(host.lower())]
        if good:
            route["hosts"] = good
        if len(good) < len(hosts):
            self.found.note(f"{at}.hosts", "what is neither a host nor *.name is not carried over")
        return bool(hosts) and not good

    def _methods(self, at: str, values: dict[str, Any], route: dict[str, Any]) -> bool:
        methods = [method.upper() for method in self.found.words(values.get("methods"), f"{at}.methods")]
        good = [method for method in methods if method in routing.ANY_METHOD]
        if good:
            route["methods"] = good
        if len(good) < len(methods):
            self.found.note(
                f"{at}.methods", f"{', '.join(sorted(set(methods) - set(good)))}: not served here"
            )
        return bool(methods) and not good

    def _conditions(self, at: str, values: dict[str, Any]) -> bool:
        protocols = set(self.found.words(values.get("protocols"), f"{at}.protocols"))
        if protocols and "http" not in protocols:
            self.found.note(f"{at}.protocols", "not carried over: TLS is the listener's business")
        lost = [key for key in ("snis", "sources", "destinations", "expression") if values.get(key)]
        for key in lost:
            self.found.note(f"{at}.{key}", "not carried over; the route is off until you turn it on")
        return bool(lost) or bool(protocols and not protocols & {"http", "https"})

    def _header_variants(self, at: str, values: dict[str, Any]) -> list[dict[str, str]]:
        """Any of several values of a header will do for Kong, so each gets a route of its own."""
        given = self.found.mapping(values.get("headers"), f"{at}.headers")
        choices = []
        for name, wanted in given.items():
            texts = self.found.words(wanted, f"{at}.headers.{name}")
            if any(text.startswith("~*") for text in texts):
                self.found.note(f"{at}.headers.{name}", "patterns are not carried over, nor is this route")
                return []
            choices.append([(name, text) for text in texts])
        variants = [
            dict(pairs) for pairs in itertools.islice(itertools.product(*choices), _MOST_VARIANTS + 1)
        ]
        if len(variants) > _MOST_VARIANTS:
            self.found.note(f"{at}.headers", f"only {_MOST_VARIANTS} of its combinations are carried over")
        return variants[:_MOST_VARIANTS]

    def _apply_plugins(self, route: dict[str, Any], name: str, service: str) -> None:
        for plugin, (at, config) in self._attachments.on_route(name, service).items():
            kong_plugins.apply(route, plugin, config, at, self.found)
            if plugin == "acl":
                self.allowed.append(self.found.words(config.get("allow") or config.get("whitelist"), at))
            if plugin == "key-auth":
                self._key_header(at, config)

    def _key_header(self, at: str, config: Mapping[str, Any]) -> None:
        for name in self.found.words(config.get("key_names"), f"{at}.key_names") or ["apikey"]:
            if name not in self.key_headers:
                self.key_headers.append(name)
        if len(self.key_headers) > 1:
            text = f"only {self.key_headers[0]} is read, not {', '.join(self.key_headers[1:])}"
            self.found.note(f"{at}.key_names", text)
