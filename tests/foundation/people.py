"""People of each role in front of pages and APIs."""

from __future__ import annotations

from django.test import Client

from foundation import roles
from orm_app.models import User


def client_of(role: str | None, *, is_staff: bool = True) -> Client:
    """A browser in which somebody is logged in who holds `role`, or none of the roles. is_staff: may enter the admin."""
    user = User.objects.create_user(f"some-{role}", f"{role}@example.com", is_staff=is_staff)
    if role:
        roles.grant(user, role)
    client = Client()
    client.force_login(user)
    return client
