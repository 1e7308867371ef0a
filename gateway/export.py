"""Entries as a document that `document.load` takes: deterministic, without what the defaults say, without secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from . import words
from .document import OWN
from .entries import LINKS, SETTING, Entry, Fields
from .words import Word, Words

_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Defaults = Callable[[str], Fields]  # of a kind


class _Dumper(_BASE):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def text(entries: Mapping[Entry, Fields], defaults: Defaults) -> str:
    """Keys as their SHA-256, and none that were revoked; token issuers without their secrets. Names in their order,
    routes by age, as the oldest of two that are alike gets the request."""
    made = _Export(entries, defaults).document()
    given = {key: value for key, value in made.items() if value}
    return str(yaml.dump(given, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


class _Export:
    def __init__(self, entries: Mapping[Entry, Fields], defaults: Defaults) -> None:
        self._entries, self._defaults = entries, defaults
        self._of: dict[str, dict[str, Fields]] = {}
        self._owned: dict[tuple[str, str, str], list[tuple[str, Fields]]] = {}  # (kind, owner's kind, owner)
        for (kind, name), fields in sorted(entries.items()):
            self._of.setdefault(kind, {})[name] = fields
            for link in LINKS[kind] if kind in ("target", "transform") else ():
                if fields[link]:
                    self._owned.setdefault((kind, link, fields[link]), []).append((name, fields))

    def document(self) -> dict[str, Any]:
        return {
            "authentication": self._authentication(),
            "issuers": {
                n: self._said("issuer", words.ISSUER, f)
                for n, f in self._named("issuer")
                if not self._plain(n, f)
            },
            "plans": {
                n: self._said("plan", words.PLAN, f)
                for n, f in self._named("plan")
                if not self._is_rate_limit(n)
            },
            "services": {n: self._service(n, f) for n, f in self._named("service")},
            "routes": [self._route(n, f) for n, f in self._routes()],
        }

    def _named(self, kind: str) -> list[tuple[str, Fields]]:
        return list(self._of.get(kind, {}).items())

    def _routes(self) -> list[tuple[str, Fields]]:
        return sorted(self._named("route"), key=lambda route: (route[1].get("created_at") or "", route[0]))

    def _said(self, kind: str, known: Words, fields: Fields) -> dict[str, Any]:
        """What differs from the defaults."""
        usual = self._defaults(kind)
        made: dict[str, Any] = {}
        for key, word in known.items():
            if not isinstance(word, Word):
                if group := self._said(kind, word, fields):
                    made[key] = group
            elif word.field in fields and fields[word.field] != usual.get(word.field):
                made[key] = _plain_number(fields[word.field])
        return made

    def _authentication(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        own = self._of.get("issuer", {}).get(OWN)
        if own is not None and self._plain(OWN, own):
            made |= {key: own[word.field] for key, word in words.SIGNER.items() if own[word.field] != ""}  # type: ignore[union-attr]
        made |= self._entries.get(SETTING, {})
        digests: dict[str, list[Any]] = {}
        for digest, key in self._named("key"):
            if key["revoked_at"] is None:
                more = self._said("key", words.KEY, key)
                digests.setdefault(key["consumer"], []).append({"sha256": digest, **more} if more else digest)
        consumers = {}
        for name, fields in self._named("consumer"):
            consumers[name] = self._said("consumer", words.CONSUMER, fields)
            if name in digests:
                consumers[name]["key_sha256"] = digests[name]
        return made | ({"api_keys": consumers} if consumers else {})

    def _plain(self, name: str, fields: Fields) -> bool:
        """Whether `authentication.jwt_…` says all of this issuer."""
        said = {word.field for word in words.SIGNER.values() if isinstance(word, Word)} | {"signs", "secret"}
        usual = self._defaults("issuer")
        rest = all(value == usual.get(field) for field, value in fields.items() if field not in said)
        return name == OWN and bool(fields["signs"]) and rest

    def _is_rate_limit(self, name: str) -> bool:
        """Whether it is the plan that a route's own rate_limit made."""
        route = self._of.get("route", {}).get(name)
        return route is not None and route["plan"] == name

    def _service(self, name: str, fields: Fields) -> dict[str, Any]:
        made = self._said("service", words.SERVICE, fields)
        made["targets"] = []
        for _, target in self._owned.get(("target", "service", name), ()):
            said = self._said("target", words.TARGET, target)
            made["targets"].append(said if len(said) > 1 else target["url"])
        return made | self._transforms("service", name)

    def _route(self, name: str, fields: Fields) -> dict[str, Any]:
        made: dict[str, Any] = {} if name == fields["path"] else {"name": name}
        made |= self._said("route", words.ROUTE, fields)
        if fields["plan"] == name:
            plan = self._of["plan"][name]
            made = {("rate_limit" if key == "plan" else key): value for key, value in made.items()}
            made["rate_limit"] = self._said("plan", words.PLAN, plan)
        return made | self._transforms("route", name)

    def _transforms(self, kind: str, owner: str) -> dict[str, Any]:
        own = [(f["position"], name, f) for name, f in self._owned.get(("transform", kind, owner), ())]
        made = []
        for i, (position, name, fields) in enumerate(sorted(own, key=lambda found: found[:2])):
            said = self._said("transform", words.TRANSFORM, {**fields, "position": None})
            said.pop("position", None)
            made.append({"name": name} | ({"position": position} if position != i else {}) | said)
        return {"transforms": made} if made else {}


def _plain_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
