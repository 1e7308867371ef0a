"""Notices: what a channel gets, until it has taken it; and silences, in which it gets nothing."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend

from foundation.findings import Level
from foundation.models import AuditEntry
from queue_app import (
    alerting,
    alerts_told,
    clock,
    doctor,
    notice_delivery,
    notices,
    queues,
    silences,
    webhook,
)
from queue_app.models import Alert, Job, Notice, Silence
from queue_app.notice_channels import NotSent
from queue_app.states import State
from tests.certificates import self_signed

from .alert_flows import QUEUE, WHO, conf, forget, hooked, late_job, later, make_due, rule, standing
from .receivers import Receiver, receiver

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_rules(db: None) -> None:
    forget()


@pytest.fixture
def hook(settings: Any) -> Iterator[Receiver]:
    with hooked(settings) as one:
        yield one


# --- what is told ------------------------------------------------------------------------------------------------------------
def test_look__several_fire_at_once__one_message_to_each_channel(hook, settings):
    conf(settings, ALERT_MAIL=("ops@example.com",))
    queues.create_queue("pay")
    rule()
    rule("no_worker")
    late_job()
    late_job("pay")
    alerting.look()
    notices.send_due()
    (seen,) = hook.received
    assert {(one["rule"], one["queue"]) for one in seen.body["alerts"]} == {
        (name, queue) for name in ("latency", "no_worker") for queue in (QUEUE, "pay")
    }
    (letter,) = mail.outbox
    assert letter.subject.startswith("[FIRING 4] ")
    assert letter.to == ["ops@example.com"]
    assert "the oldest due job has waited" in letter.body


def test_notice__to_a_webhook__is_signed_and_names_its_id(hook):
    rule()
    late_job()
    alerting.look()
    notices.send_due()
    (seen,) = hook.received
    row = Notice.objects.get()
    assert seen.path.startswith("/hook/secret-path?token=")
    assert seen.headers["X-Brain-Notice"] == seen.body["id"] == str(row.id)
    signed = f"{seen.headers['X-Brain-Timestamp']}.".encode() + seen.raw
    mac = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert seen.headers["X-Brain-Signature"] == f"sha256={mac}"
    assert seen.body["status"] == "firing"
    assert seen.body["text"].startswith("FIRING latency: email_queue: the oldest due job")
    assert row.sent_at is not None
    assert row.next_at is None


def test_notice__no_secret__is_not_signed(hook, settings):
    conf(settings, ALERT_SECRET="")
    rule()
    late_job()
    alerting.look()
    notices.send_due()
    assert "X-Brain-Signature" not in hook.received[0].headers


def test_notice__life_of_an_alert__firing_then_reminder_then_resolved(hook):
    rule(repeat_s=600)
    job = late_job()
    for seconds in (0, 300, 601):
        alerting.look(later(seconds))
    Job.objects.filter(id=job.id).update(state=State.COMPLETED.value)
    alerting.look(later(700))
    alerting.look(later(800))
    make_due()
    notices.send_due()
    assert [one.body["alerts"][0]["kind"] for one in hook.received] == ["firing", "reminder", "resolved"]
    assert hook.received[-1].body["status"] == "resolved"
    assert Alert.objects.get().notices == 3


def test_notice__no_channel_yet__told_when_there_is_one(hook, settings):
    with_hook = settings.BRAIN
    conf(settings, ALERT_WEBHOOKS=())
    rule()
    late_job()
    alerting.look()
    assert not Notice.objects.exists()
    settings.BRAIN = with_hook
    alerting.look()
    alerting.look()
    assert Notice.objects.count() == 1


# --- silences ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("of_rule", "queue", "is_told"),
    [
        (True, QUEUE, False),
        (False, "", False),
        (False, QUEUE, False),
        (True, "", False),
        (False, "pay", True),
    ],
)
def test_silence__covers__nobody_is_told_and_it_fires_all_the_same(hook, of_rule, queue, is_told):
    row = rule()
    queues.create_queue("pay")
    silences.silence(until=later(60), reason="known", rule=row if of_rule else None, queue=queue, **WHO)
    late_job()
    alerting.look()
    assert standing() == [("latency", QUEUE, "firing")]
    assert Notice.objects.exists() is is_told


def test_silence__ends__whoever_was_not_told_is_told(hook):
    rule()
    quiet = silences.silence(until=later(600), reason="known", **WHO)
    late_job()
    alerting.look()
    assert not Notice.objects.exists()
    silences.end(quiet, **WHO)
    alerting.look()
    assert Notice.objects.count() == 1
    with pytest.raises(silences.Over):
        silences.end(quiet, **WHO)
    assert [
        *AuditEntry.objects.filter(action__startswith="silence")
        .values_list("action", flat=True)
        .order_by("id")
    ] == [
        "silence.create",
        "silence.end",
    ]


@pytest.mark.parametrize(
    ("bad", "field"),
    [({"reason": " "}, "reason"), ({"reason": "x" * 201}, "reason"), ({"queue": "email_quue"}, "queue")],
)
def test_silence__bad_field__named_and_nothing_stored(bad, field):
    with pytest.raises(silences.BadSilence) as refused:
        silences.silence(**{"until": later(60), "reason": "known"} | bad, **WHO)
    assert refused.value.field == field
    with pytest.raises(silences.BadSilence, match="about no queue"):
        silences.silence(
            until=later(60), reason="known", rule=rule("recorder", threshold=60), queue=QUEUE, **WHO
        )
    with pytest.raises(silences.BadSilence, match="future"):
        silences.silence(until=later(-1), reason="known", **WHO)
    assert not Silence.objects.exists()


# --- delivery ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def written(hook: Receiver) -> Callable[[], Notice]:
    """A notice in the outbox, told anew by each call."""
    rule()
    late_job()
    alerting.look()

    def now() -> Notice:
        return Notice.objects.order_by("id")[0]

    return now


@pytest.mark.parametrize("answer", [500, 503, 408, 425, 429, 302, 307, "hang", "drip"])
def test_delivery__refused_first__tried_again_later_with_the_same_id(hook, written, answer, settings):
    hook.answers = [answer]
    with_time = settings.BRAIN
    if answer in ("hang", "drip"):
        conf(settings, ALERT_TIMEOUT_S=0.5)
    assert notices.send_due() > 0
    settings.BRAIN = with_time
    row = written()
    assert (row.attempts, row.sent_at, row.taken_until) == (1, None, None)
    assert -30 < (row.next_at - clock.now()).total_seconds() <= 5
    assert len(hook.received) == 1  # a redirect is not followed
    assert "secret" not in row.last_error
    make_due()
    notices.send_due()
    row = written()
    assert (row.attempts, row.last_error, row.next_at) == (2, "", None)
    first, second = hook.received
    assert first.raw == second.raw
    assert first.headers["X-Brain-Notice"] == second.headers["X-Brain-Notice"]


def test_delivery__killed_before_the_note_of_it__sent_again_when_its_time_is_up(hook, written):
    assert notices._take(written())  # and dies
    assert notices.send_due() > 0
    assert hook.received == []
    Notice.objects.update(taken_until=clock.now())
    notices.send_due()
    assert len(hook.received) == 1
    assert written().attempts == 2


def test_delivery__channel_is_down__its_later_notices_wait_for_the_first(hook, written):
    Job.objects.update(state=State.COMPLETED.value)
    alerting.look()
    assert Notice.objects.count() == 2
    hook.answers = [500]
    notices.send_due()
    assert len(hook.received) == 1
    make_due()
    notices.send_due()
    assert [one.body["status"] for one in hook.received] == ["firing", "firing", "resolved"]


def test_delivery__never_taken__given_up_after_all_its_attempts_and_the_next_one_goes(hook, written):
    Job.objects.update(state=State.COMPLETED.value)
    alerting.look()
    hook.answers = [500] * 11
    for _ in range(11):
        make_due()
        notices.send_due()
    row = written()
    assert (row.attempts, row.next_at, row.sent_at, row.last_error) == (11, None, None, "HTTP 500")
    make_due()
    notices.send_due()
    assert hook.received[-1].body["status"] == "resolved"


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413])
def test_delivery__refused_for_good__recorded_with_its_status_told_and_not_tried_again(hook, written, status):
    hook.answers = [status]
    notices.send_due()
    row = written()
    assert (row.attempts, row.next_at, row.sent_at, row.status) == (1, None, None, "given up")
    assert row.last_error == f"HTTP {status}"
    notices.send_due()
    assert len(hook.received) == 1
    told = [found for found in doctor.examine() if found.about == f"alert channel {row.channel}"]
    assert [(one.level, f"the last with: HTTP {status}" in one.told) for one in told] == [
        (Level.WARNING, True)
    ]
    metrics = {family.name: family.samples for family in alerts_told.families()}
    (sample,) = metrics["brain_queue_notices_given_up"]
    assert (sample.labels, sample.value) == ({"channel": row.channel}, 1)
    assert told[0].hint == f"manage.py queue alerts resend '{row.channel}'"


@pytest.mark.parametrize("refusal", [400, 500])
def test_delivery__one_alert_is_refused__the_others_of_its_channel_are_told_at_once(hook, written, refusal):
    hook.refuses = {QUEUE: refusal}
    queues.create_queue("pay")
    pay = late_job("pay")
    alerting.look()
    Job.objects.filter(id=pay.id).update(state=State.COMPLETED.value)
    alerting.look()
    notices.send_due()
    taken = [one.body["alerts"] for one in hook.received if QUEUE not in one.raw.decode()]
    assert [(one["queue"], one["kind"]) for (one,) in taken] == [("pay", "firing"), ("pay", "resolved")]
    assert (written().sent_at, written().next_at is None) == (None, refusal == 400)


def test_delivery__firing_is_still_tried__its_recovery_waits_and_comes_after_it(hook, written):
    hook.answers = [503]
    notices.send_due()
    Job.objects.update(state=State.COMPLETED.value)
    alerting.look()
    notices.send_due()
    assert len(hook.received) == 1
    make_due()
    notices.send_due()
    assert [one.body["status"] for one in hook.received] == ["firing", "firing", "resolved"]


def test_delivery__firing_was_refused_for_good__its_recovery_goes_all_the_same(hook, written):
    hook.answers = [400]
    notices.send_due()
    Job.objects.update(state=State.COMPLETED.value)
    alerting.look()
    notices.send_due()
    assert [one.body["status"] for one in hook.received] == ["firing", "resolved"]


@pytest.mark.parametrize("status", [429, 503])
def test_delivery__receiver_says_when__not_tried_before(hook, written, status):
    hook.answers, hook.headers = [status], {"Retry-After": "120"}
    notices.send_due()
    assert 60 < (written().next_at - clock.now()).total_seconds() <= 120


def test_delivery__receiver_hangs__another_channel_waits_for_one_attempt_at_most(settings, hook):
    with receiver() as slow:
        conf(settings, ALERT_WEBHOOKS=(slow.url, hook.url), ALERT_TIMEOUT_S=0.3)
        slow.answers = ["hang"] * 20
        rule()
        for number in range(4):
            queues.create_queue(f"pay{number}")
            late_job(f"pay{number}")
            alerting.look()
        notices.send_due(for_s=0.6)  # time for two or three attempts that hang
        assert len(slow.received) <= 3
        assert len(hook.received) >= max(1, len(slow.received))  # one beside each that hangs


def test_resend__given_up__sent_again_with_the_same_id_and_audited(hook, written):
    hook.answers = [404]
    notices.send_due()
    assert notices.send_again(Notice.objects.all(), **WHO) == 1
    notices.send_due()
    first, second = hook.received
    assert (first.raw, written().status) == (second.raw, "sent")
    assert notices.send_again(Notice.objects.all(), **WHO) == 0
    entry = AuditEntry.objects.get(action="notice.resend")
    assert entry.before == {"attempts": 1, "last_error": "HTTP 404"}


def test_resend__its_alert_is_over_and_that_was_told__not_sent_again(hook, written):
    hook.answers = [404]
    notices.send_due()
    Job.objects.update(state=State.COMPLETED.value)
    alerting.look()
    notices.send_due()
    assert notices.send_again(Notice.objects.all(), **WHO) == 0
    assert written().status == "given up"


def test_delivery__channel_is_gone_from_the_settings__given_up(hook, written, settings):
    conf(settings, ALERT_WEBHOOKS=())
    notices.send_due()
    row = written()
    assert (row.next_at, row.last_error) == (None, "there is no such channel any more")


def test_delivery__mail_server_is_down__tried_again(settings, hook, written):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_PORT = 1
    conf(settings, ALERT_MAIL=("ops@example.com",))
    Alert.objects.update(told_at=None)
    alerting.look()
    notices.send_due()
    row = Notice.objects.get(channel="mail:ops@example.com")
    assert (row.attempts, row.last_error, row.sent_at) == (1, "mail: ConnectionRefusedError", None)


class Elsewhere(BaseEmailBackend):
    """A backend of somebody else's, whose errors are no OSErrors."""

    def send_messages(self, messages: Any) -> int:
        raise LookupError("quota")


