"""Whatever is sent to the forms of the admin's gateway pages is answered: with what is wrong, and never with a 500.

The fields are those that the pages themselves have, read from their HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.db import transaction
from django.test import Client
from django.urls import reverse

from foundation import roles
from tests import depth
from tests.foundation.people import client_of

from .admin_pages import configuration, page

pytestmark = pytest.mark.django_db

NONSENSE = {
    "nothing": b"",
    "long": b"x" * 10_000,
    "long and allowed": b"/" + b"a1" * 5_000,
    "NUL": b"/a\x00b",
    "no UTF-8": b"\xed\xa0\x80\xff",
    "surrogate in JSON": b'{"headers": {"set": {"X-A": "\\ud800"}}, "\\udfff": 1}',
    "surrogate in a plugin's settings": b'{"a": "\\ud800"}',
    "half of JSON": b'{"a": [',
    "JSON of another kind": b'{"headers": [1], "body": 7, "path": null}',
    "deep JSON": b'{"a": ' * 5_000,
    "huge number": b"9" * 400,
    "huge number in JSON": b'{"a": 1e999, "b": ' + b"9" * 5_000 + b"}",
    "number that is none": b"nan",
    "negative": b"-1",
    "below every column": b"-9223372036854775809",
    "above every column": b"9223372036854775808",
    "digits of elsewhere": "٣".encode(),
    "half of a regex": b"/a(",
    "placeholder": b"/{",
    "network": b"10.0.0.0/99",
    "half of an address": b"http://[::1",
    "address of nobody": b"http://\xf0\x9f\x92\xa9:99999/?a#b",
    "header of two": b"X-A: b\r\n: c\r\nX-A: d",
    "date of nobody": b"0000-13-45",
    "end of the calendar": b"9999-12-31",
}
# A field for a number or a choice takes all texts in one way; a field for a text may be read as anything.
FOR_NUMBERS = (
    "nothing",
    "NUL",
    "huge number",
    "number that is none",
    "negative",
    "above every column",
    "digits of elsewhere",
)
# What a field for a text may find nothing wrong with.
FAR = (
    "NUL",
    "surrogate in a plugin's settings",
    "huge number in JSON",
    "long and allowed",
    "JSON of another kind",
)
FOR_CHOICES = ("nothing", "NUL", "no UTF-8", "huge number", "negative")
DIALOGS = ("consumer.issue_key", "apikey.rotate", "revokedtoken.revoke", "tokencut.cut", "revision.roll_back")
FORMS = (
    *(f"{name}.{verb}" for name in ("service", "target", "route", "plan", "consumer", "jwtissuer", "transform")
      for verb in ("add", "change")),
    "apikey.change", "configuration.change", "tester.", *DIALOGS,
)  # fmt: skip
Fields = dict[str, bytes]


class Form(HTMLParser):
    """The fields of a page's own form, with what they hold. kinds: of the fields that are for no text, names → NONSENSE."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fields: Fields = {}
        self.kinds: dict[str, tuple[str, ...]] = {}
        self._open: Fields | None = None
        self._name = self._text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        if tag == "form":
            self._open = (
                {}
                if given.get("method", "").lower() == "post" and "logout" not in given.get("action", "")
                else None
            )
        elif self._open is None:
            return
        elif tag in ("select", "textarea"):
            self._name, self._text = name, ""
            if tag == "select":
                self.kinds[name] = FOR_CHOICES
            self._open.setdefault(name, b"")
        elif tag == "option" and "selected" in given:
            self._open[self._name] = given.get("value", "").encode()
        elif tag == "input" and name and given.get("type") != "submit":
            if given.get("type") in ("checkbox", "radio", "hidden"):
                self.kinds[name] = FOR_CHOICES
            elif given.get("type") == "number":
                self.kinds[name] = FOR_NUMBERS
            if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                self._open[name] = given.get("value", "").encode()
            else:
                self._open.setdefault(name, b"")

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._open is not None:
            self._open[self._name] = self._text.removeprefix("\n").encode()
        elif tag == "form" and self._open is not None:
            if len(self._open) > len(self.fields):
                self.fields = self._open
            self._open = None


