from __future__ import annotations

import subprocess
import sys

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from orm_app.models import User

pytestmark = pytest.mark.django_db


def test_create_user__defaults__active_no_staff_password_hashed():
    user = User.objects.create_user("ann", "Ann@EXAMPLE.com", "pw")
    assert (user.is_active, user.is_staff, user.is_superuser) == (True, False, False)
    assert user.email == "Ann@example.com"
    assert user.created_at is not None
    assert user.password != "pw"
    assert authenticate(username="ann", password="pw") == user


def test_create_user__no_password__cannot_log_in_by_one():
    assert not User.objects.create_user("ann", "ann@example.com").has_usable_password()


@pytest.mark.parametrize(("username", "email"), [("", "a@example.com"), ("ann", "")])
def test_create_user__empty_name_or_email__refused(username, email):
    with pytest.raises(ValueError, match="a user needs"):
        User.objects.create_user(username, email)


@pytest.mark.parametrize("second", [("ann", "b@example.com"), ("bob", "ann@example.com")])
def test_user__same_name_or_email__refused_by_the_database(second):
    User.objects.create_user("ann", "ann@example.com")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user(*second)
    assert User.objects.count() == 1


def test_createsuperuser__noinput__makes_one_from_the_environment(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "pw-of-root")
    call_command("createsuperuser", "--noinput", username="root", email="root@example.com", verbosity=0)
    root = authenticate(username="root", password="pw-of-root")
    assert (root.is_superuser, root.is_staff) == (True, True)


def test_createsuperuser__noinput_without_email__says_what_is_missing():
    with pytest.raises(CommandError, match="email"):
        call_command("createsuperuser", "--noinput", username="root", verbosity=0)


def test_createsuperuser__interactive__asks_for_name_email_and_password(monkeypatch):
    answers = {"Username": "root", "Email address": "root@example.com"}
    ask = lambda prompt: next(a for question, a in answers.items() if prompt.startswith(question))  # noqa: E731
    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr("getpass.getpass", lambda prompt="": "pw-of-root-9")
    call_command("createsuperuser", stdin=_Terminal(), verbosity=0)
    assert User.objects.get(username="root").email == "root@example.com"


class _Terminal:
    def isatty(self) -> bool:
        return True


def test_package__imported_before_the_apps_are_ready__is_lazy():
    code = "import orm_app; from orm_app import db; print(db.transaction.__name__)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "transaction\n"


def test_package__public_names__user_db_and_nothing_else():
    import orm_app

    assert orm_app.User is User
    with pytest.raises(AttributeError, match="Userr"):
        orm_app.Userr  # noqa: B018
