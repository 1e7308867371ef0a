"""The admin page of locks: who waits for whom, as a tree, and ending one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import Error
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from foundation import audit, figures, roles
from foundation.figures import Card
from orm_app import asking, health, locks
from orm_app.locks import Locks, NoSuchSession, Session

from . import frame

_FACTS = {
    "journal_mode": "Journal mode",
    "wal_bytes": "Write-ahead log",
    "wal_autocheckpoint_pages": "Checkpoint after pages",
}
_ROLES = {"cancel": roles.OPERATOR, "end": roles.ADMIN}
_TONES = {"waiting": "bad", "idle in transaction": "warn"}


def found(request: HttpRequest, alias: str) -> dict[str, Any]:
    answer = asked(alias)
    if answer.value is None:
        return {"error": answer.error}
    seen = answer.value
    return {
        "error": "",
        "found": seen,
        "cards": _cards(seen) if seen.engine in ("postgresql", "mysql") else [],
        "rows": [_row(alias, one, depth) for one, depth in tree(seen.sessions)],
        "facts": list(_facts(seen)),
    }


def asked(alias: str) -> asking.Answer[Locks]:
    return asking.of(alias, "locks", lambda: locks.every(alias))


def session(request: HttpRequest) -> HttpResponse:
    """GET shows one session and asks, POST does what its field "what" says."""
    alias, number = frame.alias_of(request), _number(request)
    back = frame.link("locks", alias=alias)
    if request.method == "POST":
        _end(request, alias, number)
        return HttpResponseRedirect(back)
    answer = asked(alias)
    seen = answer.value.sessions if answer.value else []
    one = next((one for one in seen if one.id == number), None)
    if one is None:
        why = (
            f"{alias} does not answer: {answer.error}"
            if answer.error
            else f"Session {number} holds nobody up any more."
        )
        messages.warning(request, why)
        return HttpResponseRedirect(back)
    return frame.shown(
        request, "session.html", f"Session {number} of {alias}", alias=alias, section="locks", back=back,
        row=_row(alias, one, 0), held_up=[other for other in seen if other.id in one.blocks],
    )  # fmt: skip


def tree(sessions: list[Session]) -> Iterator[tuple[Session, int]]:
    """Whoever waits stands behind whom it waits for, with how deep. Each once: a deadlock is a circle."""
    listed = {one.id: one for one in sessions}
    waiting_for: dict[int, list[Session]] = {}
    for one in sessions:
        for holder in one.blocked_by[:1]:
            waiting_for.setdefault(holder, []).append(one)
    roots = [one for one in sessions if not any(holder in listed for holder in one.blocked_by[:1])]
    done: set[int] = set()
    ahead = [(one, 0) for one in reversed([*roots, *sessions])]
    while ahead:
        one, depth = ahead.pop()
        if one.id in done:
            continue
        done.add(one.id)
        yield one, depth
        ahead += [(other, depth + 1) for other in reversed(waiting_for.get(one.id, []))]


def _end(request: HttpRequest, alias: str, number: int) -> None:
    what = request.POST.get("what", "")
    if what not in _ROLES or not roles.allows(request.user, _ROLES[what]):
        raise PermissionDenied
    act = locks.end if what == "end" else locks.cancel
    try:
        act(alias, number, **audit.by(request, "admin"))
    except NoSuchSession as error:
        messages.warning(request, f"{error}.")
    except Error as error:
        messages.error(request, f"{alias}: {health.reason(alias, error)}")
    else:
        done = "is ended" if what == "end" else "was told to stop its statement"
        messages.success(request, f"Session {number} {done}.")


def _number(request: HttpRequest) -> int:
    text = request.POST.get("id") or request.GET.get("id") or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _row(alias: str, one: Session, depth: int) -> dict[str, Any]:
    return {
        "one": one,
        "depth": min(depth, 6),
        "tone": _TONES.get(one.state, "none" if one.state == "idle" else "good"),
        "waiting": figures.duration(one.waiting_s),
        "statement": figures.duration(one.statement_s),
        "transaction": figures.duration(one.transaction_s),
        "who": " · ".join(part for part in (one.user, one.application, one.client) if part),
        "link": frame.link("session", alias=alias, id=one.id),
    }


def _cards(seen: Locks) -> list[Card]:
    oldest = max((one.transaction_s or 0.0 for one in seen.sessions if not one.is_ours), default=0.0)
    holders = sum(bool(one.blocks) and not one.blocked_by for one in seen.sessions)
    return [
        Card("Waiting", f"{seen.waiting}", "sessions", tone="bad" if seen.waiting else "good"),
        Card("Longest wait", figures.duration(seen.longest_wait_s or None)),
        Card("Holding others up", f"{holders}", "and waiting for nobody"),
        Card("Oldest transaction", figures.duration(oldest or None), "of those below"),
    ]


def _facts(seen: Locks) -> Iterator[tuple[str, str]]:
    for name, title in _FACTS.items():
        if name in seen.facts:
            value = seen.facts[name]
            yield title, figures.size(value) if name == "wal_bytes" else str(value)
    if "is_write_locked" in seen.facts:
        writers = ", ".join(f"{one['pid']} ({one['process']})" for one in seen.facts.get("writers", ()))
        yield (
            "Written now",
            (f"yes, by {writers}" if writers else "yes") if seen.facts["is_write_locked"] else "no",
        )


SECTION = frame.Section("locks", "Locks", found)
