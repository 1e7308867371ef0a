"""Admin pages of ours that are no model's: a path that a role may open, and the query of an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.http import urlencode

from . import roles

View = Callable[[HttpRequest], HttpResponse]


def at(address: str, view: View, name: str, role: str = roles.VIEWER) -> Any:
    """A path of an admin page that needs the role."""

    def guarded(request: HttpRequest) -> HttpResponse:
        if not roles.allows(request.user, role):
            raise PermissionDenied
        return view(request)

    return path(address, admin.site.admin_view(guarded), name=name)


def query(values: Mapping[str, Any]) -> str:
    """What is empty is left out."""
    found = urlencode({name: value for name, value in values.items() if value})
    return f"?{found}" if found else ""
