from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.test import Client

from foundation import roles
from orm_app.models import User

pytestmark = pytest.mark.django_db


def user_with(*held: str, **fields: Any) -> User:
    user = User.objects.create_user("ann", "ann@example.com", "pw-of-ann", **fields)
    for role in held:
        roles.grant(user, role)
    return user


def test_migration__fresh_database__has_the_three_groups():
    assert set(Group.objects.values_list("name", flat=True)) >= {"viewer", "operator", "admin"}


def test_of__groups__only_ours_count():
    user = user_with(roles.OPERATOR)
    user.groups.add(Group.objects.create(name="choir"))
    assert roles.of(user) == {"operator"}


def test_of__superuser_inactive_anonymous_nobody__admin_or_none():
    assert roles.of(User(is_superuser=True)) == {"admin"}
    assert roles.of(User(is_superuser=True, is_active=False)) == frozenset()
    assert roles.of(AnonymousUser()) == frozenset()
    assert roles.of(None) == frozenset()


def test_of__principal_of_a_token__its_roles_without_strange_ones():
    principal = SimpleNamespace(is_active=True, roles=["viewer", "root"])
    assert roles.of(principal) == {"viewer"}


def test_of__asked_twice__one_query(django_assert_num_queries):
    user = User.objects.get(pk=user_with(roles.VIEWER).pk)
    with django_assert_num_queries(1):
        assert roles.of(user) == roles.of(user) == {"viewer"}


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        (None, set()),
        ("viewer", {"viewer"}),
        ("operator", {"viewer", "operator"}),
        ("admin", {"viewer", "operator", "admin"}),
    ],
)
def test_allows__each_role__includes_the_lower_ones(held, allowed):
    user = user_with(*[held] if held else [])
    assert {role for role in roles.RANKED if roles.allows(user, role)} == allowed


def test_allows_and_grant__role_that_does_not_exist__refused():
    with pytest.raises(ValueError, match="root"):
        roles.allows(AnonymousUser(), "root")
    with pytest.raises(ValueError, match="use one of"):
        roles.grant(user_with(), "root")


def test_grant__group_is_missing__made_again():
    Group.objects.filter(name="viewer").delete()
    assert roles.of(user_with(roles.VIEWER)) == {"viewer"}


BASIC = "Basic " + base64.b64encode(b"ann:pw-of-ann").decode()


@pytest.mark.urls("tests.foundation.urls")
@pytest.mark.parametrize(
    ("held", "path", "codes"),
    [
        (None, "/api/things", {"get": 403, "post": 403, "put": 403, "delete": 403}),
        ("viewer", "/api/things", {"get": 200, "post": 403, "put": 403, "delete": 403}),
        ("operator", "/api/things", {"get": 200, "post": 200, "put": 200, "delete": 403}),
        ("admin", "/api/things", {"get": 200, "post": 200, "put": 200, "delete": 200}),
        ("operator", "/api/admin-only", {"get": 403, "post": 403}),
        ("admin", "/api/admin-only", {"get": 200, "post": 200}),
    ],
)
def test_permission__role_and_method__as_declared(held, path, codes):
    user_with(*[held] if held else [])
    client = Client(headers={"Authorization": BASIC})
    got = {method: getattr(client, method)(path) for method in codes}
    assert {method: answer.status_code for method, answer in got.items()} == codes
    forbidden = [answer for answer in got.values() if answer.status_code == 403]
    assert all(answer["Content-Type"] == "application/problem+json" for answer in forbidden)


@pytest.mark.urls("tests.foundation.urls")
def test_permission__no_credentials__401_says_how_to_authenticate():
    answer = Client().get("/api/things")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Basic")
    assert answer.json()["title"] == "Unauthorized"
