"""The configuration in YAML and in the database: load, diff, apply, export.

Both are read into the same entries, so a diff compares two mappings, and apply writes what the diff names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models as orm
from django.db.models import ProtectedError

from foundation import audit

from . import changes, document, secret_box
from .document import OWN, Document, Entry
from .errors import InvalidDocument
from .models import ApiKey, Configuration, Consumer, JwtIssuer, Plan, Route, Service, Target

# Each kind after the ones that it names.
_ORDER = ("setting", "issuer", "plan", "service", "consumer", "key", "route")
_PLAN_FIELDS = ("requests_per_minute", "requests_per_hour", "burst_limit", "on_store_down")
_ISSUER_FIELDS = ("algorithm", "expiry_s", "issuer", "audience")
_SERVICE_FIELDS = ("strategy",)
_ROUTE_FIELDS = ("methods", "auth_required", "roles", "timeout_s", "enabled")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. before, after: the fields that differ, None where the thing does not exist."""

    kind: str
    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    @property
    def verb(self) -> str:
        return "create" if self.before is None else "delete" if self.after is None else "update"

    def __str__(self) -> str:
        # A key's digest is no secret, but its whole length helps nobody.
        name = f"…{self.name[-8:]}" if self.kind == "key" else self.name
        return f"{self.verb} {self.kind} {name}"


def load(text: str) -> Document:
    """Raises InvalidDocument. Weak secrets are warnings in development and problems in production."""
    return document.load(text, production=settings.PRODUCTION)


def with_targets(wanted: Document, service: str, urls: Sequence[str]) -> Document:
    """The document with other targets for one of its services. Raises KeyError when it has none of that
    name."""
    key = ("service", service)
    entry = {**wanted.entries[key], "targets": dict.fromkeys(urls, 1)}
    return replace(wanted, entries={**wanted.entries, key: entry})


def current() -> dict[Entry, dict[str, Any]]:
    """What the database holds."""
    entries: dict[Entry, dict[str, Any]] = {}
    for row in Configuration.objects.filter(pk=1):
        entries["setting", "gateway"] = {"api_key_header": row.api_key_header}
    for issuer in JwtIssuer.objects.filter(name=OWN):
        entries["issuer", OWN] = _fields(issuer, _ISSUER_FIELDS)
    for plan in Plan.objects.all():
        entries["plan", plan.name] = _fields(plan, _PLAN_FIELDS)
    for service in Service.objects.prefetch_related("targets"):
        targets = {target.url: target.weight for target in service.targets.all() if target.state == "active"}
        entries["service", service.name] = _fields(service, _SERVICE_FIELDS) | {"targets": targets}
    for consumer in Consumer.objects.select_related("plan"):
        entries["consumer", consumer.name] = {
            "roles": consumer.roles,
            "plan": consumer.plan and consumer.plan.name,
        }
    for key in ApiKey.objects.filter(revoked_at=None).select_related("consumer"):
        entries["key", key.digest] = {"consumer": key.consumer.name}
    for route in Route.objects.select_related("plan", "service"):
        links = {"service": route.service.name, "plan": route.plan and route.plan.name}
        entries["route", route.name] = _fields(route, _ROUTE_FIELDS) | links
    return entries


def diff(wanted: Document, *, prune: bool = False) -> list[Change]:
    """What `apply` would do, in its order. prune: what the document does not name is deleted, else it is left
    alone."""
    have = current()
    found = []
    for entry in sorted(wanted.entries, key=lambda entry: _ORDER.index(entry[0])):
        before, after = have.get(entry), wanted.entries[entry]
        if entry == ("issuer", OWN) and wanted.secret and not _has_secret(wanted.secret):
            before, after = before and {**before, "secret": "as it is"}, {**after, "secret": "as given"}
        if before is None:
            found.append(Change(*entry, None, after))
        elif before != after:
            names = [name for name in after if before.get(name) != after[name]]
            found.append(Change(*entry, {n: before.get(n) for n in names}, {n: after[n] for n in names}))
    if prune:
        gone = [entry for entry in have if entry not in wanted.entries and entry[0] != "setting"]
        for entry in sorted(gone, key=lambda entry: -_ORDER.index(entry[0])):
            found.append(Change(*entry, have[entry], None))
    return found


def apply(wanted: Document, *, actor: Any, source: str, prune: bool = False) -> list[Change]:
    """Make the database say what the document says, all of it or nothing. Raises InvalidDocument."""
    pending = diff(wanted, prune=prune)
    if not pending:
        return []
    with changes.change():
        for change in pending:
            try:
                row = _delete(change) if change.after is None else _write(change, wanted)
            except ValidationError as error:
                raise InvalidDocument([f"{change.kind} {change.name}: {_told(error)}"]) from error
            except (orm.ObjectDoesNotExist, ProtectedError) as error:
                raise InvalidDocument(
                    [f"{change.kind} {change.name}: {_explained(change, error)}"]
                ) from error
            audit.record(
                actor=actor,
                action=f"{change.kind}.{change.verb}",
                target=row,
                before=change.before,
                after=change.after,
                source=source,
            )
    return pending


def set_targets(service: str, urls: Sequence[str], *, actor: Any, source: str) -> list[Change]:
    """Replace the targets of an service. Raises Service.DoesNotExist."""
    row = Service.objects.get(name=service)
    entry = current()["service", row.name] | {"targets": dict.fromkeys(urls, 1)}
    return apply(Document({("service", service): entry}), actor=actor, source=source)


