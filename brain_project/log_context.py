"""What log lines name beyond django-structlog's own: the task that wrote them, and the view that answered."""

from __future__ import annotations

from typing import Any

import structlog
from django.dispatch import receiver
from django.http import HttpRequest
from django_structlog.celery.signals import bind_extra_task_metadata
from django_structlog.signals import bind_extra_request_finished_metadata


@receiver(bind_extra_task_metadata, dispatch_uid="brain_project.log_context")
def name_task(task: Any, **_: Any) -> None:
    structlog.contextvars.bind_contextvars(task=task.name)


@receiver(bind_extra_request_finished_metadata, dispatch_uid="brain_project.log_context")
def name_view(request: HttpRequest, log_kwargs: dict[str, Any], **_: Any) -> None:
    if request.resolver_match is not None:
        log_kwargs["view"] = request.resolver_match.view_name
