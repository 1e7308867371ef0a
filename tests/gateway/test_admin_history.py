"""The configuration's history in the admin: what each version changed, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from foundation import roles
from foundation.models import AuditEntry
from gateway import changes, history
from gateway.admin.revisions import diff
from gateway.entries import Change
from gateway.models import ApiKey, JwtIssuer, Plan, Revision, Route, Service
from tests.foundation.people import client_of

from .admin_pages import CONFIRMED, SECRET, TRACE, configuration, page, save

pytestmark = pytest.mark.django_db


@pytest.fixture
def made() -> dict[str, Any]:
    return configuration()


def revision(version: int) -> Any:
    return Revision.objects.get(version=version)


def test_diff__changed__fields_that_differ_before_and_after() -> None:
    change = Change(
        "route", "/a", {"timeout_s": 3.0, "methods": ["GET"]}, {"timeout_s": None, "methods": ["GET"]}
    )
    assert diff(change)["fields"] == [("timeout_s", "3.0", "none")]


def test_diff__new__without_what_it_has_by_itself() -> None:
    plan = {"requests_per_minute": 60, "requests_per_hour": None, "burst_limit": None, "counted_by": "caller"}
    shown = diff(Change("plan", "gold", None, plan))
    assert (shown["verb"], shown["fields"]) == ("created", [("requests_per_minute", "none", "60")])


def test_diff__key__named_by_its_prefix_and_consumer() -> None:
    fields = {"prefix": "abc", "consumer": "robot", "scopes": None, "revoked_at": None, "expires_at": None}
    assert diff(Change("key", "f" * 64, None, fields))["name"] == "brn_abc_… of robot"


def test_list__who_what_and_how_many(made: dict[str, Any]) -> None:
    made["plan"].burst_limit = 10
    save(made["plan"])
    text = client_of(roles.VIEWER).get(page("revision")).content.decode()
    assert "~ plan gold  burst_limit: 50 -&gt; 10" in text
    assert "1 changed" in text
    assert "tester" in text


def test_revision__page__a_readable_diff_without_secrets(made: dict[str, Any]) -> None:
    issuer = JwtIssuer.objects.get()
    changes.set_secret(issuer, "another-secret-of-32-characters!")
    issuer.audience = "<b>us</b>"
    save(issuer)
    text = client_of(roles.VIEWER).get(page("revision", revision(history.newest()))).content.decode()
    assert "&lt;b&gt;us" in text
    assert "***" in text
    for secret in (SECRET, "another-secret", issuer.secret):
        assert secret not in text
    assert "this is the version in use" in text


def test_rollback__dialog__shows_what_would_change(made: dict[str, Any]) -> None:
    before = history.newest()
    made["plan"].burst_limit = 10
    save(made["plan"])
    client = client_of(roles.ADMIN)
    dialog = client.get(page("revision", revision(before), "roll_back")).content.decode()
    assert "Roll back to this version?" in dialog
    assert "burst_limit" in dialog
    assert history.newest() == before + 1  # asking does nothing


def test_rollback__confirmed__a_new_version_audited_and_named(made: dict[str, Any]) -> None:
    before = history.newest()
    made["plan"].burst_limit = 10
    save(made["plan"])
    changes.delete(made["transform"], **TRACE)
    client = client_of(roles.ADMIN)
    answer = client.post(page("revision", revision(before), "roll_back"), CONFIRMED)
    assert answer.headers["Location"] == page("revision", revision(before + 3))
    assert Plan.objects.get().burst_limit == 50
    assert Route.objects.get().transforms.count() == 1
    assert AuditEntry.objects.filter(action="configuration.rollback", actor="some-admin").exists()
    text = client.get(page("revision")).content.decode()
    assert f"back to version {before}" in text


def test_rollback__to_what_is__changes_nothing_and_says_so(made: dict[str, Any]) -> None:
    before = history.newest()
    made["plan"].burst_limit = 10
    save(made["plan"])
    made["plan"].burst_limit = 50
    save(made["plan"])
    client = client_of(roles.ADMIN)
    assert b"Nothing would change" in client.get(page("revision", revision(before), "roll_back")).content
    answer = client.post(page("revision", revision(before), "roll_back"), CONFIRMED, follow=True)
    assert "already" in answer.content.decode()
    assert history.newest() == before + 2


def test_rollback__that_cannot_be__refused_in_words(made: dict[str, Any]) -> None:
    before = history.newest()
    save(Service(name="other"))
    Route.objects.create(name="by-hand", path="/by-hand", service=Service.objects.get(name="other"))
    client = client_of(roles.ADMIN)
    answer = client.post(page("revision", revision(before), "roll_back"), CONFIRMED, follow=True)
    assert "Nothing was changed" in answer.content.decode()
    assert Service.objects.filter(name="other").exists()


def test_rollback__revoked_key__neither_promised_nor_done(made: dict[str, Any]) -> None:
    before = history.newest()
    changes.revoke_key(made["apikey"], **TRACE)
    made["plan"].burst_limit = 10
    save(made["plan"])
    client = client_of(roles.ADMIN)
    dialog = client.get(page("revision", revision(before), "roll_back")).content.decode()
    assert "revoked_at" not in dialog
    client.post(page("revision", revision(before), "roll_back"), CONFIRMED)
    assert ApiKey.objects.get().revoked_at is not None
    assert Plan.objects.get().burst_limit == 50


@pytest.mark.parametrize("role", [roles.VIEWER, roles.OPERATOR])
def test_rollback__below_an_admin__neither_offered_nor_done(role: str, made: dict[str, Any]) -> None:
    client, old = client_of(role), revision(1)
    assert page("revision", old, "roll_back") not in client.get(page("revision", old)).content.decode()
    assert client.post(page("revision", old, "roll_back"), CONFIRMED).status_code == 403
    assert client.get(page("revision", old, "roll_back")).status_code == 403


def test_revision__newest__no_way_back_to_where_one_is(made: dict[str, Any]) -> None:
    client, newest = client_of(roles.ADMIN), revision(history.newest())
    assert page("revision", newest, "roll_back") not in client.get(page("revision", newest)).content.decode()
    gone = reverse("admin:gateway_revision_change", args=[999_999])
    assert client.get(gone).status_code == 302  # Django's answer for a row that is not there
