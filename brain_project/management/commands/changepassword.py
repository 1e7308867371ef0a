"""`manage.py changepassword`: Django's, audited, and felt by whoever holds a token of the old password, as in the admin."""

from __future__ import annotations

import getpass
from typing import Any

from django.contrib.auth.management.commands import changepassword
from django.db import router, transaction

from orm_app import migrate, users
from orm_app.models import User


class Command(changepassword.Command):
    def handle(self, *args: Any, **options: Any) -> str:
        # Nobody's transaction stays open while somebody types: the password is Django's to store.
        told: str = super().handle(*args, **options)
        if options["database"] == router.db_for_write(User):
            name = options["username"] or getpass.getuser()
            with transaction.atomic(using=options["database"]):
                user = User.objects.get_by_natural_key(name)
                users.record_password(user, actor=migrate.operator(), source="cli")
        return told
