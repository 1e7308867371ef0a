"""The admin's login counts tries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

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
    conf.bind(replace(before, TOKEN_RATE="2/h", TRUSTED_PROXIES=("127.0.0.1/32",)))
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
