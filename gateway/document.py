"""The configuration document: YAML → Document, with every mistake named by the path to its key.

authentication: {jwt_secret, jwt_algorithm, jwt_expiry, jwt_issuer, jwt_audience, api_key_header, api_keys}
plans:          {name: {requests_per_minute, requests_per_hour, burst_limit, on_store_down}}
services:      {name: {strategy, targets: [url | {url, weight}]}}
routes:         [{path, target_url | service, methods, rate_limit | plan, auth_required, roles,
                  timeout, enabled}]
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

from . import keys, tokens
from .errors import InvalidDocument

WEAK_SECRETS = frozenset({"your-secret-key", "secret", "changeme", "change-me", "demo-secret"})
OWN = "default"  # the name of the issuer row that `authentication.jwt_…` describes

_PLAN = {"requests_per_minute", "requests_per_hour", "burst_limit"}
_KNOWN = {
    "": {"authentication", "plans", "services", "routes"},
    "authentication": {
        "jwt_secret", "jwt_algorithm", "jwt_expiry", "jwt_issuer", "jwt_audience",
        "api_key_header", "api_keys",
    },
    "api_key": {"key", "key_sha256", "roles", "plan"},
    "plan": _PLAN | {"on_store_down"},
    "service": {"strategy", "targets"},
    "target": {"url", "weight"},
    "route": {
        "path", "target_url", "service", "methods", "rate_limit", "plan",
        "auth_required", "roles", "timeout", "enabled",
    },
}  # fmt: skip

Entry = tuple[str, str]  # kind and name: ("route", "/api/v1/tasks"), ("key", digest in hex)
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Document:
    """entries: what each named thing should be, in the words of the models. secret: of the issuer OWN, "" =
    as it is.

    api_keys: the keys that were given in clear, by consumer. warnings: what production would refuse.
    """

    entries: Mapping[Entry, Mapping[str, Any]] = field(default_factory=dict)
    secret: str = ""
    api_keys: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def load(text: str, *, production: bool) -> Document:
    """Raises InvalidDocument with all problems at once. production: weak secrets are problems, not
    warnings."""
    try:
        parsed = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise InvalidDocument([f"not YAML: {' '.join(str(error).split())}"]) from error
    reader = _Reader()
    reader.document(parsed)
    problems = reader.problems + (reader.weak if production else [])
    if problems:
        raise InvalidDocument(problems)
    return Document(reader.entries, reader.secret, reader.api_keys, tuple(reader.weak))


class _Loader(yaml.SafeLoader):
    """YAML itself takes the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice (line {line})"
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


