"""The database pages in a browser: in light and dark, renewed in place, acted on by hand and by keyboard, without an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page

from foundation import roles
from foundation.models import AuditEntry
from orm_app import locks, slow
from orm_app.locks import Locks, Session
from orm_app.models import SlowQuery, User
from tests.orm_app.conftest import backup

from .browser import fits
from .browser import page as browser_page

__all__ = ["backup"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

_SQL = (
    'SELECT "shop_order"."id", "shop_order"."total" FROM "shop_order" WHERE "shop_order"."state" = ? LIMIT ?'
)
_PLACES = (
    "", "health/", "pools/", "locks/", "slow/", f"slow/query/?fingerprint={'a' * 16}", "slow/explain/", "migrations/", "backups/",
    "backups/begin/",
)  # fmt: skip


@pytest.fixture
def session() -> str:
    """Of an admin who is logged in; made before the browser, in whose thread Django refuses to ask the database."""
    admin = User.objects.create_user("olga", "olga@example.com", is_staff=True)
    roles.grant(admin, roles.ADMIN)
    client = Client()
    client.force_login(admin)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Statements that were slow, and sessions that wait; returns which of them were ended."""
    now, ended = timezone.now(), []
    SlowQuery.objects.create(
        fingerprint="a" * 16, kind="slow", alias="default", sql=_SQL, count=12, total_ms=9_000, max_ms=2_000, first_seen=now,
        last_seen=now, call_site="shop/views.py:42 in orders", plan="SCAN shop_order", plan_at=now,
    )  # fmt: skip
    waiting = [_session(31, blocked_by=(17,)), _session(17, blocks=(31,), state="idle in transaction")]
    monkeypatch.setattr(locks, "every", lambda alias: Locks(alias, "postgresql", waiting, ["a note"]))
    monkeypatch.setattr(locks, "end", lambda alias, id, **by: ended.append((alias, id)))
    return ended


def _session(id: int, **values: Any) -> Session:
    given: dict[str, Any] = {
        "user": "brain", "application": "a-worker-with-a-long-name", "client": "10.0.0.7", "state": "waiting", "sql": _SQL,
        "waits_for": "AccessShareLock on shop_order", "blocked_by": (), "waiting_s": 12.5, "statement_s": 12.5,
        "transaction_s": 40.0, "is_ours": False,
    }  # fmt: skip
    return Session(id=id, **(given | values))


@contextmanager
def _browser(live_server: Any, session: str, *, dark: bool = False) -> Iterator[Page]:
    """Logged in; whatever the console says is a failure."""
    problems: list[str] = []
    with browser_page(dark=dark) as page:
        page.on(
            "console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}
        page.context.add_cookies([cookie])  # type: ignore[list-item]
        yield page
    assert problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_pages__in_light_and_dark__fit_and_are_without_an_error(
    live_server: Any, session: str, dark: bool, backup: Path
) -> None:
    places = (*_PLACES, f"backups/file/?name={backup.name}", "locks/session/?id=17")
    with _browser(live_server, session, dark=dark) as page:
        for place in places:
            page.goto(f"{live_server.url}/admin/database/{place}")
            assert page.evaluate("document.documentElement.classList.contains('dark')") is dark
            fits(page)
            page.set_viewport_size({"width": 390, "height": 800})
            fits(page)
            page.set_viewport_size({"width": 1400, "height": 900})


def test_pages__acted_on__by_hand_and_by_keyboard(
    live_server: Any, session: str, backup: Path, used: list[tuple[str, int]]
) -> None:
    base = f"{live_server.url}/admin/database/"
    with _browser(live_server, session) as page:
        page.goto(f"{base}locks/")
        page.locator("#session-17").focus()
        page.evaluate("window.before = document.activeElement")
        with page.expect_response(lambda answer: "/locks/live/" in answer.url) as renewed:
            pass
        assert renewed.value.status == 200
        page.wait_for_function("!document.contains(before)")
        # Whoever tabs through is not thrown out.
        page.wait_for_function("document.activeElement.id === 'session-17'")
        page.keyboard.press("Enter")
        page.get_by_text("1 waits for it: 31.").wait_for()
        page.get_by_role("button", name="End the session").click()
        page.get_by_text("Session 17 is ended.").wait_for()
        assert used == [("default", 17)]

        page.get_by_role("navigation", name="Pages of default").get_by_role(
            "link", name="Slow queries"
        ).click()
        page.get_by_role("link", name="Longest").click()
        page.get_by_role("link", name='SELECT "shop_order"').click()
        page.get_by_text("SCAN shop_order").wait_for()
        page.get_by_role("link", name="Explain a statement…").click()
        page.get_by_label("SELECT statement").fill("SELECT * FROM orm_app_user WHERE id = 4711")
        page.get_by_role("button", name="Explain").click()
        assert "orm_app_user" in page.locator(".brain-plan").inner_text()
        page.get_by_role("link", name="Back to the list").click()
        page.get_by_role("link", name="Clear…").click()
        page.get_by_role("button", name="Clear").click()
        page.get_by_text("default begins anew.").wait_for()

        page.goto(f"{base}backups/")
        page.get_by_role("link", name=backup.name).click()
        page.get_by_text("./brain database restore").wait_for()
        page.get_by_label(f"Write {backup.name} to confirm").fill(backup.name)
        page.get_by_role("button", name="Delete it").click()
        page.get_by_text(f"{backup.name} is deleted.").wait_for()
    assert not backup.exists()
    assert slow.get("a" * 16) is None
    entries = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert entries == ["database.explain", "database.slow_clear", "database.backup_delete"]
    assert "4711" not in str(AuditEntry.objects.values_list("after", flat=True))
