"""What an action of the admin asks: a part of a page for htmx, a page of its own for whoever opens its address."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from django.utils.cache import has_vary_header

from foundation import roles
from gateway.models import TokenCut
from orm_app.models import User
from tests.foundation.people import client_of
from tests.gateway.admin_pages import CONFIRMED

from .admin_rows import one_of_each

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}
STEPPED_BACK = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
CUT = "admin:gateway_tokencut_cut"


class Dialog(NamedTuple):
    """`back` is the page that it belongs to."""

    name: str
    address: str
    back: str
    title: str
    submit: str


def dialogs() -> list[Dialog]:
    """Of every action that asks, of one row or of a list."""
    rows = one_of_each()
    found = {}
    for model, page in admin.site._registry.items():
        pages, pk = f"admin:{model._meta.app_label}_{model._meta.model_name}", quote(rows[model].pk)
        of_row = [*page._get_base_actions_detail(), *page._get_base_actions_row()]
        offered = [(action, [pk]) for action in of_row] + [
            (action, []) for action in page._get_base_actions_list()
        ]
        for action, args in offered:
            if action.dialog:
                address = reverse(f"admin:{action.action_name}", args=args)
                back = reverse(f"{pages}_{'change' if args else 'changelist'}", args=args)
                said = action.dialog["title"], action.dialog["form_submit_text"]
                found[address] = Dialog(action.action_name, address, back, *said)
    assert len(found) >= 28
    return list(found.values())


def text_of(answer: Any) -> str:
    text: str = answer.content.decode()
    return text


def test_dialogs__opened_by_themselves__whole_pages_that_lead_back():
    client = client_of(roles.ADMIN)
    for dialog in dialogs():
        answer = client.get(dialog.address)
        text = text_of(answer)
        assert answer.status_code == 200, dialog
        assert text.count("<!DOCTYPE html>") == 1, dialog
        assert "brain/admin.css" in text
        assert f'href="{dialog.back}"' in text, dialog
        assert "hx-post" not in text, dialog
        assert "openModal = false'" not in text, dialog  # Cancel is a link there
        for said in (dialog.title, dialog.submit):
            assert said in text, dialog
        assert has_vary_header(answer, "HX-Request")
        assert "no-store" in answer.headers["Cache-Control"]


def test_dialogs__asked_for_by_htmx__parts_that_are_dialogs():
    client = client_of(roles.ADMIN)
    for dialog in dialogs():
        answer = client.get(dialog.address, headers=HTMX)
        text = text_of(answer)
        assert "<html" not in text, dialog
        assert 'role="dialog" aria-modal="true" aria-labelledby="dialog-title"' in text
        assert f'hx-post="{dialog.address}"' in text
        assert has_vary_header(answer, "HX-Request")
        assert "no-store" in answer.headers["Cache-Control"]


def test_dialog__whole_page_wanted_after_a_step_back__is_one():
    text = text_of(client_of(roles.ADMIN).get(reverse(CUT), headers=STEPPED_BACK))
    assert text.count("<!DOCTYPE html>") == 1


def test_dialogs__nobody_of_the_role__no_page_and_no_part():
    client, found = client_of(roles.VIEWER), dialogs()
    for dialog in found:
        for headers in ({}, HTMX):
            assert client.get(dialog.address, headers=headers).status_code == 403, dialog
            assert Client().get(dialog.address, headers=headers).status_code == 302, dialog


def test_dialog__page_sent_without_htmx__acts_and_leads_back_with_a_message():
    client = client_of(roles.OPERATOR)
    (pause,) = (dialog for dialog in dialogs() if dialog.name == "queue_app_queue_pause")
    answer = client.post(pause.address, CONFIRMED)
    assert (answer.status_code, answer.headers["Location"]) == (302, pause.back)
    assert "Paused: workers take no more of its jobs." in text_of(client.get(pause.back))


def test_dialog__page_sent_with_an_error__the_whole_page_again_with_it():
    User.objects.create_user("carl", "carl@example.com")
    client = client_of(roles.ADMIN)
    wrong = {**CONFIRMED, "user": "carl", "subject": "x"}
    text = text_of(client.post(reverse(CUT), wrong))
    assert text.count("<!DOCTYPE html>") == 1
    assert "Give the user alone, or these." in text
    assert 'value="carl"' in text
    assert "<html" not in text_of(client.post(reverse(CUT), wrong, headers=HTMX))
    assert not TokenCut.objects.exists()


def test_dialog__row_that_is_gone__leads_to_a_page_that_says_so():
    client = client_of(roles.OPERATOR)
    for pk in (4711, "nonsense"):
        answer = client.get(reverse("admin:gateway_target_drain", args=[pk]), follow=True)
        assert "Perhaps it was deleted?" in text_of(answer)


def test_part__session_is_over__the_page_is_loaded_again_and_leads_to_the_login():
    for address in (reverse("admin-overview"), reverse(CUT)):
        answer = Client().get(address, headers=HTMX, follow=True)
        assert answer.headers["HX-Refresh"] == "true"
        assert answer.content == b""
