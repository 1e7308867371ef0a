"""The page on which a request is tried without being sent: which route, plan and plugins would it meet, and why."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.debug import sensitive_post_parameters
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from gateway import issuers, routing, tester
from gateway.models import Configuration, Consumer, Route, Service

from . import cells, live
from .fields import HeadersField

TITLE = "Test a request"
_TONES = {"ok": "good", "refused": "bad"}
_METHODS = sorted(routing.ANY_METHOD)


class RequestForm(forms.Form):
    method = forms.ChoiceField(
        choices=[(method, method) for method in _METHODS], initial="GET", widget=UnfoldAdminSelectWidget
    )
    url = forms.CharField(
        label="URL",
        max_length=4_000,
        widget=UnfoldAdminTextInputWidget(
            attrs={"placeholder": "/api/v1/tasks or https://api.example.com/…"}
        ),
        help_text="A path, or a whole URL, whose host then counts.",
    )
    headers = HeadersField(rows=9, help_text="One on each line: Accept: application/json")
    client_ip = forms.CharField(
        label="Client's address", initial="127.0.0.1", max_length=45, widget=UnfoldAdminTextInputWidget
    )
    consumer = forms.ModelChoiceField(
        queryset=Consumer.objects.order_by("name"),
        required=False,
        empty_label="nobody",
        widget=UnfoldAdminSelectWidget,
        help_text="As if one of its keys came with the request.",
    )
    credential = forms.CharField(
        label="Or a key or token",
        required=False,
        max_length=16_384,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="An API key, or a token with its dots. Neither stored nor logged, and gone from here afterwards.",
    )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        try:
            parts = urlsplit(url)
            is_whole = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_whole = False
        if not url.startswith("/") and not is_whole:
            raise forms.ValidationError("Write a path that begins with /, or a URL that begins with http.")
        return url

    def clean_client_ip(self) -> str:
        try:
            return str(ipaddress.ip_address(self.cleaned_data["client_ip"].strip()))
        except ValueError as error:
            raise forms.ValidationError("This is not an IP address.") from error

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("consumer") and values.get("credential"):
            self.add_error("credential", "Choose a consumer or give a key, not both.")
        return values


def urls(page: Any) -> list[Any]:
    """page: the admin of routes, whose permissions count."""
    view = page.admin_site.admin_view(lambda request: _page(request, page))
    return [path("test/", view, name="gateway_tester_changelist")]


@sensitive_post_parameters("credential", "headers")
def _page(request: HttpRequest, page: Any) -> HttpResponse:
    """POST, so that a key is in no address and no history; nothing is changed."""
    if not page.has_view_permission(request):
        raise PermissionDenied
    form = RequestForm(request.POST if request.method == "POST" else None)
    shown = {"form": form, "title": TITLE, "found": None}
    if request.method == "POST" and form.is_valid():
        try:
            shown["found"] = _found(form.cleaned_data)
        except ValueError as error:  # what no client can send
            form.add_error(None, str(error))
    context = {**page.admin_site.each_context(request), **shown}
    return render(request, "admin/gateway/tester/page.html", context, status=400 if form.errors else 200)


def _found(asked: dict[str, Any]) -> dict[str, Any]:
    headers = [*asked["headers"], *_credential(asked["credential"])]
    consumer = asked["consumer"].name if asked["consumer"] else None
    snapshot, board = issuers.holder.refresh_if_due(), live.board()
    told = tester.explain(snapshot, asked["method"], asked["url"], headers, asked["client_ip"], consumer)
    return {
        "told": told,
        "is_good": told.status is None,
        "route": _named(Route, told.route),
        "service": _named(Service, told.service),
        # This process sends nothing and so knows no target's health: the gateway's processes do.
        "targets": [(name, why or board.why(told.service or "", name)) for name, why in told.targets],
        "steps": [(step, _TONES.get(step.result, "none")) for step in told.steps],
    }


def _credential(text: str) -> list[tuple[str, str]]:
    if not text:
        return []
    if text.count(".") == 2 and not text.startswith("brn_"):
        return [("Authorization", f"Bearer {text}")]
    stored = Configuration.objects.filter(pk=1).first() or Configuration()
    return [(stored.api_key_header, text)]


def _named(model: Any, name: str | None) -> str:
    """A link to the row, or its name alone where it is gone already."""
    if not name:
        return cells.NONE
    row = model.objects.filter(name=name).first()
    return cells.link(row) if row else name
