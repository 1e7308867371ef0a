"""Cutting off a subject by API, admin and command line: one function behind all of them, audited with its door."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from foundation.commands import Failed
from foundation.models import AuditEntry
from gateway import cuts
from gateway.models import TokenCut
from orm_app.models import User
from tests.foundation.people import client_of

from . import api_rows as rows
from .admin_pages import CONFIRMED, page
from .api_rows import pointers, problem, send

pytestmark = pytest.mark.django_db

LATER = "2100-01-01T00:00:00Z"


@pytest.fixture
def admin() -> Client:
    return client_of(roles.ADMIN)


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", "ada@example.com")


def door() -> str:
    return AuditEntry.objects.get(action="tokencut.create").source


# --- API


def test_api__issuer_and_subject__cut_listed_and_never_taken_back(admin: Client) -> None:
    rows.issuer()
    made = send(admin, "POST", "token-cuts", {"issuer": "partner", "subject": "7", "expires_at": LATER})
    assert made.status_code == 201, made.content
    told = made.json()
    assert set(told) == {"id", "issuer", "subject", "issued_until", "expires_at"}
    assert datetime.fromisoformat(told["expires_at"]) == datetime(2100, 1, 1, tzinfo=UTC)
    (row,) = send(admin, "GET", "token-cuts?issuer=partner&subject=7").json()["results"]
    assert row == send(admin, "GET", f"token-cuts/{row['id']}").json() == told
    for method in ("PATCH", "PUT", "DELETE"):
        problem(send(admin, method, f"token-cuts/{row['id']}", {}), 405)
    assert door() == "api"


def test_api__user_of_ours__by_name_and_kept_for_as_long_as_needed(admin: Client, ada: User) -> None:
    made = send(admin, "POST", "token-cuts", {"user": "ada"})
    assert (made.status_code, made.json()["subject"]) == (201, str(ada.pk))
    assert TokenCut.objects.get().expires_at > timezone.now() + timedelta(days=30)
    again = send(admin, "POST", "token-cuts", {"issuer": cuts.own_issuer(), "subject": str(ada.pk)})
    assert (again.status_code, again.json()["id"]) == (201, made.json()["id"])


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, ["/issuer", "/subject"]),
        ({"issuer": "partner", "subject": "7"}, ["/expires_at"]),
        ({"issuer": "nobody", "subject": "7", "expires_at": LATER}, ["/issuer"]),
        ({"issuer": "partner", "subject": "", "expires_at": LATER}, ["/subject"]),
        ({"issuer": "partner", "subject": "s" * 256, "expires_at": LATER}, ["/subject"]),
        ({"issuer": "partner", "subject": "7", "expires_at": "2001-01-01T00:00:00Z"}, ["/expires_at"]),
        (
            {"issuer": "partner", "subject": "7", "expires_at": LATER, "issued_until": LATER},
            ["/issued_until"],
        ),
        ({"user": "nobody"}, ["/user"]),
        ({"user": "ada", "subject": "7"}, [""]),
        ({"usre": "ada"}, ["/usre"]),
    ],
)
def test_api__bad_body__400_that_names_the_field(
    admin: Client, ada: User, body: dict[str, Any], at: list[str]
) -> None:
    rows.issuer()
    assert pointers(send(admin, "POST", "token-cuts", body)) == at
    assert not TokenCut.objects.exists()


# --- admin


def cut(client: Client, **values: str) -> str:
    answer = client.post(reverse("admin:gateway_tokencut_cut"), {**CONFIRMED, **values}, follow=True)
    assert answer.status_code == 200
    content: str = answer.content.decode()
    return content


def test_admin__user_or_subject__cut_off(admin: Client, ada: User) -> None:
    rows.issuer()
    assert "is cut off" in cut(admin, user="ada")
    assert TokenCut.objects.get().subject == str(ada.pk)
    assert door() == "admin"
    cut(admin, issuer="partner", subject="9", expires_at="2099-01-01 10:00")
    assert TokenCut.objects.get(issuer="partner").expires_at.year == 2099
    cut(admin, issuer=cuts.own_issuer(), subject="9")
    assert TokenCut.objects.count() == 3


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "Is needed where no user is given."),
        ({"user": "nobody"}, "Nobody of this name."),
        ({"user": "ada", "subject": "7"}, "Give the user alone"),
        ({"issuer": "partner", "subject": "7"}, "Is needed where no user is given."),
        ({"issuer": "partner", "subject": "7", "expires_at": "2001-01-01 10:00"}, "refused anyway"),
        ({"issuer": "nobody", "subject": "7", "expires_at": "2099-01-01 10:00"}, "not one of the available"),
    ],
)
def test_admin__half_an_answer__said_in_the_dialog(
    admin: Client, ada: User, values: dict[str, str], told: str
) -> None:
    rows.issuer()
    assert told in cut(admin, **values)
    assert not TokenCut.objects.exists()


@pytest.mark.parametrize("role", [roles.VIEWER, roles.OPERATOR])
def test_admin__below_an_admin__refused(role: str, ada: User) -> None:
    url, client = reverse("admin:gateway_tokencut_cut"), client_of(role)
    assert url not in client.get(page("tokencut")).content.decode()
    assert client.post(url, {"user": "ada", **CONFIRMED}).status_code == 403
    assert not TokenCut.objects.exists()


# --- command line


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    call_command("gateway", "cut", *arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_command__user_and_subject__cut_and_listed(capsys: pytest.CaptureFixture[str], ada: User) -> None:
    rows.issuer()
    assert as_json(capsys, "user", "ada")["subject"] == str(ada.pk)
    assert door() == "cli"
    asked = (
        "subject",
        "partner",
        "7",
        "--until",
        "2100-01-01",
        "--issued-until",
        "2026-01-01T00:00:00+01:00",
    )
    told = as_json(capsys, *asked)
    assert datetime.fromisoformat(told["issued_until"]) == datetime(2025, 12, 31, 23, tzinfo=UTC)
    call_command("gateway", "cut", "user", "ada")
    assert "is cut off: tokens issued until" in capsys.readouterr().out
    listed = as_json(capsys)
    assert [(row["issuer"], row["subject"]) for row in listed] == [
        ("partner", "7"),
        (cuts.own_issuer(), str(ada.pk)),
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("user", "nobody"), "no user 'nobody'"),
        (("subject", "nobody", "7"), "no issuer 'nobody'"),
        (("subject", "partner", "7"), "say when the last token"),
        (("subject", "partner", "7", "--until", "soon"), "is no time"),
        (("subject", "partner", "7", "--until", "2001-01-01"), "is over"),
        (("subject", "partner", "7", "--until", "2100-01-01", "--issued-until", "2100-01-01"), "to come"),
        (("subject", "partner", "", "--until", "2100-01-01"), "blank"),
    ],
)
def test_command__what_cannot_be_cut__said_and_nothing_done(arguments: tuple[str, ...], told: str) -> None:
    rows.issuer()
    with pytest.raises(Failed, match=told):
        call_command("gateway", "cut", *arguments)
    assert not TokenCut.objects.exists()
