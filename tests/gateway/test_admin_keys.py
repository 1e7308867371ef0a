"""API keys in the admin: shown once to whoever made them, rotated with an overlap, revoked; and tokens that are revoked."""

from __future__ import annotations

import logging
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from foundation.models import AuditEntry
from gateway import changes, issuers, keys, tokens
from gateway.admin.keys import state_of
from gateway.holder import Holder
from gateway.models import ApiKey, RevokedToken
from tests.foundation.people import client_of

from .admin_pages import CONFIRMED, SECRET, TRACE, configuration, living, page

pytestmark = pytest.mark.django_db
TEXT = re.compile(r"brn_[a-z0-9]+_[A-Za-z0-9]{20,}")


@pytest.fixture
def made() -> dict[str, Any]:
    return configuration()


def issue(client: Client, made: dict[str, Any], **values: Any) -> Any:
    form = {"key_scopes": "", "days": "", **CONFIRMED, **values}
    return client.post(page("consumer", made["consumer"], "issue_key"), form)


def test_new_key__asked_for__made_by_the_answer_alone_and_audited(made: dict[str, Any]) -> None:
    client = client_of(roles.ADMIN)
    assert b"Make a new API key?" in client.get(page("consumer", made["consumer"], "issue_key")).content
    assert ApiKey.objects.count() == 1
    answer = issue(client, made, key_scopes="read", days="30")
    key = ApiKey.objects.last()
    assert key is not None
    assert answer.headers["Location"] == reverse("admin:gateway_apikey_shown", args=[key.pk])
    assert key.scopes == ["read"]
    assert key.expires_at is not None
    assert timedelta(days=29) < key.expires_at - timezone.now() < timedelta(days=30)
    assert AuditEntry.objects.get(source="admin").action == "key.create"


def test_new_key__shown__once_in_no_cache_and_kept_nowhere(
    made: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = client_of(roles.ADMIN)
    answer = issue(client, made)
    kept = [session.get_decoded() for session in Session.objects.all()]
    first = client.get(answer.headers["Location"])
    (text,) = set(TEXT.findall(first.content.decode()))
    assert "no-store" in first.headers["Cache-Control"]
    key = ApiKey.objects.get(digest=keys.digest(text.encode()).hex())
    assert key.consumer == made["consumer"]
    again = client.get(answer.headers["Location"])
    assert again.status_code == 410
    assert "shown already" in again.content.decode()
    everywhere = [
        again.content.decode(), client.get(page("consumer", made["consumer"])).content.decode(), str(kept), caplog.text,
        str(list(AuditEntry.objects.values())), str([session.get_decoded() for session in Session.objects.all()]),
    ]  # fmt: skip
    assert not any(text.rpartition("_")[2] in place for place in everywhere)


def test_new_key__page_of_somebody_else_or_too_late__not_shown(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(roles.ADMIN)
    shown = issue(client, made).headers["Location"]
    assert client_of(roles.OPERATOR).get(shown).status_code == 403
    later = timezone.now() + timedelta(seconds=200)
    monkeypatch.setattr("gateway.admin.keys.timezone.now", lambda: later)
    assert client.get(shown).status_code == 410


def test_new_key__two_at_once__each_on_its_own_page(made: dict[str, Any]) -> None:
    client = client_of(roles.ADMIN)
    pages = [issue(client, made).headers["Location"] for _ in range(2)]
    texts = [TEXT.findall(client.get(one).content.decode())[0] for one in pages]
    assert len(set(texts)) == 2


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"key_scopes": "root"}, "does not have the scope &#x27;root&#x27;"),
        ({"days": "0"}, "greater than or equal to 1"),
    ],
)
def test_new_key__bad_answer__said_in_the_dialog(
    made: dict[str, Any], values: dict[str, str], told: str
) -> None:
    answer = issue(client_of(roles.ADMIN), made, **values)
    assert told in answer.content.decode()
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("role", [roles.VIEWER, roles.OPERATOR])
def test_keys__below_an_admin__neither_made_nor_rotated_nor_revoked(role: str, made: dict[str, Any]) -> None:
    client, key = client_of(role), made["apikey"]
    assert issue(client, made).status_code == 403
    for verb in ("rotate", "revoke"):
        assert client.post(page("apikey", key, verb), {"overlap_h": "1", **CONFIRMED}).status_code == 403
    assert client.post(page("consumer", made["consumer"], "revoke_keys"), CONFIRMED).status_code == 403
    client.post(page("apikey"), {"action": "revoke_selected", "_selected_action": [key.pk]})
    assert [one.pk for one in living()] == [key.pk]


