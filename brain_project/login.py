"""The admin's login, with tries counted, and the change of one's own password."""

from __future__ import annotations

from typing import Any

import structlog
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from unfold.forms import AuthenticationForm

from foundation import audit
from foundation.htmx import is_part
from gateway import sign_ins
from orm_app import users

log = structlog.get_logger(__name__)


class CountedForm(AuthenticationForm):
    def clean(self) -> dict[str, Any]:
        username = self.cleaned_data.get("username")
        wait_s = sign_ins.wait_s(self.request, username)
        if wait_s:
            self.request.META["brain.sign_in_wait_s"] = wait_s
            log.warning(
                "sign_in_held_up", username=str(username)[:150], ip=self.request.META.get("REMOTE_ADDR")
            )
            raise ValidationError(f"Too many tries: wait {wait_s} s and sign in again.", code="throttled")
        cleaned: dict[str, Any] = super().clean()
        return cleaned


def login(request: HttpRequest) -> HttpResponseBase:
    """429 with the form and its error, where a browser shows it.

    A part of a page comes here when its reader's session is over; the page is loaded again, and leads here as a whole.
    """
    if is_part(request):
        return HttpResponse(headers={"HX-Refresh": "true"})
    answer: HttpResponseBase = admin.site.login(request)
    wait_s = request.META.get("brain.sign_in_wait_s")
    if wait_s:
        answer.status_code = 429
        answer["Retry-After"] = str(wait_s)
    return answer


def change_password(request: HttpRequest) -> HttpResponseBase:
    """Audited like that of somebody else's, and felt by whoever holds something of the old one."""
    with transaction.atomic():
        answer: HttpResponseBase = admin.site.password_change(request)
        if request.method == "POST" and answer.status_code == 302:
            users.record_password(request.user, **audit.by(request, "admin"))
    return answer
