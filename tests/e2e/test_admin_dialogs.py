"""What an action of the admin asks, in a browser: above the page that it is of, and as a page of its own."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from orm_app.models import User

from .browser import listened_to
from .browser import page as browser_page

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

# What is not drawn yet takes no focus; a busy machine's browser draws as late as this one.
DRAWS_LATE = "const draw = window.requestAnimationFrame; window.requestAnimationFrame = f => setTimeout(() => draw(f), 150)"
LISTS, CUT = "admin:gateway_tokencut_changelist", "admin:gateway_tokencut_cut"


def test_dialog__in_a_page__holds_the_focus_until_escape_and_gives_it_back(
    live_server: Any, cookie: Any
) -> None:
    problems: list[str] = []
    with browser_page() as page:
        page.context.add_cookies([cookie])
        page.add_init_script(DRAWS_LATE)
        listened_to(page, problems)
        page.goto(f"{live_server.url}{reverse(LISTS)}")
        opener = page.get_by_role("link", name="Cut off a subject")
        opener.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Cut off a subject")
        dialog.wait_for()
        page.wait_for_function("document.activeElement.name === 'user'")
        for _ in range(dialog.locator("input:not([type=hidden]), select, a, button").count() + 2):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.closest('#page') === null")
        dialog.get_by_role("button", name="Cut off").click()
        page.get_by_text("Is needed where no user is given.").first.wait_for()
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
        page.wait_for_function("document.activeElement.textContent.includes('Cut off a subject')")
    assert problems == []


@pytest.mark.parametrize("with_scripts", [True, False])
def test_dialog__opened_by_itself__is_a_page_that_acts_and_leads_back(
    live_server: Any, cookie: Any, somebody: User, with_scripts: bool
) -> None:
    problems: list[str] = []
    with browser_page(scripts=with_scripts) as page:
        page.context.add_cookies([cookie])
        listened_to(page, problems)
        lists = live_server.url + reverse(LISTS)
        page.goto(live_server.url + reverse(CUT))
        assert page.get_by_role(
            "link", name="Subjects cut off"
        ).last.is_visible()  # it has its place and its style
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.brain-dialog')).borderStyle") == "solid"
        )
        page.get_by_role("link", name="Cancel").click()
        page.wait_for_url(lists)
        page.go_back()
        page.reload()
        page.get_by_label("User of ours").fill("nobody")
        page.get_by_role("button", name="Cut off").click()
        page.get_by_text("Nobody of this name.").wait_for()
        page.get_by_label("User of ours").fill("ann")
        page.get_by_role("button", name="Cut off").click()
        page.wait_for_url(lists)
        page.get_by_text("is cut off.").wait_for()
    assert problems == []


def test_dialog__session_is_over__leads_to_the_login_and_back(live_server: Any, cookie: Any) -> None:
    with browser_page() as page:
        page.context.add_cookies([cookie])
        page.goto(live_server.url + reverse(LISTS))
        page.context.clear_cookies()
        page.get_by_role("link", name="Cut off a subject").click()
        page.wait_for_url(f"{live_server.url}/admin/login/?next={reverse(LISTS)}")
        page.get_by_label("Username").wait_for()
