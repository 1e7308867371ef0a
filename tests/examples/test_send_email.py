from __future__ import annotations

import asyncio
import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP
from django.conf import LazySettings

from examples.mail_sink import Sink
from examples.tasks_service.tasks import send_email
from foundation import request_id


@pytest.fixture
def mails(tmp_path: Path, settings: LazySettings) -> Iterator[Path]:
    """A mail sink on a loop in a thread, which Django's settings point at; yields its folder."""
    sink = Sink(tmp_path / "mail")
    sink.prepare()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: SMTP(sink, hostname="sink", loop=loop), "127.0.0.1", 0)
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    settings.EMAIL_HOST, settings.EMAIL_PORT = server.sockets[0].getsockname()
    yield sink.folder
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_send_email__accepted_address__arrives_with_the_request_id(mails: Path) -> None:
    with request_id.bound("from-the-gateway"):
        assert send_email({"to": "ada@example.com", "subject": "hello", "task_id": 7}) == {"status": "sent"}
    (mail,) = mails.glob("*.eml")
    text = mail.read_text()
    assert "X-Request-Id: from-the-gateway" in text
    assert "Subject: hello" in text
    assert "To: ada@example.com" in text


def test_send_email__refused_address__raises(mails: Path) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_email({"to": "poison@example.com", "subject": "hello", "task_id": 7})


def test_send_email__subject_with_a_line_break__is_refused(mails: Path) -> None:
    with pytest.raises(ValueError, match="newlines"):
        send_email({"to": "ada@example.com", "subject": "a\nBcc: x@example.com", "task_id": 7})
