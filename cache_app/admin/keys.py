"""The admin's key browser: an alias' keys page by page, one entry with its value, and deleting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from cache_app import browsing, operations, standing
from cache_app.browsing import Entry, Row
from foundation import audit, figures, roles
from foundation.pages import query

from . import pages

_VERSIONS = {"": "current", browsing.ANY_VERSION: "all", "tag": "tags", "cached": "cached functions"}


def page(request: HttpRequest) -> HttpResponse:
    alias = pages.alias_of(request)
    asked = {name: request.GET.get(name, "")[: browsing.LONGEST_PATTERN] for name in ("pattern", "version")}
    cursor = request.GET.get("cursor", "")
    rows: list[Row] | None = None
    following = ""
    with pages.told(request):
        try:
            shown = browsing.page(operations.cache_of(alias), asked["pattern"], asked["version"], cursor)
            rows, following = shown.rows, shown.cursor
        except ValueError:  # a cursor that somebody made up, or of another server
            return HttpResponseRedirect(request.path + query({"alias": alias, **asked}))
    given = {"alias": alias, **asked}
    return pages.shown(
        request,
        "keys.html",
        "Cache keys",
        alias=alias,
        aliases=operations.aliases(),
        kind=standing.kind_of(operations.cache_of(alias)),
        asked=asked,
        versions=_versions(asked["version"]),
        rows=None if rows is None else [_row(alias, row) for row in rows],
        first=query(given) if cursor else "",
        following=query({**given, "cursor": following}) if following else "",
        delete=reverse("cache-admin:delete") + query(given),
    )


def entry(request: HttpRequest) -> HttpResponse:
    """GET shows, POST deletes it."""
    alias = pages.alias_of(request)
    key, version = request.GET.get("key", ""), request.GET.get("version", "")
    back = reverse("cache-admin:keys") + query({"alias": alias, "version": version})
    if request.method == "POST":
        if not roles.allows(request.user, roles.OPERATOR):
            raise PermissionDenied
        return _delete(request, alias, key, version, back)
    found = None
    with pages.told(request):
        found = browsing.look(operations.cache_of(alias), key, version)
        if found is None:  # it may have ended since the list was shown
            messages.warning(request, f"{key} is not there any more.")
            return HttpResponseRedirect(back)
    may_see = roles.allows(request.user, roles.OPERATOR)
    return pages.shown(
        request, "entry.html", "Cache entry", alias=alias, back=back,
        found=found, facts=_facts(found) if found else [], may_see=may_see,
    )  # fmt: skip


def delete(request: HttpRequest) -> HttpResponse:
    """What a pattern matches. GET counts and shows, POST deletes."""
    alias = pages.alias_of(request)
    given = request.POST if request.method == "POST" else request.GET
    pattern, version = given.get("pattern", "").strip()[: browsing.LONGEST_PATTERN], given.get("version", "")
    back = reverse("cache-admin:keys") + query({"alias": alias, "pattern": pattern, "version": version})
    if request.method == "POST" and pattern:
        with pages.told(request):
            removed = operations.delete_pattern(alias, pattern, version, **audit.by(request, "admin"))
            messages.success(request, f"Deleted {browsing.in_words(removed)} of {alias}.")
        return HttpResponseRedirect(reverse("cache-admin:keys") + query({"alias": alias}))
    matching = None
    if pattern:
        with pages.told(request):
            matching = operations.preview(alias, pattern, version)
    return pages.shown(
        request, "delete.html", "Delete keys", alias=alias, aliases=operations.aliases(), pattern=pattern,
        version=version, versions=_versions(version), matching=matching, back=back,
    )  # fmt: skip


def _delete(request: HttpRequest, alias: str, key: str, version: str, back: str) -> HttpResponse:
    with pages.told(request):
        removed = operations.delete(alias, [key], version, **audit.by(request, "admin"))
        if removed:
            messages.success(request, f"{key} is deleted.")
        else:
            messages.warning(request, f"{key} was gone already.")
    return HttpResponseRedirect(back)


def _versions(asked: str) -> list[tuple[str, str]]:
    known = dict(_VERSIONS)
    known.setdefault(asked, asked)
    return list(known.items())


def _row(alias: str, row: Row) -> dict[str, Any]:
    address = {"alias": alias, "key": row.key, "version": row.version}
    return {
        "row": row,
        "link": reverse("cache-admin:entry") + query(address),
        "left": pages.left(row.left_s),
        "size": figures.size(row.memory_bytes or row.size_bytes),
    }


def _facts(found: Entry) -> list[tuple[str, str]]:
    row = found.row
    facts = [
        ("Life left", pages.left(row.left_s)),
        ("The store keeps it", pages.left(row.ttl_s)),
        ("Stored", _moment(found.stored_at)),
        ("Ends", _moment(found.expires_at)),
        ("Slides by", figures.duration(found.sliding_s)),
        ("Took to load", pages.fine(found.load_s)),
        ("Size", f"{row.size_bytes:,} bytes"),
        ("In memory", f"{row.memory_bytes:,} bytes" if row.memory_bytes else figures.NONE),
        ("Form", row.codec),
        ("Full key", row.full),
    ]
    if facts[0][1] == facts[1][1]:
        del facts[1]
    return [fact for fact in facts if fact[1] != figures.NONE]


def _moment(at_s: float | None) -> str:
    if at_s is None:
        return figures.NONE
    try:
        return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g}"
