"""The admin pages of slow and repeated statements, and of plans."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone

from foundation import audit, figures
from orm_app import explain, operations, slow
from orm_app.conf import conf
from orm_app.explain import CannotExplain
from orm_app.models import SlowQuery

from . import frame

_MOST = 100  # rows of the table
_SHORT = 160  # characters of a statement in it
_LONGEST_ASKED = 20_000  # characters of a statement to be explained
ORDERS = {"total": "Total", "max": "Longest", "count": "Times", "last": "Last seen"}
_KINDS = {"": "all", "slow": "slow", "n_plus_one": "N+1"}


def found(request: HttpRequest, alias: str) -> dict[str, Any]:
    order = request.GET.get("order", "")
    kind = request.GET.get("kind", "")
    order, kind = order if order in ORDERS else "total", kind if kind in _KINDS else ""
    rows = slow.every(alias, kind or None, order, limit=_MOST)
    asked = {"alias": alias, "kind": kind}
    return {
        "rows": [_row(one) for one in rows],
        "most": _MOST if len(rows) == _MOST else 0,
        "order": order,
        "kind": kind,
        "kinds": _KINDS.items(),
        "heads": [
            {"title": title, "link": frame.link("slow", **asked, order=name), "is_on": name == order}
            for name, title in ORDERS.items()
        ],
        "conf": conf(),
    }


def entry(request: HttpRequest) -> HttpResponse:
    fingerprint = request.GET.get("fingerprint", "")
    one = slow.get(fingerprint)
    if one is None:
        raise Http404(f"there is no slow statement {fingerprint!r}")
    plan, why = None, ""
    try:
        plan = explain.of_slow(fingerprint)
    except CannotExplain as error:
        why = str(error)
    return frame.shown(
        request, "slow_query.html", "Slow statement" if one.kind == "slow" else "Repeated statement",
        alias=one.alias, section="slow", one=one, facts=_facts(one), plan=plan, why=why,
        back=frame.link("slow", alias=one.alias),
    )  # fmt: skip


def clear(request: HttpRequest) -> HttpResponse:
    """GET asks, POST does."""
    alias = frame.alias_of(request)
    back = frame.link("slow", alias=alias)
    if request.method != "POST":
        return frame.shown(
            request, "slow_clear.html", f"Clear the slow statements of {alias}", alias=alias, section="slow", back=back
        )  # fmt: skip
    dropped = operations.clear_slow(alias, **audit.by(request, "admin"))
    messages.success(request, f"{dropped} dropped: {alias} begins anew.")
    return HttpResponseRedirect(back)


def explaining(request: HttpRequest) -> HttpResponse:
    """GET shows the form, POST the plan as well. For admins: a plan tells what is in tables."""
    alias = frame.alias_of(request)
    sql = request.POST.get("sql", "")[:_LONGEST_ASKED].strip()
    analyze = request.POST.get("analyze") == "on"
    plan, problem = None, ""
    if request.method == "POST" and sql:
        plan, problem = _explained(request, alias, sql, analyze=analyze)
    return frame.shown(
        request, "explain.html", f"Explain on {alias}", alias=alias, section="slow", sql=sql, analyze=analyze,
        plan=plan, problem=problem, back=frame.link("slow", alias=alias),
    )  # fmt: skip


def _explained(request: HttpRequest, alias: str, sql: str, *, analyze: bool) -> tuple[Any, str]:
    try:
        answer = operations.explained(alias, sql, analyze=analyze, **audit.by(request, "admin"))
    except CannotExplain as error:
        return None, str(error)
    return answer.value, answer.error


def _row(one: SlowQuery) -> dict[str, Any]:
    return {
        "one": one,
        "link": frame.link("slow-query", fingerprint=one.fingerprint),
        "sql": one.sql if len(one.sql) <= _SHORT else f"{one.sql[: _SHORT - 1]}…",
        "total": figures.duration(one.total_ms / 1000),
        "max": figures.duration(one.max_ms / 1000),
        "count": figures.count(one.count),
        "ago": figures.ago(max(0.0, (timezone.now() - one.last_seen).total_seconds())),
        "unit": one.unit_name or one.unit_kind or figures.NONE,
    }


def _facts(one: SlowQuery) -> list[tuple[str, str]]:
    is_repeated = one.kind == "n_plus_one"
    facts = [
        ("Units that repeated it" if is_repeated else "Times", f"{one.count:,}"),
        ("Statements", f"{one.statements:,}" if is_repeated else ""),
        ("Most in one unit", f"{one.most:,}" if is_repeated else ""),
        ("Total", figures.duration(one.total_ms / 1000)),
        ("Mean", figures.duration(one.mean_ms / 1000)),
        ("Longest", figures.duration(one.max_ms / 1000)),
        ("Last", figures.duration(one.last_ms / 1000)),
        ("Rows of the last", "" if one.rows is None else f"{one.rows:,}"),
        ("In a transaction", "yes" if one.in_transaction else "no"),
        ("Error of the last", one.error),
        ("Call site", one.call_site),
        ("Last unit", f"{one.unit_kind} {one.unit_name}".strip()),
        ("Its id", one.unit_id),
        ("First seen", f"{one.first_seen:%Y-%m-%d %H:%M:%S} UTC"),
        ("Last seen", f"{one.last_seen:%Y-%m-%d %H:%M:%S} UTC"),
        ("Fingerprint", one.fingerprint),
    ]
    return [fact for fact in facts if fact[1]]


SECTION = frame.Section("slow", "Slow queries", found, every_s=5)
