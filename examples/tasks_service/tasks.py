"""What the worker does for this service: one mail to the assignee of a new task."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage, get_connection

from foundation import request_id
from queue_app import task

QUEUE = "email_queue"
TIMEOUT_S = 10


@task(queue=QUEUE, name="tasks_service.send_email")
def send_email(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: to, subject, task_id. An address that the mail server refuses raises, and the queue tries again."""
    current = request_id.current()
    message = EmailMessage(
        subject=payload["subject"],
        body=f"Task {payload['task_id']}: {payload['subject']}\n",
        to=[payload["to"]],
        headers={request_id.HEADER: current} if current else {},
        connection=get_connection(
            "django.core.mail.backends.smtp.EmailBackend",
            host=settings.EMAIL_HOST,
            port=settings.EMAIL_PORT,
            timeout=TIMEOUT_S,
        ),
    )
    message.send()
    return {"status": "sent"}
