"""The configuration document: YAML → entries, with every mistake named by its line and the path to its key.

authentication: {jwt_secret, jwt_algorithm, jwt_expiry, jwt_issuer, jwt_audience, api_key_header, api_keys}
issuers:        {name: words.ISSUER and secret}
plans:          {name: words.PLAN}
services:       {name: words.SERVICE, targets: [url | words.TARGET], transforms}
routes:         [words.ROUTE with service | target_url and plan | rate_limit, transforms: [words.TRANSFORM]]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import keys, origins, reading, tokens, words
from .entries import SETTING, Entry
from .errors import InvalidDocument
from .reading import Path

WEAK_SECRETS = frozenset({"your-secret-key", "secret", "changeme", "change-me", "demo-secret"})
OWN = "default"  # the name of the issuer row that `authentication.jwt_…` describes

_TOP = {"authentication", "issuers", "plans", "services", "upstreams", "routes"}
_AUTHENTICATION = {*words.SIGNER, "jwt_secret", "api_key_header", "api_keys"}
_CONSUMER = {*words.CONSUMER, "key", "key_sha256"}
_ROUTE = {**words.ROUTE, "upstream": words.Word("service")}  # an older name

_FOREIGN = re.compile(r"""^["']?(_format_version|openapi|swagger)["']?[ ]*:""", re.MULTILINE)
_WHOSE = {
    "_format_version": ("a configuration of Kong", "kong"),
    "openapi": ("an OpenAPI description", "openapi"),
    "swagger": ("a description of an API", "openapi"),
}


@dataclass(frozen=True, slots=True)
class Document:
    """entries: what each named thing should be, in the words of the models; what an entry lacks is the model's default.

    secrets: of issuers, in clear; an issuer that is not among them keeps its own. api_keys: the keys that were given in
    clear, by consumer. warnings: what somebody should look at. places: `line 14: routes[0].timeout` by entry and field,
    "" for the whole entry. is_checked: the models have looked at the entries.
    """

    entries: Mapping[Entry, Mapping[str, Any]] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    api_keys: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    places: Mapping[Entry, Mapping[str, str]] = field(default_factory=dict)
    is_checked: bool = False

    def place(self, entry: Entry, field: str = "") -> str:
        """Where the document says this of the entry; in words where it does not say it."""
        found = self.places.get(entry, {})
        if field in found:
            return found[field]
        where = found.get("", " ".join(entry))
        return f"{where}: {field}" if field else where


def load(text: str, *, production: bool) -> Document:
    """Raises InvalidDocument with all problems at once. production: weak secrets are problems, not
    warnings."""
    _check_ours(text)
    tree = reading.parse(text)
    _check_ours("".join(f"{key}:\n" for key in tree.value) if isinstance(tree.value, dict) else "")
    reader = _Reader(tree.lines, production=production)
    reader.document(tree.value)
    if reader.problems:
        raise InvalidDocument(reader.problems)
    return Document(reader.entries, reader.secrets, reader.api_keys, tuple(reader.warnings), reader.places)


def _check_ours(text: str) -> None:
    """Raises InvalidDocument for somebody else's format: of a hundred unknown keys none would say so."""
    found = _FOREIGN.search(text)
    if found is not None:
        whose, verb = _WHOSE[found[1]]
        raise InvalidDocument([f"this is {whose}; convert it first: manage.py gateway convert {verb} FILE"])


class _Reader(reading.Reader):
    """Collects entries."""

    def __init__(self, lines: Mapping[Path, int], *, production: bool) -> None:
        super().__init__(lines)
        self._production = production
        self.entries: dict[Entry, dict[str, Any]] = {}
        self.places: dict[Entry, dict[str, str]] = {}
        self.secrets: dict[str, str] = {}
        self.api_keys: dict[str, str] = {}
        self.warnings: list[str] = []

    def document(self, value: Any) -> None:
        top = self.section(value, (), _TOP)
        self._older(top, "upstreams", "services", ())
        if "authentication" in top:
            self._authentication(top["authentication"], ("authentication",))
        for name, issuer, at in self.named(top, "issuers", ()):
            self._issuer(name, issuer, at)
        for name, plan, at in self.named(top, "plans", ()):
            self._plan(name, plan, at)
        for key in ("services", "upstreams"):
            for name, service, at in self.named(top, key, ()):
                self._service(name, service, at)
        if "routes" in top:
            for at, route in self.items(top["routes"], ("routes",), "routes"):
                self._route(route, at)

    def _older(self, values: Mapping[str, Any], old: str, new: str, at: Path) -> None:
        if old in values:
            self.warnings.append(f"{self.place((*at, old))}: an older name of {new!r}")

    def _add(self, entry: Entry, fields: dict[str, Any], at: Path, places: Mapping[str, str]) -> None:
        if entry in self.entries:
            first = self.places[entry][""].partition(":")[0]
            self.note(at, f"the {entry[0]} {entry[1]!r} stands on {first} already")
            return
        self.entries[entry] = fields
        self.places[entry] = {"": self.place(at), **places}

    def _weak(self, at: Path, told: str) -> None:
        if self._production:
            self.note(at, told)
        else:
            self.warnings.append(f"{self.place(at)}: {told} (refused in production)")

    # --- who calls ---

    def _authentication(self, value: Any, at: Path) -> None:
        values = self.section(value, at, _AUTHENTICATION)
        if "api_key_header" in values:
            header = self.text(values["api_key_header"], (*at, "api_key_header"))
            place = self.place((*at, "api_key_header"))
            self._add(SETTING, {"api_key_header": header}, at, {"api_key_header": place})
        if any(key.startswith("jwt_") for key in values):
            fields, places = self.fields(values, words.SIGNER, at)
            self._signs(at)
            self._add(("issuer", OWN), {**fields, "signs": True}, at, places)
            self._secret(OWN, values, "jwt_secret", at)
        for name, given, below in self.named(values, "api_keys", at):
            self._consumer(name, given, below)

    def _issuer(self, name: str, value: Any, at: Path) -> None:
        values = self.section(value, at, {*words.ISSUER, "secret"})
        fields, places = self.fields(values, words.ISSUER, at)
        if "signs" in fields:
            fields["signs"] = fields["signs"] or None
        if fields.get("signs"):
            self._signs((*at, "signs"))
            if fields.get("algorithm", "HS256") not in tokens.HMAC_HASHES:
                self.note((*at, "signs"), f"only {', '.join(tokens.HMAC_HASHES)} can sign here")
        self._add(("issuer", name), fields, at, places)
        self._secret(name, values, "secret", at)

    def _signs(self, at: Path) -> None:
        for (kind, name), fields in self.entries.items():
            if kind == "issuer" and fields.get("signs"):
                self.note(at, f"one issuer signs, and {name!r} does already")

    def _secret(self, name: str, values: Mapping[str, Any], key: str, at: Path) -> None:
        secret = self.text(values[key], (*at, key)) if key in values else None
        if secret:
            self.secrets[name] = secret
            if weak := weakness(secret):
                self._weak((*at, key), weak)

    def _consumer(self, name: str, given: Any, at: Path) -> None:
        # A key without quotes may be a number to YAML: told as such, not as a mapping that is missing.
        is_key = not isinstance(given, dict | list | None)
        values = {"key": given} if is_key else self.section(given, at, _CONSUMER)
        fields, places = self.fields(values, words.CONSUMER, at)
        self._add(("consumer", name), fields, at, places)
        if "key" in values:
            where = at if is_key else (*at, "key")
            self._clear_key(name, self.text(values["key"], where), where)
        below = (*at, "key_sha256")
        given_keys: Any = values.get("key_sha256", [])
        if not isinstance(given_keys, list):
            self._key(name, given_keys, below)
            return
        for i, key in enumerate(given_keys):
            self._key(name, key, (*below, i))

    def _clear_key(self, consumer: str, text: str | None, at: Path) -> None:
        if text is None:
            return
        try:
            new = keys.imported(text)
        except ValueError as error:
            self.note(at, str(error))
            return
        self._add(("key", new.digest.hex()), {"consumer": consumer}, at, {})
        self.api_keys[consumer] = text
        if text in WEAK_SECRETS or len(text) < 20:
            self._weak(
                at, f"a key that can be guessed; make one with `manage.py gateway key create {consumer}`"
            )

    def _key(self, consumer: str, given: Any, at: Path) -> None:
        # All digits, a SHA-256 without quotes is a number to YAML: told as such, not as a mapping that is missing.
        values = self.section(given, at, words.KEY) if isinstance(given, dict) else {"sha256": given}
        fields, places = self.fields(values, words.KEY, at)
        if "sha256" in values and "digest" not in fields:
            return
        digest = fields.pop("digest", "")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            self.note(at, "is a SHA-256 in 64 hex digits, or {sha256: …, scopes: […], expires: …}")
            return
        self._add(("key", digest), {"consumer": consumer, **fields}, at, places)

    # --- what they may do ---

    def _plan(self, name: str, value: Any, at: Path) -> None:
        values = self.section(value, at, words.PLAN)
        fields, places = self.fields(values, words.PLAN, at)
        self._add(("plan", name), fields, at, places)

    # --- where it goes ---

    def _service(self, name: str, value: Any, at: Path) -> None:
        values = self.section(value, at, {*words.SERVICE, "targets", "transforms"})
        fields, places = self.fields(values, words.SERVICE, at)
        self._add(("service", name), fields, at, places)
        for below, target in self.items(values.get("targets"), (*at, "targets"), "targets"):
            self._target(name, target, below)
        self._transforms("service", name, values, at)

    def _target(self, service: str, value: Any, at: Path) -> None:
        values = {"url": value} if isinstance(value, str) else self.section(value, at, words.TARGET)
        fields, places = self.fields(values, words.TARGET, at)
        url = self._origin(fields.get("url"), at)
        if url:
            self._add(("target", f"{service} {url}"), {**fields, "service": service, "url": url}, at, places)

    def _origin(self, url: str | None, at: Path) -> str:
        try:
            plain = (url or "").removesuffix("/")
            origins.read(plain)
        except ValueError as error:
            self.note(at, str(error))
            return ""
        return plain

    def _transforms(self, kind: str, owner: str, values: Mapping[str, Any], at: Path) -> None:
        for below, value in self.items(values.get("transforms", []), (*at, "transforms"), "transforms"):
            given = self.section(value, below, words.TRANSFORM)
            fields, places = self.fields(given, words.TRANSFORM, below)
            i = below[-1]
            name = fields.pop("name", f"{owner}:{int(i) + 1}")
            self._add(("transform", name), {"position": i, **fields, kind: owner}, below, places)

    def _route(self, value: Any, at: Path) -> None:
        values = self.section(value, at, {*_ROUTE, "target_url", "rate_limit", "transforms"})
        self._older(values, "upstream", "service", at)
        fields, places = self.fields(values, _ROUTE, at)
        if "path" not in values:
            self.wrong((*at, "path"), "is a text", None)
        path = fields["path"] = self._path(fields)
        name = fields.pop("name", path)
        if ("route", name) in self.entries and "name" not in values:
            first = self.places["route", name][""].partition(":")[0]
            self.note(at, f"the route {name!r} stands on {first} already; give this one a name")
            return
        if "methods" in fields:
            fields["methods"] = [method.upper() for method in fields["methods"]]
        fields["service"] = self._route_service(values, fields, at)
        if "rate_limit" in values:
            if "plan" in values:
                self.note(at, "give either rate_limit or plan")
            self._plan(name, values["rate_limit"], (*at, "rate_limit"))
            fields["plan"] = name
        self._add(("route", name), fields, at, places)
        self._transforms("route", name, values, at)

    def _path(self, fields: Mapping[str, Any]) -> str:
        path = str(fields.get("path", ""))
        return path if fields.get("path_kind") == "regex" else path.rstrip("/") or path[:1]

    def _route_service(self, values: Mapping[str, Any], fields: Mapping[str, Any], at: Path) -> str:
        if len({"target_url", "service", "upstream"} & set(values)) != 1:
            self.note(at, "give either target_url or service")
        if "target_url" not in values:
            return str(fields.get("service", ""))
        below = (*at, "target_url")
        url = self._origin(self.text(values["target_url"], below), below)
        if not url:
            return ""
        name, entry = upstream_name(url), ("service", upstream_name(url))
        if entry not in self.entries:
            self._add(entry, {}, below, {})
            self._add(("target", f"{name} {url}"), {"service": name, "url": url}, below, {})
        elif not self.places[entry][""].endswith(".target_url"):
            self.note(below, f"there is a service {name!r} in this document; name it by 'service'")
        return name


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
