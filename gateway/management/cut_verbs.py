"""`manage.py gateway cut list|user|subject`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.utils import timezone

from foundation.commands import USAGE, BrainCommand, Failed
from gateway import cuts
from gateway.callers import OWN_ISSUER
from gateway.models import JwtIssuer, TokenCut


class CutVerbs:
    """trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, Any]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        parser = self._command.verb(
            "cut", self.list, "Subjects whose tokens of so far are refused; alone it lists them."
        )
        group = parser.add_subparsers(title="actions", metavar="", dest="action")
        self._command.action(group, "list", self.list, "The subjects that are cut.")
        one = self._command.action(
            group, "user", self.user, "Refuse all tokens that a user of ours was given so far."
        )
        one.add_argument("name", help="the user's name")
        other = self._command.action(
            group, "subject", self.subject, "Refuse all tokens that an issuer gave a subject so far."
        )
        other.add_argument("issuer", help="the issuer's name with us")
        other.add_argument("subject", help="`sub`; of our own tokens the user's id")
        other.add_argument(
            "--until",
            metavar="TIME",
            help="when the last of these tokens expires by itself (ISO 8601, UTC): the cut is kept until then. Needed "
            "where the issuer is not our own",
        )
        other.add_argument(
            "--issued-until",
            metavar="TIME",
            help="refuse tokens with an iat up to then (default: now, and as much more as clocks may differ)",
        )

    def user(self, *, name: str, **options: Any) -> None:
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise Failed(f"there is no user {name!r}", hint="`manage.py gateway cut subject` takes an id.")
        self._show(lambda: cuts.cut_user(user, **self._trace()))

    def subject(
        self, *, issuer: str, subject: str, until: str | None, issued_until: str | None, **options: Any
    ) -> None:
        known = [*JwtIssuer.objects.values_list("name", flat=True), OWN_ISSUER]
        if issuer not in known:
            raise Failed(f"there is no issuer {issuer!r}", hint=f"Known issuers: {', '.join(known)}.")
        expires_at, up_to = _time("--until", until), _time("--issued-until", issued_until)
        if expires_at is not None and expires_at <= timezone.now():
            raise Failed("--until is over: these tokens are refused anyway", code=USAGE)
        self._show(
            lambda: cuts.cut(issuer, subject, issued_until=up_to, expires_at=expires_at, **self._trace())
        )

    def list(self, **options: Any) -> None:
        columns = ("issuer", "subject", "issued_until", "expires_at")
        rows = TokenCut.objects.filter(expires_at__gt=timezone.now()).values_list(*columns)
        self._command.table(columns, [(*row[:2], *(_told(at) for at in row[2:])) for row in rows])

    def _show(self, cut: Callable[[], TokenCut]) -> None:
        try:
            row = cut()
        except ValidationError as error:
            raise Failed("; ".join(error.messages)) from error
        except ValueError as error:
            raise Failed(str(error), hint="`manage.py gateway cut subject --help`", code=USAGE) from error
        self._command.line(
            f"{row} is cut off: tokens issued until {_told(row.issued_until)} are refused, kept until "
            f"{_told(row.expires_at)}"
        )
        columns = ("issuer", "subject", "issued_until", "expires_at")
        self._command.document({name: getattr(row, name) for name in columns})


def _time(name: str, text: str | None) -> datetime | None:
    """Raises Failed."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failed(
            f"{name}: {text!r} is no time", hint="2026-12-31T23:59:00Z is one.", code=USAGE
        ) from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _told(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