def with_new_rows(found: Fields) -> Fields:
    """And one new row inside of each table on the page."""
    found = dict(found)
    for name in [name for name in found if name.endswith("-TOTAL_FORMS")]:
        prefix, count = name.removesuffix("-TOTAL_FORMS"), int(found[name])
        rows = {field: value for field, value in found.items() if field.startswith(f"{prefix}-__prefix__-")}
        found |= {field.replace("__prefix__", str(count)): value for field, value in rows.items()}
        if rows:
            found[name] = str(count + 1).encode()
    return {field: value for field, value in found.items() if "__prefix__" not in field}


def address_of(form: str, made: dict[str, Any]) -> str:
    name, _, verb = form.partition(".")
    if name == "tester":
        return reverse("admin:gateway_tester_changelist")
    rows = {**made, "revision": _first("revision"), "configuration": _first("configuration")}
    if verb == "add" or name in ("revokedtoken", "tokencut"):
        return reverse(f"admin:gateway_{name}_{verb}")
    return page(name, rows[name], verb)


def _first(name: str) -> Any:
    model = next(model for model in admin.site._registry if model._meta.label_lower == f"gateway.{name}")
    return model._default_manager.first()


def send(client: Client, address: str, fields: Fields) -> int:
    """The status; what it changed is undone."""
    body = b"&".join(quote(name).encode() + b"=" + quote(value).encode() for name, value in fields.items())
    with transaction.atomic():
        answer = client.post(address, body, content_type="application/x-www-form-urlencoded")
        transaction.set_rollback(True)
    return answer.status_code


def spoilt(fields: Fields, kinds: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, Fields]]:
    """All fields at once, each with another kind of nonsense from turn to turn, and the fields for texts alone, where all
    others are right, so that a form may come as far as its row. In a deep run each field alone with everything, which takes
    ten minutes."""
    for turn in range(0, len(NONSENSE), 1 if depth.IS_DEEP else 3):
        mixed = {}
        for number, name in enumerate(fields):
            kind = kinds.get(name, tuple(NONSENSE))
            if turn and name.endswith(
                "_FORMS"
            ):  # after a huge number of rows Django makes a thousand, in seconds
                kind = ("negative",)
            mixed[name] = NONSENSE[kind[(turn + number) % len(kind)]]
        yield f"turn {turn}", mixed
    for number, name in enumerate(fields):
        alone = tuple(kinds.get(name, NONSENSE)) if depth.IS_DEEP else FAR if name not in kinds else ()
        for turn, what in enumerate(alone):
            if depth.IS_DEEP or turn == number % len(FAR):
                yield f"{name}: {what}", {**fields, name: NONSENSE[what]}
        if depth.IS_DEEP:
            yield f"without {name}", {field: value for field, value in fields.items() if field != name}
    for what in FAR:
        yield (
            f"all texts: {what}",
            {name: value if name in kinds else NONSENSE[what] for name, value in fields.items()},
        )


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_form__nonsense_in_each_of_its_fields__never_a_500(form: str) -> None:
    client, made = client_of(roles.ADMIN), configuration()
    client.raise_request_exception = False
    address = address_of(form, made)
    answer = client.get(address)
    assert answer.status_code == 200
    found = Form(answer.content.decode())
    fields = with_new_rows(found.fields)
    fields = {name: value for name, value in fields.items() if name != "csrfmiddlewaretoken"}
    if form in DIALOGS:
        fields["_form_submitted"] = b"True"
    assert fields
    assert send(client, address, fields) < 500
    assert [what for what, sent in spoilt(fields, found.kinds) if send(client, address, sent) >= 500] == []


def test_forms__every_page_that_takes_one__is_among_these() -> None:
    pages = {
        model._meta.model_name: one
        for model, one in admin.site._registry.items()
        if model._meta.app_label == "gateway"
    }
    dialogs = {
        f"{name}.{action}"
        for name, one in pages.items()
        for action in (*one.actions_list, *one.actions_detail)
        if _asks(getattr(type(one), action))
    }
    assert dialogs <= {*DIALOGS}
    assert {form.partition(".")[0] for form in FORMS} >= pages.keys() - {"endedkey"}


def _asks(action: Any) -> bool:
    """For more than a yes."""
    form = getattr(action, "dialog", None) and action.dialog["form_class"]
    return form is not None and bool(form.base_fields.keys() - {"_form_submitted"})
