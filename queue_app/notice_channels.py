"""The channels that notices go by: webhooks and mail, what each is sent, and what its refusal means."""

from __future__ import annotations

import json
import smtplib
from contextlib import suppress
from typing import NamedTuple

from django.conf import settings
from django.core.mail import EmailMessage, get_connection

from . import alerts, clock, notice_delivery, webhook
from .conf import conf
from .models import Notice

_LONGEST_NAME = 100  # of a notice's channel


class NotSent(Exception):
    """The channel did not take it. The message holds no secret.

    is_final: it would be refused again. asked_s: what the receiver asks to wait before it is sent again.
    """

    def __init__(self, message: str, *, is_final: bool = False, asked_s: float = 0.0) -> None:
        super().__init__(message)
        self.is_final, self.asked_s = is_final, asked_s


class Channel(NamedTuple):
    """url: of a webhook; else address: of a mailbox."""

    name: str
    url: str = ""
    address: str = ""


def channels() -> tuple[Channel, ...]:
    """Each address is one of its own: an SMTP server that refuses some of a letter's takes the letter all the same."""
    hooks = [
        Channel(notice_delivery.channel_name(url), url=url) for url in dict.fromkeys(conf().ALERT_WEBHOOKS)
    ]
    mail = [Channel(f"mail:{one}"[:_LONGEST_NAME], address=one) for one in dict.fromkeys(conf().ALERT_MAIL)]
    return (*hooks, *mail)


def send(name: str, row: Notice) -> None:
    """Raises NotSent, whatever the way there raises."""
    channel = next((one for one in channels() if one.name == name), None)
    if channel is None:
        raise NotSent("there is no such channel any more", is_final=True)
    try:
        if channel.url:
            _post(channel.url, row)
        else:
            _mail(channel.address, row)
    except NotSent:
        raise
    except Exception as error:  # smtplib's errors, and those of a mail backend that somebody else wrote
        code = _smtp_code(error)
        # What the server says stays out of it: many repeat who logged in.
        told = f"{'webhook' if channel.url else 'mail'}: {type(error).__name__}{f' {code}' if code else ''}"
        raise NotSent(told, is_final=500 <= code < 600) from error


def _post(url: str, row: Notice) -> None:
    now = clock.now()
    body, timestamp = json.dumps(row.body, ensure_ascii=False).encode(), int(now.timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "brain-alerts/1",
        "X-Brain-Notice": str(row.id),
        "X-Brain-Timestamp": str(timestamp),
    }
    if conf().ALERT_SECRET:
        headers["X-Brain-Signature"] = notice_delivery.signature(conf().ALERT_SECRET, timestamp, body)
    try:
        status, retry_after = webhook.post(url, body, headers, timeout_s=conf().ALERT_TIMEOUT_S)
    except webhook.Failed as error:
        raise NotSent(str(error)) from error
    if not 200 <= status < 300:
        told = f"HTTP {status}{', and redirects are not followed' if 300 <= status < 400 else ''}"
        asked_s = notice_delivery.asked_s(retry_after, now)
        raise NotSent(told, is_final=notice_delivery.is_final(status), asked_s=asked_s)


def _mail(address: str, row: Notice) -> None:
    letter = EmailMessage(
        subject=alerts.title(row.body),
        body=alerts.letter(row.body),
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=[address],
        headers={"Message-ID": f"<{row.id}@brain>", "X-Brain-Notice": str(row.id)},
    )
    letter.connection = get_connection(timeout=conf().ALERT_TIMEOUT_S)
    try:
        letter.send()
    finally:
        with suppress(smtplib.SMTPException):
            letter.connection.close()  # Django leaves it open when TLS or the login fails


def _smtp_code(error: Exception) -> int:
    """0: it was no answer of an SMTP server's."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return max((code for code, _ in error.recipients.values()), default=0)
    return error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else 0
