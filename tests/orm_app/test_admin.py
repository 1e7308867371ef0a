from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from foundation import roles
from foundation.models import AuditEntry
from orm_app.models import User

pytestmark = pytest.mark.django_db
USERS, ADD = "admin:orm_app_user_changelist", "admin:orm_app_user_add"


def person(name: str, role: str | None = None, **fields: Any) -> User:
    user = User.objects.create_user(name, f"{name}@example.com", "pw-of-somebody", is_staff=True, **fields)
    if role:
        roles.grant(user, role)
    return user


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(user: User, name: str = "change") -> str:
    return reverse(f"admin:orm_app_user_{name}", args=[user.pk])


def form(user: User, **changes: Any) -> dict[str, Any]:
    fields = {"username": user.username, "email": user.email, "is_active": "on", "is_staff": "on"}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def test_list__many_users__shown_in_a_bounded_number_of_queries(django_assert_max_num_queries):
    for number in range(30):
        person(f"u{number}", roles.VIEWER)
    client = browser(person("root", is_superuser=True))
    with django_assert_max_num_queries(12):
        answer = client.get(reverse(USERS))
    assert b"u17" in answer.content


def test_page__roles__are_chosen_and_none_is_added():
    text = browser(person("boss", roles.ADMIN)).get(page(person("ann"))).content.decode()
    assert "A viewer sees, an operator acts as well" in text
    assert "/admin/auth/group/add/" not in text


def test_add__by_an_admin__user_who_can_log_in_and_an_audit_entry():
    client = browser(person("boss", roles.ADMIN))
    assert client.get(reverse(ADD)).status_code == 200
    secret = "long-enough-9"
    fields = {"username": "ann", "email": "ann@example.com", "usable_password": "true"}
    answer = client.post(reverse(ADD), fields | {"password1": secret, "password2": secret})
    assert answer.status_code == 302
    assert Client().login(username="ann", password=secret)
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.source) == ("boss", "user.create", "admin")
    assert entry.after["username"] == "ann"
    assert secret not in str(entry.after)


def test_change__role_and_flags__audited_with_before_and_after():
    ann, client = person("ann"), browser(person("boss", roles.ADMIN))
    assert client.get(page(ann)).status_code == 200
    operators = Group.objects.get(name=roles.OPERATOR)
    answer = client.post(page(ann), form(ann, groups=[operators.pk], is_staff=None))
    assert answer.status_code == 302
    entry = AuditEntry.objects.get()
    assert (entry.before["groups"], entry.after["groups"]) == ([], ["operator"])
    assert (entry.before["is_staff"], entry.after["is_staff"]) == (True, False)
    assert roles.of(User.objects.get(pk=ann.pk)) == {"operator"}


def test_change__nothing_changed__no_entry():
    ann, client = person("ann"), browser(person("boss", roles.ADMIN))
    assert client.post(page(ann), form(ann)).status_code == 302
    assert not AuditEntry.objects.exists()


def test_password__changed_by_an_admin__works_and_is_audited_without_it():
    ann, client = person("ann"), browser(person("boss", roles.ADMIN))
    url = reverse("admin:auth_user_password_change", args=[ann.pk])
    assert client.get(url).status_code == 200
    wrong = client.post(url, {"usable_password": "true", "password1": "one-9-one-9", "password2": "two"})
    assert wrong.status_code == 200
    assert not AuditEntry.objects.exists()
    secret = "new-and-long-9"
    answer = client.post(url, {"usable_password": "true", "password1": secret, "password2": secret})
    assert answer.status_code == 302
    assert Client().login(username="ann", password=secret)
    entry = AuditEntry.objects.get(action__startswith="user.")  # its tokens end as well
    assert (entry.action, entry.before, entry.after) == ("user.change_password", None, None)


@pytest.mark.parametrize("bulk", [False, True])
def test_delete__one_or_many__audited_before_they_are_gone(bulk):
    ann, client = person("ann"), browser(person("boss", roles.ADMIN))
    if bulk:
        action = {"action": "delete_selected", "_selected_action": [ann.pk], "post": "yes"}
        answer = client.post(reverse(USERS), action)
    else:
        answer = client.post(page(ann, "delete"), {"post": "yes"})
    assert answer.status_code == 302
    assert not User.objects.filter(username="ann").exists()
    entry = AuditEntry.objects.get(action__startswith="user.")
    assert (entry.action, entry.target_id, entry.before["username"]) == ("user.delete", str(ann.pk), "ann")


@pytest.mark.parametrize(("role", "sees"), [(None, False), (roles.VIEWER, True), (roles.OPERATOR, True)])
def test_users__below_admin__may_look_at_most(role, sees):
    ann, client = person("ann"), browser(person("bob", role))
    shown = client.get(page(ann))
    assert (shown.status_code == 200) is sees
    assert ann.password.encode() not in shown.content
    assert b"algorithm" not in shown.content
    assert client.post(page(ann), form(ann, is_superuser="on")).status_code == 403
    assert client.post(page(ann, "delete"), {"post": "yes"}).status_code == 403
    assert client.get(reverse(ADD)).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[ann.pk])
    assert client.post(password, {"password1": "x", "password2": "x"}).status_code == 403


def test_superuser__touched_by_an_admin_role__refused():
    root, client = person("root", is_superuser=True), browser(person("boss", roles.ADMIN))
    assert client.post(page(root), form(root, username="mine")).status_code == 403
    assert client.post(page(root, "delete"), {"post": "yes"}).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[root.pk])
    assert client.get(password).status_code == 403


def test_superuser_flag__sent_by_an_admin_role__ignored():
    ann, client = person("ann"), browser(person("boss", roles.ADMIN))
    client.post(page(ann), form(ann, is_superuser="on"))
    ann.refresh_from_db()
    assert not ann.is_superuser


def test_groups__role_groups__shown_but_neither_renamed_nor_deleted():
    client = browser(person("boss", roles.ADMIN))
    assert client.get(reverse("admin:auth_group_changelist")).status_code == 200
    viewer = Group.objects.get(name="viewer")
    assert client.post(reverse("admin:auth_group_change", args=[viewer.pk]), {"name": "x"}).status_code == 403
    assert (
        client.post(reverse("admin:auth_group_delete", args=[viewer.pk]), {"post": "yes"}).status_code == 403
    )
    client.post(reverse("admin:auth_group_add"), {"name": "choir"})
    assert AuditEntry.objects.get().action == "group.create"