def export() -> str:
    """The database as a document that `load` takes. Secrets stay out: keys as their SHA-256, no
    jwt_secret."""
    entries = current()
    made: dict[str, Any] = {"authentication": _export_authentication(entries)}
    plans = {name: plan for (kind, name), plan in entries.items() if kind == "plan"}
    routes = {path: route for (kind, path), route in entries.items() if kind == "route"}
    made["plans"] = {name: _given(plan) for name, plan in plans.items() if name not in routes}
    made["services"] = {
        name: _export_upstream(service) for (kind, name), service in entries.items() if kind == "service"
    }
    made["routes"] = [_export_route(path, route, plans) for path, route in routes.items()]
    return yaml.safe_dump(
        {key: value for key, value in made.items() if value}, sort_keys=False, allow_unicode=True
    )


# --- writing
# ---------------------------------------------------------------------------------------------------------
def _write(change: Change, wanted: Document) -> orm.Model:
    after = dict(wanted.entries[change.kind, change.name])
    row: orm.Model
    match change.kind:
        case "setting":
            row = Configuration.objects.filter(pk=1).first() or Configuration(pk=1)
        case "issuer":
            row = JwtIssuer.objects.filter(name=OWN).first() or JwtIssuer(name=OWN)
            _sign_with(row, wanted.secret)
        case "plan":
            row = Plan.objects.filter(name=change.name).first() or Plan(name=change.name)
        case "service":
            return _write_upstream(change.name, after)
        case "consumer":
            row = Consumer.objects.filter(name=change.name).first() or Consumer(name=change.name)
            after["plan"] = _plan(after["plan"])
        case "key":
            row = ApiKey.objects.filter(digest=change.name).first() or ApiKey(digest=change.name)
            after = {"consumer": Consumer.objects.get(name=after["consumer"]), "revoked_at": None}
        case _:
            row = Route.objects.filter(name=change.name).first() or Route(name=change.name, path=change.name)
            after |= {"plan": _plan(after["plan"]), "service": Service.objects.get(name=after["service"])}
    return _store(row, after)


def _store(row: orm.Model, values: Mapping[str, Any]) -> orm.Model:
    for name, value in values.items():
        setattr(row, name, value)
    row.full_clean()
    row.save()
    return row


def _sign_with(issuer: JwtIssuer, secret: str) -> None:
    if secret:
        changes.set_secret(issuer, secret)
    elif not issuer.secret:
        raise ValidationError("authentication.jwt_secret is needed the first time.")
    JwtIssuer.objects.filter(signs=True).exclude(name=OWN).update(signs=None)
    issuer.signs = True


def _write_upstream(name: str, after: dict[str, Any]) -> Service:
    targets: dict[str, int] = after.pop("targets")
    row = Service.objects.filter(name=name).first() or Service(name=name)
    _store(row, after)
    row.targets.exclude(url__in=targets).delete()
    for url, weight in targets.items():
        target = row.targets.filter(url=url).first() or Target(service=row, url=url)
        _store(target, {"weight": weight, "state": "active"})
    return row


def _plan(name: str | None) -> Plan | None:
    return Plan.objects.get(name=name) if name else None


def _delete(change: Change) -> str:
    kinds: dict[str, tuple[type[orm.Model], str]] = {
        "issuer": (JwtIssuer, "name"), "plan": (Plan, "name"), "service": (Service, "name"),
        "consumer": (Consumer, "name"), "key": (ApiKey, "digest"), "route": (Route, "name"),
    }  # fmt: skip
    model, field = kinds[change.kind]
    for row in model._default_manager.filter(**{field: change.name}):
        row.delete()
    return f"{model._meta.label}:{change.name}"


def _told(error: ValidationError) -> str:
    if hasattr(error, "message_dict"):
        return "; ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
    return " ".join(error.messages)


def _explained(change: Change, error: Exception) -> str:
    if isinstance(error, ProtectedError):
        return "other rows need it"
    named = {key: (change.after or {}).get(key) for key in ("service", "plan", "consumer")}
    return "there is no " + " or no ".join(f"{key} {value!r}" for key, value in named.items() if value)


# --- reading
# ---------------------------------------------------------------------------------------------------------
def _fields(row: orm.Model, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _has_secret(secret: str) -> bool:
    row = JwtIssuer.objects.filter(name=OWN, signs=True).first()
    try:
        return row is not None and secret_box.open_(row.secret) == secret
    except secret_box.Sealed:
        return False


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", [])}


def _export_authentication(entries: Mapping[Entry, Mapping[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    issuer = entries.get(("issuer", OWN))
    if issuer is not None:
        names = {
            "algorithm": "jwt_algorithm",
            "expiry_s": "jwt_expiry",
            "issuer": "jwt_issuer",
            "audience": "jwt_audience",
        }
        made |= {names[key]: value for key, value in _given(issuer).items()}
    made |= entries.get(("setting", "gateway"), {})
    digests: dict[str, list[str]] = {}
    for (kind, digest), key in entries.items():
        if kind == "key":
            digests.setdefault(key["consumer"], []).append(digest)
    consumers = {name: values for (kind, name), values in entries.items() if kind == "consumer"}
    if consumers:
        made["api_keys"] = {n: _given({**c, "key_sha256": digests.get(n, [])}) for n, c in consumers.items()}
    return made


def _export_upstream(service: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(service)
    made["targets"] = [
        url if weight == 1 else {"url": url, "weight": weight} for url, weight in service["targets"].items()
    ]
    return made


def _export_route(
    path: str, route: Mapping[str, Any], plans: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    made = {"path": path, **_given(route)}
    made["timeout"] = made.pop("timeout_s")
    if route["plan"] == path:  # the plan that a route's own rate_limit made
        made["rate_limit"] = _given(plans[made.pop("plan")])
    return made
