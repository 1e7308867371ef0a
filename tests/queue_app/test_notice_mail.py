"""Notices that go by mail, through a real SMTP server."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_app import clock, notice_channels, notices
from queue_app.alerts import Kind
from queue_app.models import Alert, Notice
from tests.certificates import self_signed

from .alert_flows import conf, forget, make_due
from .mail_servers import PASSWORD, USER, MailServer, mail_server

pytestmark = pytest.mark.django_db

OPS, BOSS = "ops@example.com", "boss@example.com"


@pytest.fixture(autouse=True)
def no_rules(db: None) -> None:
    forget()


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    with mail_server() as one:
        use(settings, one.port)
        yield one


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return self_signed(tmp_path)


@pytest.fixture
def guarded(settings: Any, certificate: tuple[Path, Path]) -> Iterator[MailServer]:
    """It wants STARTTLS, and a login after that."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with mail_server(context) as one:
        use(settings, one.port, EMAIL_USE_TLS=True)
        settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = USER.decode(), PASSWORD.decode()
        yield one


def use(settings: Any, port: int, **more: Any) -> None:
    conf(settings, ALERT_MAIL=(OPS,), ALERT_TIMEOUT_S=20.0)
    given = {"EMAIL_HOST": "localhost", "EMAIL_PORT": port, "DEFAULT_FROM_EMAIL": "brain@example.com"} | more
    for name, value in given.items():
        setattr(settings, name, value)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"


def tell(name: str = "latency", queue: str = "emails") -> list[Notice]:
    """To every channel, of an alert that no look has made: its queue may have any name."""
    now = clock.now()
    words = f"{queue}: the oldest due job has waited 5 minutes"
    alert = Alert(pk=7, name=name, queue=queue, words=words, value=300, since=now, fired_at=now)
    return notices.write(notice_channels.channels(), [(Kind.FIRING, alert)], now)


def row(address: str = OPS) -> Notice:
    return Notice.objects.get(channel=f"mail:{address}")


def test_mail__plain_server__gets_one_letter_that_names_the_notice(server):
    (notice,) = tell()
    notices.send_due()
    (letter,), (recipients,) = server.letters, server.recipients
    assert recipients == [OPS]
    assert (letter["From"], letter["To"]) == ("brain@example.com", OPS)
    assert letter["Subject"] == "[FIRING] latency: emails"
    assert letter["Message-ID"] == f"<{notice.id}@brain>"
    assert "FIRING latency: emails: the oldest due job has waited" in letter.get_content()
    assert row().status == "sent"