class _Reader:
    """Collects entries and problems; `at` is always the path to the value that is read."""

    def __init__(self) -> None:
        self.entries: dict[Entry, dict[str, Any]] = {}
        self.api_keys: dict[str, str] = {}
        self.secret = ""
        self.problems: list[str] = []
        self.weak: list[str] = []

    def document(self, value: Any) -> None:
        top = self._mapping(value, "", "")
        if "authentication" in top:
            self._authentication(self._mapping(top["authentication"], "authentication", "authentication"))
        for name, plan in self._named(top, "plans"):
            self._plan(name, plan, f"plans.{name}", "plan")
        for name, service in self._named(top, "services"):
            self._upstream(name, self._mapping(service, f"services.{name}", "service"))
        routes = top.get("routes") or []
        if not isinstance(routes, list):
            self._wrong("routes", "is a list of routes", routes)
            return
        for i, route in enumerate(routes):
            self._route(self._mapping(route, f"routes[{i}]", "route"), f"routes[{i}]")

    # --- sections ---

    def _authentication(self, values: dict[str, Any]) -> None:
        at = "authentication"
        if "api_key_header" in values:
            header = self._text(values, "api_key_header", at, "X-API-Key")
            self.entries["setting", "gateway"] = {"api_key_header": header}
        if any(key.startswith("jwt_") for key in values):
            self._issuer(values, at)
        for name, given in self._named(values, "api_keys", at):
            self._consumer(name, given, f"{at}.api_keys.{name}")

    def _issuer(self, values: dict[str, Any], at: str) -> None:
        self.secret = self._text(values, "jwt_secret", at, "")
        algorithm = self._one_of(values, "jwt_algorithm", at, tuple(tokens.HMAC_HASHES), "HS256")
        self.entries["issuer", OWN] = {
            "algorithm": algorithm,
            "expiry_s": self._integer(values, "jwt_expiry", at, 3600),
            "issuer": self._text(values, "jwt_issuer", at, ""),
            "audience": self._text(values, "jwt_audience", at, ""),
        }
        if self.secret:
            weak = weakness(self.secret)
            if weak:
                self.weak.append(f"{at}.jwt_secret: {weak}")

    def _consumer(self, name: str, given: Any, at: str) -> None:
        values = {"key": given} if isinstance(given, str) else self._mapping(given, at, "api_key")
        self.entries["consumer", name] = {
            "roles": self._words(values, "roles", at),
            "plan": self._text(values, "plan", at, "") or None,
        }
        if isinstance(values.get("key"), str):
            self._key(name, values["key"], f"{at}.key" if values is given else at)
        digests: Any = values.get("key_sha256", [])
        for digest in digests if isinstance(digests, list) else [digests]:
            if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                self._wrong(f"{at}.key_sha256", "is a SHA-256 in 64 hex digits, or a list of them", digest)
                continue
            self.entries["key", digest] = {"consumer": name}

    def _key(self, name: str, text: str, at: str) -> None:
        try:
            new = keys.imported(text)
        except ValueError as error:
            self.problems.append(f"{at}: {error}")
            return
        self.entries["key", new.digest.hex()] = {"consumer": name}
        self.api_keys[name] = text
        if text in WEAK_SECRETS or len(text) < 20:
            self.weak.append(
                f"{at}: a key that can be guessed; make one with `manage.py gateway key create {name}`"
            )

    def _plan(self, name: str, value: Any, at: str, kind: str) -> None:
        values = self._mapping(value, at, kind)
        plan = {key: self._integer(values, key, at, None) for key in sorted(_PLAN)}
        choices = ("local", "allow", "deny")
        plan["on_store_down"] = self._one_of(values, "on_store_down", at, choices, "")
        if plan["requests_per_minute"] is None and plan["requests_per_hour"] is None:
            self.problems.append(f"{at}: give requests_per_minute or requests_per_hour")
        self.entries["plan", name] = plan

    def _upstream(self, name: str, values: dict[str, Any]) -> None:
        at = f"services.{name}"
        targets = values.get("targets")
        if not isinstance(targets, list) or not targets:
            self._wrong(f"{at}.targets", "is a list of at least one target", targets)
            targets = []
        self.entries["service", name] = {
            "strategy": self._one_of(
                values, "strategy", at, ("round_robin", "weighted", "least_connections"), "round_robin"
            ),
            "targets": dict(self._target(target, f"{at}.targets[{i}]") for i, target in enumerate(targets)),
        }

    def _target(self, value: Any, at: str) -> tuple[str, int]:
        values = {"url": value} if isinstance(value, str) else self._mapping(value, at, "target")
        return self._origin(values.get("url"), at), self._integer(values, "weight", at, 1)

    def _origin(self, url: Any, at: str) -> str:
        parts = urlsplit(url) if isinstance(url, str) else None
        if (
            parts is None
            or parts.scheme != "http"
            or not parts.netloc
            or parts.path not in ("", "/")
            or parts.query
        ):
            self._wrong(at, "is http://host:port", url)
            return ""
        return f"http://{parts.netloc}"

    def _route(self, values: dict[str, Any], at: str) -> None:
        path = self._text(values, "path", at, _ABSENT).rstrip("/") or "/"
        if ("route", path) in self.entries:
            self.problems.append(f"{at}.path: {path} stands twice")
        self.entries["route", path] = {
            "methods": [method.upper() for method in self._words(values, "methods", at)],
            "service": self._route_upstream(values, at),
            "plan": self._route_plan(values, path, at),
            "auth_required": self._flag(values, "auth_required", at, True),
            "roles": self._words(values, "roles", at),
            "timeout_s": self._number(values, "timeout", at, 30.0),
            "enabled": self._flag(values, "enabled", at, True),
        }

    def _route_upstream(self, values: dict[str, Any], at: str) -> str:
        if ("target_url" in values) == ("service" in values):
            self.problems.append(f"{at}: give either target_url or service")
        if "service" in values:
            return self._text(values, "service", at, "")
        url = self._origin(values.get("target_url"), f"{at}.target_url")
        name = upstream_name(url)
        if name:
            defaults = {"strategy": "round_robin"}
            self.entries["service", name] = {**defaults, "targets": {url: 1}}
        return name

    def _route_plan(self, values: dict[str, Any], path: str, at: str) -> str | None:
        if "rate_limit" in values and "plan" in values:
            self.problems.append(f"{at}: give either rate_limit or plan")
        if "rate_limit" in values:
            self._plan(path, values["rate_limit"], f"{at}.rate_limit", "plan")
            return path
        return self._text(values, "plan", at, "") or None

    # --- values ---

    def _wrong(self, at: str, expected: str, value: Any) -> None:
        shown = "nothing" if value is None or value is _ABSENT else f"{type(value).__name__} {value!r:.60}"
        self.problems.append(f"{at or 'the document'}: {expected}, not {shown}")

    def _mapping(self, value: Any, at: str, kind: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._wrong(at, "is a mapping", value)
            return {}
        for key in value:
            if key not in _KNOWN[kind]:
                close = difflib.get_close_matches(str(key), _KNOWN[kind], n=1)
                hint = (
                    f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(_KNOWN[kind]))}"
                )
                self.problems.append(f"{at}{'.' if at else ''}{key}: unknown key; {hint}")
        return value

    def _named(self, values: dict[str, Any], key: str, at: str = "") -> list[tuple[str, Any]]:
        where = f"{at}.{key}" if at else key
        section = values.get(key)
        if section is None:
            return []
        if not isinstance(section, dict) or not all(isinstance(name, str) for name in section):
            self._wrong(where, "is a mapping of names", section)
            return []
        return list(section.items())

    def _text(self, values: dict[str, Any], key: str, at: str, default: Any) -> str:
        value = values.get(key, default)
        if not isinstance(value, str):
            self._wrong(f"{at}.{key}", "is a text", value)
            return ""
        return value

    def _one_of(
        self, values: dict[str, Any], key: str, at: str, choices: tuple[str, ...], default: str
    ) -> str:
        value = values.get(key, default)
        if value != default and value not in choices:
            self._wrong(f"{at}.{key}", f"is one of {', '.join(choices)}", value)
            return default
        return str(value)

    def _integer(self, values: dict[str, Any], key: str, at: str, default: Any) -> Any:
        value = values.get(key, default)
        if value is not default and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            self._wrong(f"{at}.{key}", "is a whole number from 1", value)
            return default
        return value

    def _number(self, values: dict[str, Any], key: str, at: str, default: float) -> float:
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
            self._wrong(f"{at}.{key}", "is a number of seconds up to 3600", value)
            return default
        return float(value)

    def _flag(self, values: dict[str, Any], key: str, at: str, default: bool) -> bool:
        value = values.get(key, default)
        if not isinstance(value, bool):
            self._wrong(f"{at}.{key}", "is true or false", value)
            return default
        return value

    def _words(self, values: dict[str, Any], key: str, at: str) -> list[str]:
        value = values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self._wrong(f"{at}.{key}", "is a list of words", value)
            return []
        return value


def weakness(secret: str) -> str:
    """What is wrong with a signing secret, or ""."""
    if secret in WEAK_SECRETS:
        return "a secret that everybody knows"
    if len(secret.encode()) < tokens.MIN_SECRET_BYTES:
        return f"shorter than {tokens.MIN_SECRET_BYTES} bytes (RFC 7518 section 3.2)"
    return ""


def upstream_name(url: str) -> str:
    """The name of the service that a route's `target_url` stands for."""
    return url.removeprefix("http://")
