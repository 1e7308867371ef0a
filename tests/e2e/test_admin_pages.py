"""Every page of the admin in a browser: no error, no request that fails, nothing that hangs out, a name for each control."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.test import RequestFactory
from django.urls import NoReverseMatch, reverse

from brain_project import admin_menu
from gateway.models import Route
from orm_app.models import User
from tests.brain_project.admin_rows import one_of_each

from .browser import listened_to
from .browser import page as browser_page

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

# Pages to which the menu does not lead, and which stand on no model.
BESIDES = [
    "/admin/password_change/", "/admin/gateway/", "/admin/cache/reset/",
    "/admin/cache/keys/delete/?pattern=a*", "/admin/database/slow/clear/", "/admin/database/backups/begin/",
]  # fmt: skip

# A page that nobody sees does not renew itself: nothing is under way when the next one is opened, however long each takes.
UNSEEN = "Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' })"

# What a reader who does not see the page, or uses no mouse, would miss; and what hangs out to the right.
WANTING = """() => {
  const found = [], told = one => one.outerHTML.slice(0, 160), drawn = one => one.getClientRects().length > 0;
  const every = wanted => [...document.querySelectorAll(wanted)].filter(drawn);
  const named = one => one.ariaLabel || one.title || one.getAttribute("aria-labelledby");
  // Unfold's own: what a list is searched for, whose placeholder says by what; and its button, an icon called "search".
  for (const one of every("input:not([type=hidden], #changelist-search *), select, textarea"))
    if (!named(one) && ![...(one.labels ?? [])].some(label => label.textContent.trim())) found.push("no label: " + told(one));
  for (const one of every("button:not(#changelist-search *), a[href]:not([aria-hidden])")) {
    const shown = one.cloneNode(true);
    shown.querySelectorAll(".material-symbols-outlined").forEach(icon => icon.remove());
    if (!named(one) && !shown.textContent.trim() && !shown.querySelector("[title], [aria-label]")) found.push("no name: " + told(one));
  }
  for (const one of every("table")) if (!one.querySelector("th")) found.push("no heading: " + told(one));
  for (const one of every("canvas, svg"))
    if (!named(one) && !one.closest("[aria-hidden]")) found.push("no words: " + told(one));
  for (const crumb of every("h1 > a").slice(0, -1))
    if (crumb.scrollWidth > crumb.clientWidth) found.push("cut off: " + told(crumb));
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) found.push(`hangs out: ${page.scrollWidth} > ${page.clientWidth}`);
  return found;
}"""


@pytest.fixture
def addresses(somebody: User) -> list[str]:
    """Of all pages."""
    request = RequestFactory().get("/admin/")
    request.user = somebody
    menu = [item["link"] for group in admin_menu.navigation(request) for item in group["items"]]
    rows = one_of_each()
    found = [*menu, *BESIDES, reverse("admin:gateway_route_delete", args=[rows[Route].pk])]
    for model, row in rows.items():
        page, name = admin.site._registry[model], f"admin:{model._meta.app_label}_{model._meta.model_name}"
        found.append(reverse(f"{name}_changelist"))
        if page.has_add_permission(request):
            found.append(reverse(f"{name}_add"))
        with suppress(NoReverseMatch):  # the statistics are one page alone
            found.append(reverse(f"{name}_change", args=[quote(row.pk)]))
    return list(dict.fromkeys(found))


def test_pages__every_one__nothing_fails_hangs_out_or_lacks_a_name(
    live_server: Any, cookie: Any, addresses: list[str]
) -> None:
    problems: list[str] = []
    wanting: dict[str, list[str]] = {}
    with browser_page() as page:
        page.set_viewport_size({"width": 1280, "height": 800})
        page.add_init_script(UNSEEN)
        page.context.add_cookies([cookie])
        listened_to(page, problems)
        for address in addresses:
            answer = page.goto(live_server.url + address)
            assert answer is not None
            assert answer.ok, address
            if found := page.evaluate(WANTING):
                wanting[address] = found
    assert wanting == {}
    assert problems == []
