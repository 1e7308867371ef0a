"""The admin page that ends what is cached: tags, namespaces, and a whole alias."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from cache_app import browsing, operations, standing, stats
from foundation import audit, roles
from foundation.pages import query

from . import pages

_LONGEST = 2_000  # characters of a form's field


def page(request: HttpRequest) -> HttpResponse:
    """GET shows the forms, POST does what its field "what" says."""
    alias = pages.alias_of(request)
    if request.method == "POST":
        if not roles.allows(request.user, roles.OPERATOR):
            raise PermissionDenied
        return _done(request, alias)
    found = standing.of(alias)
    if found.error:
        messages.error(request, f"The cache does not answer: {found.error}")
    namespaces = sorted({one.namespace for one in stats.known() if one.alias == alias and one.namespace})
    return pages.shown(
        request, "ending.html", "Invalidate", alias=alias, aliases=operations.aliases(), found=found,
        namespaces=namespaces[:200],
    )  # fmt: skip


def _done(request: HttpRequest, alias: str) -> HttpResponse:
    what, back = request.POST.get("what", ""), reverse("cache-admin:ending") + query({"alias": alias})
    if what == "clear":
        _clear(request, alias)
    elif not (names := _names(request.POST.get("names", "")[:_LONGEST])):
        messages.error(request, "Write at least one name.")
    else:
        with pages.told(request):
            _end(request, alias, what, names)
    return HttpResponseRedirect(back)


def _end(request: HttpRequest, alias: str, what: str, names: list[str]) -> None:
    trace = audit.by(request, "admin")
    if what == "tags":
        operations.invalidate_tags(alias, names, **trace)
    else:
        for name in names:
            operations.invalidate_namespace(alias, name, **trace)
    messages.success(request, f"Ended in {alias}: {', '.join(names)}.")


def _clear(request: HttpRequest, alias: str) -> None:
    if not roles.allows(request.user, roles.ADMIN):
        raise PermissionDenied
    if request.POST.get("confirm", "").strip() != alias:
        messages.error(request, f"Nothing was removed: write {alias} to confirm.")
        return
    with pages.told(request):
        removed = operations.clear(alias, **audit.by(request, "admin"))
        messages.success(request, f"Removed {browsing.in_words(removed)} of {alias}.")


def _names(text: str) -> list[str]:
    """One on each line, or with commas between them."""
    parts = (part.strip() for line in text.splitlines() for part in line.split(","))
    return list(dict.fromkeys(part for part in parts if part))
