"""System checks of the gateway: settings that leave a door open. docs/checks.md has a paragraph for each
id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError
from django_ratelimit.core import _split_rate

from . import document, forwarding, plugins, secret_box
from .conf import conf
from .models import JwtIssuer


@register("gateway")
def settings_are_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    weak = document.weakness(settings.JWT_SECRET)
    if weak:
        found.append(
            _weak("001", f"settings.JWT_SECRET is {weak}.", "Set BRAIN_JWT_SECRET to 32 random characters.")
        )
    for key in ("TOKEN_RATE", "TOKEN_RATE_PER_IP"):
        rate = getattr(conf(), key)
        try:
            _split_rate(rate)
        except (AttributeError, KeyError, ValueError):
            text = f"BRAIN['GATEWAY'][{key!r}] = {rate!r} is not a rate."
            found.append(Error(text, hint=_hint("Write it as '10/m'.", "e002"), id="gateway.E002"))
    if conf().HEADER_TIMEOUT_S > conf().IDLE_TIMEOUT_S:
        text = "HEADER_TIMEOUT_S is above IDLE_TIMEOUT_S: half a request may wait longer than none."
        found.append(Warning(text, hint=_hint("Lower HEADER_TIMEOUT_S.", "w002"), id="gateway.W002"))
    return found + _listed() + _files()


def _listed() -> list[CheckMessage]:
    """Each value of the lists by itself, so that one mistake does not hide another."""
    found: list[CheckMessage] = []
    for number, key, check, fix in (
        (
            "004",
            "TRUSTED_PROXIES",
            forwarding.network,
            "Write a block as 10.0.0.0/8 or an address as 10.0.0.7.",
        ),
        ("005", "UNIX_SOCKET_DIRS", _absolute, "Write the whole path, such as /run/upstreams."),
        (
            "006",
            "PLUGINS",
            plugins.usable,
            "Write the dotted path of a class that can be imported where edges run.",
        ),
    ):
        for value in getattr(conf(), key):
            try:
                check(value)
            except ValueError as error:
                text = f"BRAIN['GATEWAY'][{key!r}] holds {value!r}: {error}."
                found.append(Error(text, hint=_hint(fix, f"e{number}"), id=f"gateway.E{number}"))
    return found


def _absolute(directory: str) -> None:
    # A relative one is another for a process that was started elsewhere.
    if not directory.startswith("/"):
        raise ValueError("it is not an absolute path")


def _files() -> list[CheckMessage]:
    """Warnings, as the process that checks need not be the one that writes."""
    found: list[CheckMessage] = []
    for number, key, check in (
        ("003", "SNAPSHOT_FILE", _unreplaceable),
        ("004", "ACCESS_LOG_FILE", _unwritable),
    ):
        file = getattr(conf(), key)
        if file and (why := check(Path(file))):
            text = f"BRAIN['GATEWAY'][{key!r}] = {file!r}: {why}."
            fix = "Make the directory, and let the edge's user write to it."
            found.append(Warning(text, hint=_hint(fix, f"w{number}"), id=f"gateway.W{number}"))
    return found


def _unreplaceable(file: Path) -> str:
    """Why a file cannot be put in its place, or ""."""
    if not file.parent.is_dir():
        return f"there is no directory {file.parent}"
    if file.is_dir():
        return "it is a directory"
    return "" if os.access(file.parent, os.W_OK | os.X_OK) else f"{file.parent} cannot be written to"


def _unwritable(file: Path) -> str:
    if file.exists() and not file.is_dir():
        return "" if os.access(file, os.W_OK) else "it cannot be written to"
    return _unreplaceable(file)


@register(Tags.database)
def issuers_are_strong(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Runs with `check --database default` only, as it reads rows."""
    if not databases:
        return []
    found: list[CheckMessage] = []
    try:
        rows = list(JwtIssuer.objects.filter(enabled=True).exclude(secret=""))
    except DatabaseError:  # not migrated yet
        return []
    for row in rows:
        try:
            weak = document.weakness(secret_box.open_(row.secret))
        except secret_box.Sealed as error:
            hint = _hint("Give the issuer its secret again.", "e003")
            found.append(Error(f"Token issuer {row.name}: {error}.", hint=hint, id="gateway.E003"))
            continue
        if weak:
            fix = "Give the issuer a secret of 32 random characters."
            found.append(_weak("001", f"The secret of token issuer {row.name} is {weak}.", fix))
    return found


def _weak(number: str, message: str, fix: str) -> CheckMessage:
    """An error where it matters, a warning where somebody tries things out."""
    if settings.PRODUCTION:
        return Error(message, hint=_hint(fix, f"e{number}"), id=f"gateway.E{number}")
    return Warning(message, hint=_hint(fix, f"w{number}"), id=f"gateway.W{number}")


def _hint(fix: str, number: str) -> str:
    return f"{fix} See docs/checks.md#gateway-{number}."
