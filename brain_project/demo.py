"""The demo on the embedded database: an admin user, the customer's routes on free ports, a few tasks."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from foundation import audit, roles

EXAMPLE = settings.BASE_DIR / "examples" / "gateway.yaml"
UPSTREAM = "tasks_service"


def admin_user(known: dict[str, Any]) -> dict[str, Any]:
    """The admin's login. known: what up.json kept of it; a password that was changed since is not touched (None).

    hash: the row's, so that the next start need not compute one to see that nothing has changed.
    """
    model = get_user_model()
    username = known.get("username") or "admin"
    password = known.get("password")
    user = model.objects.filter(username=username).first()
    if user is not None:
        unchanged = password and (user.password == known.get("hash") or user.check_password(password))
        return {
            "username": username,
            "password": password if unchanged else None,
            "hash": user.password,
        }
    password = password or secrets.token_urlsafe(12)
    user = model.objects.create_superuser(username=username, email=f"{username}@localhost", password=password)
    user.groups.add(Group.objects.get(name=roles.ADMIN))
    audit.record(actor="up", action="user.create", target=user, after={"username": username}, source="cli")
    return {"username": username, "password": password, "hash": user.password}


def routes(targets: list[str]) -> str:
    """Point the example's service at `targets` (URLs); apply the whole example when there is no such service yet.

    What somebody changed since in the admin stays. Returns the demo's API key.
    """
    from gateway import config
    from gateway.models import Service

    document = config.load(EXAMPLE.read_text())
    if Service.objects.filter(name=UPSTREAM).exists():
        config.set_targets(UPSTREAM, targets, actor="up", source="cli")
    else:
        config.apply(config.with_targets(document, UPSTREAM, targets), actor="up", source="cli")
    return next(iter(document.api_keys.values()))


def seed() -> None:
    from examples.tasks_service import demo

    demo.seed()
