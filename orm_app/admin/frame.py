"""What the database pages have alike: who may see them, their tabs and frame, the part of them that is renewed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db import connections
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from foundation.pages import at, query

Found = Callable[[HttpRequest, str], dict[str, Any]]
EVERY_S = 2
TABS = (
    ("health", "Health"),
    ("pools", "Pool"),
    ("locks", "Locks"),
    ("slow", "Slow queries"),
    ("migrations", "Migrations"),
    ("backups", "Backups"),
)


@dataclass(frozen=True, slots=True)
class Section:
    """A page of one alias, `<name>.html`, and the part of it that is renewed, `<name>_live.html`.

    found: what both need; every_s: 0 for one that is not renewed.
    """

    name: str
    title: str
    found: Found
    every_s: int = EVERY_S

    def page(self, request: HttpRequest) -> HttpResponse:
        alias = alias_of(request)
        context = self.found(request, alias)
        if self.every_s:
            asked = {**request.GET.dict(), "alias": alias}
            context |= {"live": link(f"{self.name}-live", **asked), "every_s": self.every_s}
        title = f"{self.title} of {alias}"
        return shown(request, f"{self.name}.html", title, alias=alias, section=self.name, **context)

    def live(self, request: HttpRequest) -> HttpResponse:
        """For the page to swap in."""
        alias = alias_of(request)
        context = {"alias": alias, "updated": timezone.now(), "every_s": self.every_s, **rights(request)}
        context |= self.found(request, alias)
        return render(request, f"admin/orm_app/{self.name}_live.html", context)

    def paths(self) -> list[Any]:
        page = at(f"{self.name}/", self.page, self.name)
        return [page, at(f"{self.name}/live/", self.live, f"{self.name}-live")] if self.every_s else [page]


def shown(request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
    """context: `alias` and `section` where the page is one of an alias."""
    context = {"title": title, "updated": timezone.now(), **rights(request), **context}
    if "alias" in context:
        context |= _of_alias(context["alias"], context.get("section", ""))
    return render(request, f"admin/orm_app/{template}", {**admin.site.each_context(request), **context})


def rights(request: HttpRequest) -> dict[str, bool]:
    return {
        "may_act": roles.allows(request.user, roles.OPERATOR),
        "may_rule": roles.allows(request.user, roles.ADMIN),
    }


def alias_of(request: HttpRequest) -> str:
    """The one that the address or the form names; the first one, where it names none. Http404 for one that is not there."""
    known = list(connections)
    asked = request.POST.get("alias") or request.GET.get("alias") or known[0]
    if asked not in known:
        raise Http404(f"DATABASES has no alias {asked!r}")
    return asked


def link(page: str, /, **wanted: Any) -> str:
    return reverse(f"database-admin:{page}") + query(wanted)


def percent(part: float, whole: float) -> int:
    """Whole per cent, for the width of a meter."""
    return round(100 * min(part, whole) / whole) if whole else 0


def _of_alias(alias: str, section: str) -> dict[str, Any]:
    audit = reverse("admin:foundation_auditentry_changelist") + query({"q": f"database. {alias}"})
    return {"aliases": list(connections), "tabs": _tabs(alias, section), "audit": audit}


def _tabs(alias: str, section: str) -> list[dict[str, Any]]:
    return [
        {"title": title, "link": link(name, alias=alias), "is_on": name == section} for name, title in TABS
    ]
