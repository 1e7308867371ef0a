"""The page on which a dead letter's payload is mended: checked as at enqueue, then kept, or kept and replayed."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextareaWidget

from foundation import audit, roles
from queue_app import deadletter, offload
from queue_app.models import Job
from queue_app.offload import PayloadLost
from queue_app.payloads import BadPayload
from queue_app.registry import UnknownTask


class PayloadForm(forms.Form):
    payload = forms.CharField(
        strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 18, "spellcheck": "false", "class": "brain-code"}),
    )

    def clean_payload(self) -> dict[str, Any]:
        try:
            found = json.loads(self.cleaned_data["payload"])
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(f"This is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise forms.ValidationError("A payload is a JSON object: {…}")
        return found


def edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    """GET shows, POST keeps."""
    if not roles.allows(request.user, roles.OPERATOR):
        raise PermissionDenied
    job = get_object_or_404(Job, id=pk)
    shown = json.dumps(offload.shown(job), indent=2, ensure_ascii=False)
    form = PayloadForm(request.POST if request.method == "POST" else None, initial={"payload": shown})
    if request.method == "POST" and form.is_valid() and _keep(request, job, form):
        return HttpResponseRedirect(reverse("admin:queue_app_job_change", args=[pk]))
    context = {"form": form, "job": job, "error": job.last_error or {}, "title": "Edit payload"}
    page = "admin/queue_app/payload.html"
    return render(request, page, {**admin.site.each_context(request), **context})


def _keep(request: HttpRequest, job: Job, form: PayloadForm) -> bool:
    trace = audit.by(request, "admin")
    try:
        changes = deadletter.edit(job, form.cleaned_data["payload"], **trace)
        if "_replay" in request.POST:
            deadletter.replay(job, **trace)
    except (BadPayload, UnknownTask, PayloadLost, deadletter.Refused) as error:
        form.add_error("payload", str(error))
        return False
    told = f"Changed: {', '.join(changes)}." if changes else "Nothing was changed."
    replayed = " Replayed: it waits for a worker again." if "_replay" in request.POST else ""
    messages.success(request, told + replayed)
    return True
