"""The cache's pages in a browser: in light and dark, renewed in place, a key deleted by hand, without an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings, settings
from django.test import Client

from cache_app import backends, connections, slow, stats, stats_store
from foundation import roles
from orm_app.models import User

from .browser import fits
from .browser import page as browser_page

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def session() -> str:
    """Of an admin who is logged in; made before the browser, in whose thread Django refuses to ask the database."""
    admin = User.objects.create_user("olga", "olga@example.com", is_staff=True)
    roles.grant(admin, roles.ADMIN)
    client = Client()
    client.force_login(admin)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@pytest.fixture(autouse=True)
def used(
    settings: LazySettings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Two aliases that people have used."""
    monkeypatch.setattr(stats, "_counts", {})
    monkeypatch.setattr(stats_store, "_shipper", stats_store.Shipper())
    own = prefix.strip(":")
    files = {"BACKEND": "cache_app.file.FileCache", "LOCATION": str(tmp_path / "cache"), "KEY_PREFIX": own}
    settings.CACHES = {"default": settings.CACHES["default"] | {"KEY_PREFIX": own}, "files": files}
    cache = backends.backend("default")
    cache.set_many({f"user:{number}": {"id": number, "name": "Ann"} for number in range(70)}, 3_600)
    cache.set("report:2026", {"rows": list(range(300)), "api_key": "hunter2"}, None, tags=("orders", "users"))
    for number in range(40):
        cache.get(f"user:{number}")
    users = cache.namespace("users")
    users.set("1", "ann", 60)
    users.get("1")
    users.get("2")
    loads = stats.counts("default", "shop.catalogue.prices.of_everything_that_is_sold_in_one_country")
    loads.add("misses", 12)
    loads.add("loads", 11)
    for took_s in (0.02, 0.03, 0.4):
        loads.took("load", took_s)
    slow.seen("default", "get_many", f"{own}:1:user:1", 1.5)
    backends.backend("files").set("page:/", "<html>" * 500, 600)
    yield
    slow.forget()
    connections.unlink_matching(connections.client(), f"{own}*")


@pytest.mark.parametrize("dark", [False, True])
def test_pages__looked_at_and_acted_on__without_an_error(live_server: Any, session: str, dark: bool) -> None:
    problems: list[str] = []
    with browser_page(dark=dark) as page:
        page.on(
            "console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}
        page.context.add_cookies([cookie])  # type: ignore[list-item]

        page.goto(f"{live_server.url}/admin/cache/")
        assert page.evaluate("document.documentElement.classList.contains('dark')") is dark
        cache = backends.backend("default")
        users = cache.namespace("newcomers")
        with page.expect_response(lambda answer: "/cache/live/" in answer.url) as renewed:
            users.get("1")
        assert renewed.value.status == 200
        page.get_by_text("newcomers").wait_for()
        fits(page)

        page.goto(f"{live_server.url}/admin/cache/keys/?pattern=report")
        page.get_by_role("link", name="report:2026").click()
        page.get_by_text("A read finds it.").wait_for()
        value = page.locator(".brain-pre").inner_text()
        assert '"api_key": "***"' in value
        assert "hunter2" not in value
        page.get_by_role("button", name="Delete this entry").click()
        page.get_by_text("report:2026 is deleted.").wait_for()
        assert cache.get("report:2026") is None

        page.get_by_role("link", name="Delete by pattern…").click()
        page.locator("input[name=pattern]").first.fill("user:6*")
        page.get_by_role("button", name="Count").click()
        page.get_by_text("Delete 11 keys of default?").wait_for()
        page.get_by_role("button", name="Delete them").click()
        page.get_by_text("Deleted 11 keys of default.").wait_for()

        for place, words in (
            ("invalidate/", "Write default to confirm"),
            ("memory/", "Biggest keys"),
            ("memory/?alias=files", "of this machine"),
            ("slow/", "get_many"),
        ):
            page.goto(f"{live_server.url}/admin/cache/{place}")
            page.get_by_text(words).first.wait_for()
            fits(page)
        page.set_viewport_size({"width": 390, "height": 800})
        for place in ("", "keys/", "memory/", "invalidate/"):
            page.goto(f"{live_server.url}/admin/cache/{place}")
            fits(page)
    assert problems == []
