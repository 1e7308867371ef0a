"""The admin's login counts tries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from gateway import sign_ins
from gateway.conf import conf
from orm_app.models import User

PASSWORD = "correct horse battery"


def sign_in(client: Client, username: str, password: str, **headers: Any) -> Any:
    return client.post("/admin/login/?next=/admin/", {"username": username, "password": password}, **headers)


@pytest.mark.django_db
def test_login__guessing__429_with_the_form_and_when_to_try_again(client: Client, prefix: str) -> None:
    name = prefix.strip(":")[-60:]
    User.objects.create_superuser(name, "a@example.com", PASSWORD)
    before = conf()
    conf.bind(replace(before, TOKEN_RATE="2/d", TRUSTED_PROXIES=("127.0.0.1/32",)))
    try:
        answers = [sign_in(client, name, "wrong") for _ in range(2)]
        held_up = sign_in(client, name, PASSWORD)
        elsewhere = sign_in(client, name, PASSWORD, headers={"X-Forwarded-For": "203.0.113.7"})
    finally:
        conf.bind(before)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (held_up.status_code, int(held_up["Retry-After"]) > 0) == (429, True)
    assert b"Too many tries: wait" in held_up.content
    assert "_auth_user_id" in client.session
    assert elsewhere.status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("policy", "expected"),
    [("local", [200, 200, 429]), ("allow", [200, 200, 200]), ("deny", [429, 429, 429])],
)
def test_login__redis_gone__follows_the_limiters_policy(
    client: Client, settings: LazySettings, prefix: str, policy: str, expected: list[int]
) -> None:
    settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": "unix:///nowhere/valkey.sock"}}
    name, before = prefix.strip(":")[-60:], conf()
    User.objects.create_superuser(name, "a@example.com", PASSWORD)
    sign_ins._here.clear()
    conf.bind(replace(before, TOKEN_RATE="2/d", LIMITER_ON_STORE_DOWN=policy))
    try:
        assert [sign_in(client, name, "wrong").status_code for _ in range(3)] == expected
        assert sign_in(client, name, PASSWORD).status_code == (302 if expected[-1] == 200 else 429)
        assert sign_in(client, f"{name}2", "wrong").status_code == expected[0]
    finally:
        conf.bind(before)
