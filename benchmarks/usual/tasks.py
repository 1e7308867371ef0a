from __future__ import annotations

from celery import shared_task
from django.core.mail import send_mail


@shared_task
def send_email(to: str, subject: str, task_id: int) -> None:
    send_mail(subject, f"Task {task_id}: {subject}\n", "usual@localhost", [to])
