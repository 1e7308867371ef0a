"""What the cache's admin pages have alike: who may see them, their frame, and what is said of a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from cache_app import operations
from foundation import figures, roles

FOR_EVER = "for ever"


def shown(request: HttpRequest, template: str, title: str, status: int = 200, **context: Any) -> HttpResponse:
    context |= {
        "title": title,
        "may_act": roles.allows(request.user, roles.OPERATOR),
        "may_clear": roles.allows(request.user, roles.ADMIN),
    }
    frame = admin.site.each_context(request)
    return render(request, f"admin/cache_app/{template}", {**frame, **context}, status=status)


def fragment(request: HttpRequest, template: str, **context: Any) -> HttpResponse:
    """For the page to swap in."""
    return render(request, f"admin/cache_app/{template}", context)


def alias_of(request: HttpRequest) -> str:
    """The one that the address or the form names; the first one, where it names none. Http404 for one that is not there."""
    known = operations.aliases()
    asked = request.POST.get("alias") or request.GET.get("alias") or (known[0] if known else "")
    if asked not in known:
        raise Http404(f"CACHES has no alias {asked!r} of ours")
    return asked


@contextmanager
def told(request: HttpRequest) -> Iterator[None]:
    """A store that does not answer is a message on the page, which goes on without what it did not tell."""
    try:
        with operations.asking():
            yield
    except operations.CacheUnavailable as error:
        messages.error(request, f"The cache does not answer: {error}")


def left(seconds: float | None) -> str:
    """What is left of a life."""
    if seconds is None:
        return figures.NONE
    if seconds == float("inf"):
        return FOR_EVER
    return figures.duration(seconds) if seconds > 0 else "over"


def fine(seconds: float | None) -> str:
    """A duration that may be of microseconds; a dash for none."""
    if seconds is None or seconds >= 0.001:
        return figures.duration(seconds)
    return f"{seconds * 1e6:.0f} µs"