def test_rotate__with_an_overlap__new_key_shown_and_the_old_one_ends(made: dict[str, Any]) -> None:
    client, old = client_of(roles.ADMIN), made["apikey"]
    answer = client.post(page("apikey", old, "rotate"), {"overlap_h": "0.5", **CONFIRMED})
    (text,) = set(TEXT.findall(client.get(answer.headers["Location"]).content.decode()))
    old.refresh_from_db()
    assert old.expires_at is not None
    assert timedelta(minutes=29) < old.expires_at - timezone.now() < timedelta(minutes=31)
    assert ApiKey.objects.get(digest=keys.digest(text.encode()).hex()).scopes == old.scopes
    dialog = client.post(page("apikey", old, "rotate"), {"overlap_h": "9999", **CONFIRMED})
    assert b"less than or equal to 2160" in dialog.content


def test_revoke__one_some_and_all__for_good(made: dict[str, Any]) -> None:
    client, consumer, first = client_of(roles.ADMIN), made["consumer"], made["apikey"]
    others = [changes.issue_key(consumer, **TRACE)[0] for _ in range(4)]
    client.post(page("apikey", first, "revoke"), CONFIRMED)
    assert len(living()) == 4
    client.post(
        page("apikey"), {"action": "revoke_selected", "_selected_action": [others[0].pk, others[1].pk]}
    )
    assert len(living()) == 2
    client.post(page("consumer", consumer, "revoke_keys"), CONFIRMED)
    assert living() == []
    offered = client.get(page("apikey", first)).content.decode()
    assert page("apikey", first, "rotate") not in offered
    answer = client.post(page("apikey", first, "rotate"), {"overlap_h": "1", **CONFIRMED}, follow=True)
    assert "revoked or expired" in answer.content.decode()
    assert living() == []


def test_key__scopes_and_end__changed_within_the_consumers(made: dict[str, Any]) -> None:
    client, key = client_of(roles.ADMIN), made["apikey"]
    form = {"scopes": "write", "expires_at_0": "2030-01-02", "expires_at_1": "03:04:05"}
    assert client.post(page("apikey", key), form).status_code == 302
    key.refresh_from_db()
    assert (key.scopes, key.expires_at.year) == (["write"], 2030)
    assert client.post(page("apikey", key), {**form, "scopes": "root"}).status_code == 200


def test_state_of__revoked_before_expired_before_soon(made: dict[str, Any]) -> None:
    key, now = made["apikey"], timezone.now()
    assert state_of(key, now) == "active"
    key.expires_at = now + timedelta(days=1)
    assert state_of(key, now) == "expires soon"
    key.expires_at = now
    assert state_of(key, now) == "expired"
    key.revoked_at = now
    assert state_of(key, now) == "revoked"


# --- revoked tokens ----------------------------------------------------------------------------------------------------
@pytest.fixture
def revoke(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(issuers, "holder", Holder())
    client = client_of(roles.ADMIN)

    def post(**values: Any) -> Any:
        return client.post(reverse("admin:gateway_revokedtoken_revoke"), {**CONFIRMED, **values}, follow=True)

    RevokedToken.objects.all().delete()
    return post


def token(**claims: Any) -> str:
    now = int(time.time())
    claims = {"sub": "7", "iat": now, "exp": now + 600, "jti": "j-7", "token_type": "access", **claims}
    return tokens.sign(claims, "HS256", SECRET.encode())


def test_revoke_token__pasted__kept_by_its_id_and_nowhere_itself(
    revoke: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = token()
    answer = revoke(token=text)
    row = RevokedToken.objects.get()
    assert (row.issuer, row.jti) == ("own", "j-7")
    assert text not in answer.content.decode() + caplog.text + str(list(AuditEntry.objects.values()))


def test_revoke_token__by_issuer_and_id__kept(revoke: Any) -> None:
    revoke(issuer="own", jti="j-9", expires_at="2099-01-01 10:00")
    row = RevokedToken.objects.get()
    assert (row.issuer, row.jti, row.expires_at.year) == ("own", "j-9", 2099)


def test_revoke_token__strangers__told_that_it_is_refused_anyway(revoke: Any) -> None:
    assert "not accepted anyway" in revoke(token=token(exp=1)).content.decode()
    assert not RevokedToken.objects.exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "Is needed where no token is given."),
        ({"token": "a.b.c", "jti": "j"}, "Give the token alone"),
        ({"issuer": "own", "jti": "j", "expires_at": "2001-01-01 10:00"}, "refused anyway"),
        ({"issuer": "nobody", "jti": "j", "expires_at": "2099-01-01 10:00"}, "not one of the available"),
    ],
)
def test_revoke_token__half_an_answer__said_in_the_dialog(
    revoke: Any, values: dict[str, str], told: str
) -> None:
    assert told in revoke(**values).content.decode()
    assert not RevokedToken.objects.exists()


@pytest.mark.parametrize("role", [roles.VIEWER, roles.OPERATOR])
def test_revoke_token__below_an_admin__refused(role: str) -> None:
    url = reverse("admin:gateway_revokedtoken_revoke")
    client = client_of(role)
    assert url not in client.get(page("revokedtoken")).content.decode()
    assert client.post(url, {"token": "a.b.c", **CONFIRMED}).status_code == 403
