from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model

from brain_project import demo
from foundation import roles

pytestmark = pytest.mark.django_db


def test_admin_user__first_start__makes_one_with_a_password_that_works():
    made = demo.admin_user({})
    user = get_user_model().objects.get(username=made["username"])
    assert user.check_password(made["password"])
    assert user.is_superuser
    assert list(user.groups.values_list("name", flat=True)) == [roles.ADMIN]


def test_admin_user__next_starts__keep_the_password_without_computing_its_hash(monkeypatch):
    made = demo.admin_user({})
    with monkeypatch.context() as patched:
        patched.setattr(get_user_model(), "check_password", lambda *_: pytest.fail("computed a hash"))
        assert demo.admin_user(made) == made
    assert demo.admin_user({**made, "hash": "rehashed since"}) == made


def test_admin_user__password_changed_since__is_not_touched():
    made = demo.admin_user({})
    user = get_user_model().objects.get(username=made["username"])
    user.set_password("their own")
    user.save()
    again = demo.admin_user(made)
    assert again["password"] is None
    user.refresh_from_db()
    assert user.check_password("their own")
    assert demo.admin_user(again)["password"] is None
