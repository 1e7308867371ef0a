"""The admin page of backups: the list, taking one, verifying, deleting. A restore is shown as its command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect

from foundation import audit, figures, roles
from orm_app import backup_checks, backups, operations
from orm_app.backups import Backup, BackupFailed

from . import frame

_VERIFIED = {
    "restored": ("good", "restored and compared"),
    "archive": ("warn", "only its archive was read"),
    "no": ("warn", "not verified"),
}
_OLD_S = 7 * 86_400


def found(request: HttpRequest, alias: str) -> dict[str, Any]:
    """Files are read, no database is asked: their list must be there when the database is not."""
    try:
        listed = [one for one in backups.every() if one.alias in (alias, "")]
    except BackupFailed as failed:
        return {"error": f"{failed}. {failed.hint}".strip(), "rows": []}
    rows = [_row(one) for one in listed]
    return {
        "error": "",
        "rows": rows,
        "is_running": any(one.state == "running" for one in listed),
        "directory": backups.directory(),
        "stale": _stale(listed),
    }


def begin(request: HttpRequest) -> HttpResponse:
    """GET asks, POST begins a backup in a process of its own."""
    alias = frame.alias_of(request)
    if request.method != "POST":
        return frame.shown(
            request,
            "backup_begin.html",
            f"Back {alias} up",
            alias=alias,
            section="backups",
            back=_back(alias),
        )
    with _told(request):
        operations.begin_backup(alias, **audit.by(request, "admin"))
        messages.success(request, f"A backup of {alias} has begun. It goes on when you leave this page.")
    return HttpResponseRedirect(_back(alias))


def entry(request: HttpRequest) -> HttpResponse:
    """One backup with its manifest's words; POST verifies or deletes it."""
    try:
        one = operations.backup(request.GET.get("name", ""))
    except (operations.NoSuchBackup, BackupFailed) as error:
        raise Http404(str(error)) from error
    alias = one.alias or frame.alias_of(request)
    if request.method == "POST":
        return _act(request, one, alias)
    return frame.shown(
        request, "backup.html", f"Backup of {alias}", alias=alias, section="backups", row=_row(one), facts=_facts(one),
        command=f"./brain database restore {one.path} --database {alias}", back=_back(alias),
    )  # fmt: skip


def _act(request: HttpRequest, one: Backup, alias: str) -> HttpResponse:
    if not roles.allows(request.user, roles.ADMIN):
        raise PermissionDenied
    by = audit.by(request, "admin")
    if request.POST.get("what") == "verify":
        with _told(request):
            operations.begin_check(one.name, **by)
            messages.success(request, f"{one.name} is being restored beside {alias}, to be compared.")
        return HttpResponseRedirect(frame.link("backup", name=one.name))
    if request.POST.get("confirm", "").strip() != one.name:
        messages.error(request, f"Nothing was deleted: write {one.name} to confirm.")
        return HttpResponseRedirect(frame.link("backup", name=one.name))
    with _told(request):
        operations.delete_backup(one.name, **by)
        messages.success(request, f"{one.name} is deleted.")
    return HttpResponseRedirect(_back(alias))


@contextmanager
def _told(request: HttpRequest) -> Iterator[None]:
    """What a backup fails with is a message on the page."""
    try:
        yield
    except BackupFailed as error:
        messages.error(request, f"{error}. {error.hint}".strip())


def _row(one: Backup) -> dict[str, Any]:
    check = backup_checks.last(one.path)
    tone, verified = _VERIFIED.get(one.verified, ("warn", one.verified))
    return {
        "one": one,
        "link": frame.link("backup", name=one.name),
        "size": figures.size(one.size_bytes),
        "ago": _ago(one),
        "tone": {"failed": "bad", "running": "warn"}.get(one.state, tone),
        "verified": verified,
        "is_checked": check is not None and check.is_running,
        "problem": check.error if check is not None else "",
    }


def _ago(one: Backup) -> str:
    age_s = _age_s(one)
    return figures.NONE if age_s is None else figures.ago(age_s)


def _age_s(one: Backup) -> float | None:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(one.taken_at)).total_seconds())
    except ValueError:
        return None


def _stale(listed: list[Backup]) -> str:
    """What somebody should know before they need one."""
    good = [age for one in listed if one.state == "ok" and (age := _age_s(one)) is not None]
    if not good:
        return "There is no backup of this database here."
    return f"The newest one is {figures.duration(min(good))} old." if min(good) > _OLD_S else ""


def _facts(one: Backup) -> list[tuple[str, str]]:
    return [
        ("Database", f"{one.database} ({one.engine} {one.server_version})"),
        ("Taken", one.taken_at or figures.NONE),
        ("Took", figures.duration(one.took_s)),
        ("Size", figures.size(one.size_bytes)),
        ("Tables", figures.NONE if one.tables is None else f"{one.tables:,}"),
        ("Rows", figures.NONE if one.rows is None else f"{one.rows:,}"),
        ("Directory", os.fspath(one.path.parent)),
    ]


def _back(alias: str) -> str:
    return frame.link("backups", alias=alias)


SECTION = frame.Section("backups", "Backups", found)
