"""kong.yml, in decK's format, → our document. Never silently: what has no counterpart here is a note with its line.

services, upstreams → services      routes → routes, one for each path      plugins → see kong_plugins
consumers → authentication.api_keys, keys as their SHA-256      jwt_secrets → issuers
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Any

from . import edits, kong_plugins, kong_services, path_edits, routing, tokens
from .imported import Findings, Imported, finish, name_of, parse
from .kong_services import META

VERSIONS = ("1.1", "2.1", "3.0")

Plugins = dict[str, tuple[str, dict[str, Any]]]  # name → its place and its config

_SECTIONS = frozenset(
    ("_format_version", "_transform", "services", "routes", "upstreams", "consumers", "plugins")
)
_ROUTE = frozenset(
    {
        "name", "hosts", "paths", "methods", "headers", "protocols", "strip_path", "preserve_host", "plugins", "service",
        "https_redirect_status_code", "path_handling", "request_buffering", "response_buffering", "snis", "sources",
        "destinations", "expression",
    }
)  # fmt: skip
_PLAIN_2X = re.compile(r"[A-Za-z0-9.\-_~/%]*")  # before 3.0 any other character made a path a pattern
_PIECE = re.compile(r"\\.|.", re.DOTALL)  # a character of a pattern, or an escaped one
_REFERENCE = re.compile(r"\$\{\{|\{vault:")
_MOST_VARIANTS = 20
_MOST_ISSUERS = tokens.MAX_ISSUERS - 1  # one place is the site's own


def read(text: str) -> Imported:
    """Raises InvalidDocument for what is no such file, naming each key and its line."""
    parsed, found = parse(text)
    reader = _Reader(found)
    if not isinstance(parsed, dict) or "_format_version" not in parsed:
        found.wrong(
            "_format_version", "is missing: this is no declarative configuration of Kong (deck gateway dump)"
        )
    elif str(parsed["_format_version"]) not in VERSIONS:
        found.wrong("_format_version", f"{parsed['_format_version']!r} is not one of {', '.join(VERSIONS)}")
    else:
        reader.document(found.mapping(parsed, ""))
    return finish(reader.made(), found)


class _Reader:
    """Collects the parts of our document; `at` is always the place in Kong's file."""

    def __init__(self, found: Findings) -> None:
        self.found = found
        self.is_old = False  # before 3.0: patterns are not marked
        self.upstreams: dict[str, tuple[str, dict[str, Any]]] = {}  # with their places
        self.services: dict[str, dict[str, Any]] = {}
        self.bases: dict[str, str] = {}  # a service's own path, which Kong puts in front
        self.off: set[str] = set()  # services that are not enabled
        self.plugins: dict[tuple[str, str], Plugins] = {}  # of a service, route, consumer, or ("", "") of all
        self.names: set[str] = set()
        self.routes: list[dict[str, Any]] = []
        self.plans: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {}
        self.allowed: list[list[str]] = []  # groups that some route asks for any one of
        self.issuers: dict[str, dict[str, Any]] = {}
        self.key_headers: list[str] = []
        self.shut: set[str] = set()  # consumers, and groups of them, that a lost plugin may have kept out
        self.shut_groups: set[str] = set()

    def document(self, top: dict[str, Any]) -> None:
        found = self.found
        self.is_old = float(top["_format_version"]) < 3
        for at, upstream in found.mappings(top.get("upstreams"), "upstreams"):
            self.upstreams[str(upstream.get("name"))] = (at, upstream)
        for at, plugin in found.mappings(top.get("plugins"), "plugins"):
            self._plugin(at, plugin, _owner(plugin))
        self._consumer_groups(top)
        for at, consumer in found.mappings(top.get("consumers"), "consumers"):
            self._consumer(at, consumer)
        for at, service in found.mappings(top.get("services"), "services"):
            name = self._service(at, service)
            for place, route in found.mappings(service.get("routes"), f"{at}.routes"):
                self._route(place, route, name)
        for at, route in found.mappings(top.get("routes"), "routes"):
            self._route(at, route, _reference(route.get("service")))
        self._give_scopes()
        found.leftover(top, _SECTIONS | META, "")
        if self.routes:
            found.note("routes", "Kong's /api also serves /apix; here a path ends where a segment ends")

    def made(self) -> dict[str, Any]:
        authentication: dict[str, Any] = {"api_key_header": self.key_headers[0]} if self.key_headers else {}
        if self.keys:
            authentication["api_keys"] = self.keys
        return {
            "authentication": authentication,
            "issuers": self.issuers,
            "plans": self.plans,
            "services": self.services,
            "routes": self.routes,
        }

    # --- services ---

    def _service(self, at: str, values: dict[str, Any]) -> str:
        given = str(values.get("name") or values.get("host") or "")
        name = name_of(given, self.services, "service")
        service = kong_services.read(at, values, self.upstreams, self.found)
        if service is None:
            return ""
        self.services[name], self.bases[name] = service, kong_services.base_path(values)
        if values.get("enabled") is False:
            self.off.add(name)
        self._plugins_of(at, values, ("service", name))
        if given != name:
            self.plugins.setdefault(("service", name), {}).update(self.plugins.get(("service", given), {}))
        return name

    # --- routes ---

    def _route(self, at: str, values: dict[str, Any], service: str) -> None:
        found = self.found
        self._plugins_of(at, values, ("route", str(values.get("name", at))))
        if service not in self.services:
            found.note(at, f"route {values.get('name', '')} is not carried over: it has no service here")
            return
        base: dict[str, Any] = {"name": ""}
        doubts = [self._hosts(at, values, base), self._methods(at, values, base)]
        doubts += [self._conditions(at, values)]
        for headers in self._header_variants(at, values):
            for place, path in self._paths(at, values):
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
        if not self._path(place, path, values, route, self.bases[service]):
            return
        route["name"] = name_of(str(values.get("name") or f"{service}{route['path']}"), self.names, "route")
        self.names.add(route["name"])
        for transform in route.get("transforms", ()):
            transform["name"] = f"{route['name']}-path"
        route["service"] = service
        if values.get("preserve_host"):
            route["host_header"] = "preserve"
        route["auth_required"] = False
        self._apply_plugins(route, str(values.get("name", at)), service)
        if service in self.off or is_doubtful:
            route["enabled"] = False
        self.routes.append(route)

    def _paths(self, at: str, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Alternatives of a pattern are paths of their own: a path of ours begins with its slash."""
        return [
            (place, one)
            for place, path in self.found.items(values.get("paths"), f"{at}.paths") or [(at, "/")]
            for one in (_alternatives(str(path)) if self._is_pattern(str(path)) else [str(path)])
        ]

    def _is_pattern(self, path: str) -> bool:
        return _PLAIN_2X.fullmatch(path) is None if self.is_old else path.startswith("~")

    def _path(self, at: str, path: str, values: dict[str, Any], route: dict[str, Any], base: str) -> bool:
        """Fills in path, path_kind and what is done to the path on the way."""
        strips = values.get("strip_path", True)
        if self._is_pattern(path):
            return self._pattern(at, path.removeprefix("~").removeprefix("^"), route, base, strips=strips)
        plain = path.rstrip("/") or "/"
        if not self._is_good(at, plain, "prefix"):
            return False
        route |= {"path": plain, "path_kind": "prefix"}
        if strips and plain != "/" and not base:
            route["strip_prefix"] = True
        elif base:
            edit = {"strip_prefix": plain} if strips and plain != "/" else {}
            self._edit_path(at, route, edit | {"add_prefix": base})
        return True

    def _pattern(self, at: str, pattern: str, route: dict[str, Any], base: str, *, strips: bool) -> bool:
        pattern = pattern.replace("(?<", "(?P<")  # RE2's spelling of a named group
        whole = pattern.removesuffix("$") if pattern.endswith("$") else f"{pattern}.*"
        try:
            path_edits.compiled(whole)
        except ValueError as error:
            self.found.note(at, f"{pattern} is not carried over: {error}")
            return False
        if not self._is_good(at, whole, "regex"):
            return False
        route |= {"path": whole, "path_kind": "regex"}
        if strips:
            self._edit_path(at, route, {"replace": {"pattern": pattern, "with": base}})
        elif base:
            self._edit_path(at, route, {"add_prefix": base})
        return True

    def _is_good(self, at: str, path: str, kind: str) -> bool:
        try:
            routing.check_path(path, kind)
        except ValueError as error:
            self.found.note(at, f"{path} is not carried over: {error}")
            return False
        return True

    def _edit_path(self, at: str, route: dict[str, Any], edit: dict[str, Any]) -> None:
        wrong = edits.problems({"path": edit}, "request")
        if wrong:
            self.found.note(at, f"the path that the service puts in front is not carried over: {wrong[0]}")
            return
        route["transforms"] = [{"name": "", "request": {"path": edit}}]

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

    # --- plugins ---

    def _plugin(self, at: str, values: dict[str, Any], owner: tuple[str, str] | None) -> None:
        name = str(values.get("name", ""))
        known = {"name", "config", "enabled", "service", "route", "consumer", "protocols", "instance_name"}
        if values.get("enabled") is False:
            self.found.note(at, f"{name} is not carried over: it is not enabled")
        elif owner is None:
            self.found.note(at, f"{name} is not carried over: it belongs to more than one thing at once")
            if kong_plugins.may_keep_out(name):  # of one of them, it closes that for all
                wider = "route" if values.get("route") else "service"
                self.plugins.setdefault((wider, _reference(values[wider])), {})[name] = (at, {})
        else:
            config = self.found.mapping(values.get("config"), f"{at}.config")
            self.plugins.setdefault(owner, {})[name] = (f"{at}.config" if config else at, config)
        self.found.leftover(values, known | META, at)

    def _plugins_of(self, at: str, values: dict[str, Any], owner: tuple[str, str]) -> None:
        for place, plugin in self.found.mappings(values.get("plugins"), f"{at}.plugins"):
            self._plugin(place, plugin, owner)

    def _apply_plugins(self, route: dict[str, Any], name: str, service: str) -> None:
        """The most specific one of each plugin counts, as in Kong."""
        chosen: Plugins = {}
        for owner in (("", ""), ("service", service), ("route", name)):
            chosen |= self.plugins.get(owner, {})
        for plugin, (at, config) in chosen.items():
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

    # --- consumers ---

    def _consumer(self, at: str, values: dict[str, Any]) -> None:
        found = self.found
        name = str(values.get("username") or values.get("custom_id") or "")
        if not name:
            found.wrong(at, "a consumer has a username or a custom_id")
        digests = [
            digest
            for place, credential in found.mappings(
                values.get("keyauth_credentials"), f"{at}.keyauth_credentials"
            )
            if (digest := self._digest(place, credential.get("key")))
        ]
        self.keys[name] = {"key_sha256": digests} if digests else {}
        self.groups[name] = [
            str(acl.get("group"))
            for _, acl in found.mappings(values.get("acls"), f"{at}.acls")
            if acl.get("group")
        ]
        for place, secret in found.mappings(values.get("jwt_secrets"), f"{at}.jwt_secrets"):
            self._issuer(place, secret, name)
        self._plugins_of(at, values, ("consumer", name))
        self._consumer_plan(name)
        groups = {str(group.get("name")) for _, group in found.mappings(values.get("groups"), f"{at}.groups")}
        if name in self.shut or groups & self.shut_groups:
            self.keys[name]["enabled"] = False
            found.note(
                at, f"what may have kept {name} out is not carried over; it is off until you turn it on"
            )
        known = {"username", "keyauth_credentials", "jwt_secrets", "acls", "plugins"}
        found.leftover(values, (known if values.get("username") else known | {"custom_id"}) | META, at)

    def _digest(self, at: str, key: object) -> str:
        if not isinstance(key, str) or not key or _REFERENCE.search(key):
            self.found.note(f"{at}.key", "not carried over: the file does not hold the key itself")
            return ""
        return hashlib.sha256(key.encode()).hexdigest()

    def _issuer(self, at: str, values: dict[str, Any], consumer: str) -> None:
        algorithm = str(values.get("algorithm", "HS256"))
        issuer = values.get("key")
        material = values.get("secret" if algorithm.startswith("HS") else "rsa_public_key")
        if not issuer or not material or _REFERENCE.search(str(material)):
            self.found.note(
                at, "not carried over: the file does not hold both its key (iss) and its secret or public key"
            )
            return
        held = "secret" if algorithm.startswith("HS") else "public_key"
        made: dict[str, Any] = {"algorithm": algorithm, "issuer": str(issuer), held: str(material)}
        try:
            tokens.Issuer("", algorithm, str(material).encode()).check()
        except ValueError as error:
            self.found.note(at, f"not carried over: {error}")
            return
        if len(self.issuers) >= _MOST_ISSUERS:
            made["enabled"] = False
            self.found.note(at, f"is off: at most {_MOST_ISSUERS} issuers can be on")
        self.issuers[name_of(consumer, self.issuers, "issuer")] = made
        text = "became an issuer: its tokens are known by their sub, and carry roles and scopes themselves"
        self.found.note(at, text + ("; the secret stands in the file" if held == "secret" else ""))
        self.found.leftover(values, {"key", "algorithm", "secret", "rsa_public_key"} | META, at)

    def _consumer_plan(self, name: str) -> None:
        for plugin, (at, config) in self.plugins.get(("consumer", name), {}).items():
            made = kong_plugins.limits(config, at, self.found) if plugin == "rate-limiting" else {}
            if made:
                plan = name_of(f"consumer-{name}", self.plans, "plan")
                self.plans[plan], self.keys[name]["plan"] = made, plan
                self.found.note(at, "became the consumer's plan, which counts beside the limits of routes")
            elif plugin != "rate-limiting":
                self.found.note(at, f"{plugin} of a consumer is not carried over")
                if kong_plugins.may_keep_out(plugin):
                    self.shut.add(name)

    def _consumer_groups(self, top: dict[str, Any]) -> None:
        """Whose members are off, as a plugin of the group may have kept them out."""
        for at, group in self.found.mappings(top.get("consumer_groups"), "consumer_groups"):
            plugins = self.found.mappings(group.get("plugins"), f"{at}.plugins")
            if any(
                plugin.get("enabled") is not False and kong_plugins.may_keep_out(str(plugin.get("name")))
                for _, plugin in plugins
            ):
                members = self.found.mappings(group.get("consumers"), f"{at}.consumers")
                self.shut |= {str(one.get("username") or one.get("custom_id")) for _, one in members}
                self.shut_groups.add(str(group.get("name")))

    def _give_scopes(self) -> None:
        for name, groups in self.groups.items():
            scopes = set(groups) | {
                kong_plugins.any_of(any_) for any_ in self.allowed if set(any_) & set(groups)
            }
            if scopes:
                self.keys[name]["scopes"] = sorted(kong_plugins.any_of([scope]) for scope in scopes)


def _owner(plugin: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a plugin at the top belongs to: ("", "") is everything, None more than one thing."""
    owners = [
        (kind, _reference(plugin[kind])) for kind in ("service", "route", "consumer") if plugin.get(kind)
    ]
    return None if len(owners) > 1 else owners[0] if owners else ("", "")


def _reference(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("name") or value.get("username") or value.get("id") or "")
    return str(value or "")


def _alternatives(pattern: str) -> list[str]:
    """Split at each `|` that is in no group and no class; each keeps the mark of a pattern."""
    mark, depth, is_class, parts = pattern[: pattern.startswith("~")], 0, False, [""]
    for piece in _PIECE.findall(pattern.removeprefix("~")):
        if piece == "|" and not depth and not is_class:
            parts.append("")
            continue
        is_class = piece == "[" or (is_class and piece != "]")
        depth += 0 if is_class else {"(": 1, ")": -1}.get(piece, 0)
        parts[-1] += piece
    return [f"{mark}{part}" for part in parts]