def test_mail__starttls_and_login__both_are_used(guarded, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    tell()
    notices.send_due()
    assert (len(guarded.letters), guarded.logins, row().status) == (1, 1, "sent")


def test_mail__wrong_password__given_up_and_no_word_of_it_told(guarded, certificate, monkeypatch, settings):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    settings.EMAIL_HOST_PASSWORD = "gu3ss"
    tell()
    notices.send_due()
    assert (row().status, row().last_error) == ("given up", "mail: SMTPAuthenticationError 535")
    assert guarded.letters == []


def test_mail__certificate_that_nobody_knows__tried_again_and_no_password_sent(guarded):
    tell()
    notices.send_due()
    assert (row().status, row().last_error) == ("waits", "mail: SSLCertVerificationError")
    assert guarded.logins == 0


def test_mail__server_without_starttls__tried_again_and_nothing_sent_in_clear(server, settings):
    settings.EMAIL_USE_TLS = True
    tell()
    notices.send_due()
    assert (row().status, row().last_error) == ("waits", "mail: SMTPNotSupportedError")
    assert server.letters == []


def test_mail__one_address_is_refused__it_is_given_up_and_the_other_has_its_letter(server, settings):
    conf(settings, ALERT_MAIL=(BOSS, OPS))
    server.refused = {BOSS}
    tell()
    notices.send_due()
    assert (row(BOSS).status, row(BOSS).last_error) == ("given up", "mail: SMTPRecipientsRefused 550")
    assert (row(OPS).status, server.recipients) == ("sent", [[OPS]])
    assert [(one.channel, one.number) for one in notices.given_up()] == [(f"mail:{BOSS}", 1)]


def test_mail__greylisted__comes_later_under_the_same_id(server):
    server.answers = ["451 4.7.1 come back later"]
    (notice,) = tell()
    notices.send_due()
    assert (row().status, row().last_error) == ("waits", "mail: SMTPRecipientsRefused 451")
    make_due()
    notices.send_due()
    assert [letter["Message-ID"] for letter in server.letters] == [f"<{notice.id}@brain>"]


def test_mail__server_is_down__tried_again(settings):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use(settings, port)
    tell()
    notices.send_due()
    assert (row().status, row().last_error) == ("waits", "mail: ConnectionRefusedError")


def test_mail__server_that_never_greets__left_in_time_and_tried_again(settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes the connection, nobody answers
        use(settings, silent.getsockname()[1])
        conf(settings, ALERT_TIMEOUT_S=0.5)
        tell()
        began = time.monotonic()
        notices.send_due()
        assert 0.4 < time.monotonic() - began < 15
    assert (row().status, row().last_error) == ("waits", "mail: SMTPServerDisconnected")


def test_mail__server_hangs_when_it_has_the_letter__left_in_time_and_tried_again(server, settings):
    conf(settings, ALERT_TIMEOUT_S=0.5)
    server.answers = ["hang"]
    tell()
    began = time.monotonic()
    notices.send_due()
    assert 0.4 < time.monotonic() - began < 15
    assert (row().status, row().last_error) == ("waits", "mail: SMTPServerDisconnected")


def test_mail__line_breaks_in_the_names__begin_no_header_and_no_alert(server):
    tell(name="late\r\nBcc: evil@example.com", queue="q\n\nRESOLVED latency: all is well")
    notices.send_due()
    (letter,), (recipients,) = server.letters, server.recipients
    assert recipients == [OPS]
    assert letter["Bcc"] is None
    assert letter["Subject"] == "[FIRING] late Bcc: evil@example.com: q RESOLVED latency: all is well"
    assert not [line for line in letter.get_content().splitlines() if line.startswith("RESOLVED")]


def test_mail__names_beyond_ascii__arrive_as_they_are(server):
    tell(name="Verspätung", queue="größe-日本")
    notices.send_due()
    (letter,) = server.letters
    assert letter["Subject"] == "[FIRING] Verspätung: größe-日本"
    assert "größe-日本: the oldest due job" in letter.get_content()


def test_mail__that_is_no_notice__has_a_time_out_too(settings):
    assert 0 < settings.EMAIL_TIMEOUT <= 30


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        ("starttls", "mail.test 587 alerts p4ssw0rd True False"),
        ("implicit", "mail.test 587 alerts p4ssw0rd False True"),
        ("", "mail.test 587 alerts p4ssw0rd False False"),
        ("tls", "BRAIN_SMTP_TLS='tls' is not known: use one of none, starttls, implicit."),
    ],
)
def test_settings__mail_server_in_the_environment__is_django_s(tls, told, tmp_path):
    given = {"HOST": "mail.test", "PORT": "587", "USER": "alerts", "PASSWORD": "p4ssw0rd", "TLS": tls}
    names = ("HOST", "PORT", "HOST_USER", "HOST_PASSWORD", "USE_TLS", "USE_SSL")
    said = ", ".join(f"found.EMAIL_{name}" for name in names)
    ended = subprocess.run(
        [sys.executable, "-c", f"from brain_project import settings as found; print({said})"],
        env={**os.environ, "BRAIN_DATA_DIR": str(tmp_path), **{f"BRAIN_SMTP_{k}": v for k, v in given.items()}},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1].endswith(told)