def test_delivery__a_way_out_fails_as_nobody_thought__tried_again_and_the_other_channels_go(
    settings, hook, written
):
    settings.EMAIL_BACKEND = f"{__name__}.Elsewhere"
    plain, odd = hook.url, hook.url.replace("/hook/", "/höok/")
    conf(settings, ALERT_MAIL=("ops@example.com",), ALERT_WEBHOOKS=(odd, plain))
    Notice.objects.all().delete()
    Alert.objects.update(told_at=None)
    alerting.look()
    notices.send_due()
    found = dict(Notice.objects.values_list("channel", "last_error"))
    assert sorted(found.values()) == ["", "mail: LookupError", "webhook: UnicodeEncodeError"]
    assert {*Notice.objects.values_list("attempts", "taken_until")} == {(1, None)}
    with pytest.raises(NotSent, match="LookupError"):
        notices.test("mail:ops@example.com", **WHO)


def test_channel_name__password_in_the_url__is_not_told():
    assert notice_delivery.channel_name("https://user:s3cret@example.com/x").startswith("example.com#")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://0.0.0.0/", "ftp://127.0.0.1/"]
)
def test_webhook__address_that_is_never_connected_to__refused(url):
    with pytest.raises(webhook.Failed) as refused:
        webhook.post(url, b"{}", {}, timeout_s=0.5)
    assert "latest" not in str(refused.value)


def test_webhook__loopback_where_it_is_not_allowed__refused(hook, settings):
    settings.BRAIN = settings.BRAIN | {"FOUNDATION": {"ALLOW_LOOPBACK_TARGETS": False}}
    with pytest.raises(webhook.Failed, match="loopback"):
        webhook.post(hook.url, b"{}", {}, timeout_s=0.5)
    assert hook.received == []


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return self_signed(tmp_path)


def test_webhook__over_tls__the_name_is_verified_though_the_address_is_pinned(certificate, monkeypatch):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with receiver(context) as one:
        with pytest.raises(webhook.Failed, match="SSLCertVerificationError"):
            webhook.post(one.url, b"{}", {}, timeout_s=2)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert webhook.post(one.url, b"{}", {}, timeout_s=2).status == 200
        with pytest.raises(webhook.Failed, match="SSLCertVerificationError"):  # not the certificate's name
            webhook.post(one.url.replace("localhost", "127.0.0.1"), b"{}", {}, timeout_s=2)
    assert len(one.received) == 1
    assert one.received[0].headers["Host"].startswith("localhost:")
