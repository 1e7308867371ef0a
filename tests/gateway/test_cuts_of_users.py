"""Users of ours who may less than before: their tokens end at both doors, and who signs in anew gets good ones."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.test import Client as DjangoClient
from django.urls import reverse

from foundation import roles
from foundation.models import AuditEntry
from gateway import cuts
from gateway.models import TokenCut
from orm_app.models import User

from .test_doors import PASSWORD, fresh, odd, token, user  # noqa: F401  (fixtures)

pytestmark = pytest.mark.usefixtures("odd")

NEW = "another-long-one-9"


def browser(*groups: str, **values: Any) -> DjangoClient:
    client = DjangoClient()
    client.force_login(user("boss", *groups, is_staff=True, **values))
    return client


def save(boss: DjangoClient, person: User, **changes: Any) -> None:
    """The form of the admin's page of this user, with these fields changed."""
    groups = list(person.groups.values_list("pk", flat=True))
    form = {"username": person.username, "email": person.email, "is_active": "on", "groups": groups} | changes
    url = reverse("admin:orm_app_user_change", args=[person.pk])
    answer = boss.post(url, {name: value for name, value in form.items() if value is not None})
    assert answer.status_code == 302, answer.content


def statuses(client: DjangoClient, pair: dict[str, str]) -> dict[str, int]:
    """Of a route, of the API, and of a renewal."""
    time.sleep(0.06)  # SNAPSHOT_POLL_S
    bearer = {"authorization": f"Bearer {pair['access']}"}
    routed = client.get("/svc/x", headers=bearer)
    routed.getvalue()
    renewed = client.post(
        reverse("gateway-token-refresh"), {"refresh": pair["refresh"]}, content_type="application/json"
    )
    api = client.get(reverse("gateway-status"), headers=bearer)
    return {"route": routed.status_code, "api": api.status_code, "renewal": renewed.status_code}


@pytest.fixture(autouse=True)
def _many_sign_ins(fresh: None, gateway_conf: Callable[..., None]) -> None:  # noqa: F811
    gateway_conf(TOKEN_RATE="1000/m", TOKEN_RATE_PER_IP="1000/m")


GOOD = {"route": 200, "api": 200, "renewal": 200}
REFUSED = {"route": 401, "api": 401, "renewal": 401}


def deactivate(boss: DjangoClient, carol: User) -> None:
    save(boss, carol, is_active=None)


def demote(boss: DjangoClient, carol: User) -> None:
    save(boss, carol, groups=[Group.objects.get(name=roles.VIEWER).pk])


def give_a_password(boss: DjangoClient, carol: User) -> None:
    url = reverse("admin:auth_user_password_change", args=[carol.pk])
    form = {"usable_password": "true", "password1": NEW, "password2": NEW}
    assert boss.post(url, form).status_code == 302


def change_own_password(boss: DjangoClient, carol: User) -> None:
    client = DjangoClient()
    client.force_login(carol)
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert client.post("/admin/password_change/", form).status_code == 302


def delete(boss: DjangoClient, carol: User) -> None:
    assert (
        boss.post(reverse("admin:orm_app_user_delete", args=[carol.pk]), {"post": "yes"}).status_code == 302
    )


@pytest.mark.parametrize("change", [deactivate, demote, give_a_password, change_own_password, delete])
def test_user__may_less__tokens_from_before_are_refused_by_route_api_and_renewal(
    client: DjangoClient,
    change: Callable[[DjangoClient, User], None],
) -> None:
    carol, boss = user("carol", "operator", is_staff=True), browser("admin")
    user("bob", "viewer")
    pair, other = token(client, "carol").json(), token(client, "bob").json()
    assert statuses(client, pair) == statuses(client, other) == GOOD
    change(boss, carol)
    assert statuses(client, pair) == REFUSED
    assert statuses(client, other) == GOOD
    cut = AuditEntry.objects.get(action="tokencut.create")
    assert (cut.actor, cut.source) == ("carol" if change is change_own_password else "boss", "admin")


@pytest.mark.parametrize("named", [True, False], ids=["named", "of who runs it"])
def test_user__password_by_command__tokens_from_before_are_refused_and_it_is_audited(
    client: DjangoClient, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    user("carol", "operator", is_staff=True)
    pair = token(client, "carol").json()
    monkeypatch.setattr("getpass.getpass", lambda prompt: NEW)
    monkeypatch.setattr("getpass.getuser", lambda: "carol")
    call_command("changepassword", *(["carol"] if named else []), stdout=io.StringIO())
    assert statuses(client, pair) == REFUSED
    entries = AuditEntry.objects.filter(action__in=("user.change_password", "tokencut.create"))
    assert [(entry.actor, entry.source) for entry in entries] == [("carol", "cli")] * 2
    assert statuses(client, token(client, "carol", NEW).json()) == GOOD


def test_user__password_by_command_that_is_given_up__nothing_happens(
    client: DjangoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    user("carol", "operator", is_staff=True)
    pair = token(client, "carol").json()
    monkeypatch.setattr("getpass.getpass", lambda prompt: "short")
    with pytest.raises(CommandError, match="after 3 attempts"):
        call_command("changepassword", "carol", stdout=io.StringIO(), stderr=io.StringIO())
    assert statuses(client, pair) == GOOD
    assert not AuditEntry.objects.filter(action="user.change_password").exists()


def test_user__signs_in_right_after_a_cut__waits_and_gets_good_tokens(
    client: DjangoClient,
) -> None:
    carol = user("carol", "operator", is_staff=True)
    change_own_password(DjangoClient(), carol)
    began = time.monotonic()
    answer = token(client, "carol", NEW)
    assert time.monotonic() - began < 30.0
    assert statuses(client, answer.json()) == GOOD
    assert token(client, "carol").status_code == 401


def test_user__changed_in_what_gives_no_access__nothing_is_cut(
    client: DjangoClient,
) -> None:
    carol, boss = user("carol", "viewer"), browser("admin")
    carol.groups.add(Group.objects.create(name="readers of the news"))
    operator = Group.objects.get(name=roles.OPERATOR).pk
    save(boss, carol, email="new@example.com", groups=[operator, Group.objects.get(name=roles.VIEWER).pk])
    assert not TokenCut.objects.exists()
    root = user("root", is_superuser=True)
    save(browser_of(root), root, is_superuser="on", email="root@example.com")
    assert not TokenCut.objects.exists()


def test_user__no_superuser_any_more__cut(client: DjangoClient) -> None:
    root, carol = user("root", is_superuser=True), user("carol", is_superuser=True)
    save(browser_of(root), carol, is_superuser=None)
    assert TokenCut.objects.get().subject == str(carol.pk)


def browser_of(person: User) -> DjangoClient:
    person.is_staff = True
    person.save()
    client = DjangoClient()
    client.force_login(person)
    return client


def test_sign_in__user_changed_while_he_is_looked_at__looked_at_again(
    client: DjangoClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The token is signed as of a moment before the look, so that a cut of meanwhile covers it."""
    from gateway.api import tokens as door

    carol, looks = user("carol", "operator"), []
    found = door.authenticate

    def look(*given: Any, **also: Any) -> Any:
        person = found(*given, **also)
        if not looks:  # between the look and the signature
            User.objects.filter(pk=carol.pk).update(is_active=False)
            cuts.cut_user(carol, actor="tester", source="cli")
        looks.append(person)
        return person

    monkeypatch.setattr(door, "authenticate", look)
    assert token(client, "carol").status_code == 401
    assert looks == [carol, None]
