"""What a change leaves behind, compiled before it commits: what no process could load is not stored.

Only what the change touches and what that names, for a whole configuration takes too long for the writing of one row
(docs/decisions.md). No name is resolved, no key set fetched.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.core.exceptions import ValidationError

from . import callers, edits, routing, rows, snapshot
from .entries import LINKS, Change, Entry, Fields
from .jwks import Jwks
from .living import Living
from .models import JwtIssuer, Route, Transform
from .models.issuer import MOST_ENABLED

_NOWHERE = ("192.0.2.1",)  # RFC 5737: an address for examples, which nobody connects to


def check(made: Iterable[Change], found: rows.Rows) -> None:
    """Raises ValidationError. made: what the transaction has written. found: what it has looked up."""
    touched = {change.entry: change.after for change in made if change.after is not None}
    if not touched:
        return
    whole = _with_named(touched, found)
    _check_placeholders(touched, whole)
    _check_costs(touched)
    if any(kind == "issuer" for kind, _ in touched):
        _check_issuers()
    try:
        outages = compiled(whole).outages
    except (ValueError, KeyError) as error:
        raise ValidationError(f"The gateway could not load this: {error}") from error
    if outages:
        raise ValidationError(f"The gateway could not load this: {outages[0]}")


def _with_named(touched: dict[Entry, Fields], found: rows.Rows) -> dict[Entry, Fields]:
    """With what they name, and what that names."""
    whole, new = dict(touched), dict(touched)
    while new:
        named = {entry for (kind, _), fields in new.items() for entry in _named(kind, fields)} - whole.keys()
        found.look_up(named)
        new = {entry: rows.entry_of(row)[2] for entry in named if (row := found.find(*entry)) is not None}
        whole |= new
    return whole


def _named(kind: str, fields: Fields) -> Iterator[Entry]:
    for link in LINKS.get(kind, ()):
        if fields[link]:
            yield link, fields[link]


def _check_placeholders(touched: dict[Entry, Fields], whole: dict[Entry, Fields]) -> None:
    """Those that transformations take from the paths of their routes, whichever of the two was written: one change may
    write both, so only its end can tell."""
    routes = [name for kind, name in touched if kind == "route"]
    wrong: dict[str, list[str]] = {}
    for name, transform, route, field in (*_of_routes(routes), *_of_transforms(touched, whole)):
        parameters = routing.placeholders(route["path"], route["path_kind"])
        for phase in edits.PHASES:
            for told in edits.problems(transform[phase], phase, parameters):
                wrong.setdefault(field or phase, []).append(f"transform {name}: {told}")
    if wrong:
        raise ValidationError({field: sorted(set(texts)) for field, texts in wrong.items()})


def _of_routes(names: list[str]) -> Iterator[tuple[str, Any, Any, str]]:
    """(name, transformation, route, the field that was written; "": the phase)"""
    for start in range(0, len(names), 500):
        some = Transform.objects.filter(route__name__in=names[start : start + 500]).select_related("route")
        for row in some:
            its_route = {"path": row.route.path, "path_kind": row.route.path_kind}
            yield row.name, {"request": row.request, "response": row.response}, its_route, "path"


def _of_transforms(
    touched: dict[Entry, Fields], whole: dict[Entry, Fields]
) -> Iterator[tuple[str, Any, Any, str]]:
    for (kind, name), fields in touched.items():
        if kind == "transform" and fields["route"] and ("route", fields["route"]) not in touched:
            yield name, fields, whole["route", fields["route"]], ""


def _check_costs(touched: dict[Entry, Fields]) -> None:
    """A request that costs more than its bucket ever holds would be refused for ever, and told to come back later. Of
    routes and plans, whichever was written: one change may write both."""
    routes = [name for kind, name in touched if kind == "route"]
    plans = [name for kind, name in touched if kind == "plan"]
    wrong: dict[str, list[str]] = {}
    for field, names in (("name__in", routes), ("plan__name__in", plans)):
        for start in range(0, len(names), 500):
            some = Route.objects.filter(**{field: names[start : start + 500]}, plan__isnull=False)
            for row in some.exclude(cost=1).select_related("plan"):
                most = min(limit.capacity for limit in callers.limits(vars(row.plan)))
                if row.cost > most:
                    told = f"route {row.name}: a request costs {row.cost}, its plan {row.plan} never holds more than {most:g}"
                    wrong.setdefault("cost" if row.name in routes else "burst_limit", []).append(told)
    if wrong:
        raise ValidationError({field: sorted(set(texts)) for field, texts in wrong.items()})


def _check_issuers() -> None:
    if JwtIssuer.objects.filter(enabled=True).count() > MOST_ENABLED:
        raise ValidationError(f"At most {MOST_ENABLED} issuers can be enabled.")


def compiled(entries: Mapping[Entry, Fields]) -> snapshot.Snapshot:
    """As an edge would have it, but for its targets' addresses and the keys of key sets. Raises ValueError."""
    issuers = [fields for (kind, _), fields in entries.items() if kind == "issuer"]
    sources = {
        key: Jwks(*key, start=lambda fetch: None)
        for fields in issuers
        if (key := (fields["jwks_url"], fields["algorithm"]))[0]
    }
    now, wall = time.monotonic(), time.time()  # noqa: TID251  (keys expire in wall time)
    who = callers.read(entries, (), sources, wall)
    living = Living(lambda url: _NOWHERE)
    return snapshot.compile(entries, who, 0, living, snapshot.Snapshot(), now=now, wall=wall)
