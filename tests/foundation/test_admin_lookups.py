"""What an address of an admin list may ask for: every list of every app, with every lookup, on two databases."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.db import IntegrityError, models, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from foundation import audit, roles
from foundation.admin import RoleModelAdmin
from orm_app.models import User
from tests import depth

from .databases import default_database

admin.autodiscover()
LISTS = sorted(
    (
        model._meta.label_lower
        for model, page in admin.site._registry.items()
        if isinstance(page, RoleModelAdmin)
    ),
)
HUGE = "9" * 300
ASKED = (
    ("", "\x00"), ("", HUGE), ("__regex", "("), ("__contains", "\x00"), ("__in", HUGE), ("__range", "("), ("__gt", "1e400"),
    ("__year", HUGE),
)  # fmt: skip
BESIDE = {"q": "\x00", "p": HUGE, "_to_field": "("}

_TEXTS = {"url": "http://127.0.0.1:1"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def _database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_setup: None,
    django_db_blocker: Any,
) -> Iterator[None]:  # fmt: skip
    url = (
        f"sqlite:///{tmp_path_factory.mktemp('lookups')}/db.sqlite3"
        if request.param == "sqlite"
        else request.getfixturevalue("postgresql_url")
    )
    # Other modules have the server in turn: nothing is left on it.
    with django_db_blocker.unblock(), default_database(url), transaction.atomic():
        user = User.objects.create_superuser("looker", "looker@example.com", "a-long-password")
        roles.grant(user, roles.ADMIN)
        audit.record(action="looked", target="a", source="cli", actor=user)
        empty = {label for label in LISTS if _one_row(_model(label)) is None}
        assert empty <= {"gateway.revokedtoken", "gateway.transform"}
        yield
        transaction.set_rollback(True)


def _model(label: str) -> type[models.Model]:
    return next(model for model in admin.site._registry if model._meta.label_lower == label)


def _one_row(model: type[models.Model]) -> models.Model | None:
    """An empty table has no row to fail on. None where its constraints ask for more than this."""
    wanted = [
        field
        for field in model._meta.concrete_fields
        if not (field.null or field.has_default() or isinstance(field, models.AutoField))
    ]
    with contextlib.suppress(IntegrityError, ValueError), transaction.atomic():
        return model._default_manager.first() or model._default_manager.create(
            **{field.name: _some_value(field) for field in wanted}
        )
    return None


def _some_value(field: Any) -> Any:
    if isinstance(field, models.ForeignKey):
        return _one_row(field.related_model)
    if field.choices:
        return field.choices[-1][0]
    if field.blank and isinstance(field, models.CharField | models.TextField):
        return ""
    kinds = {
        models.DateTimeField: timezone.now(), models.JSONField: [], models.BooleanField: False, models.UUIDField: uuid.uuid4(),
    }  # fmt: skip
    if type(field) in kinds:
        return kinds[type(field)]
    return 1 if isinstance(field, models.IntegerField | models.FloatField) else _TEXTS.get(field.name, "/a")


@pytest.fixture
def looker(_database: None) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get(username="looker"))
    return client


def get(client: Client, address: str) -> HttpResponse:
    with transaction.atomic():  # what it fails on, and is not ours to mend, spoils nothing for the next one
        answer = client.get(address)
        transaction.set_rollback(True)
    return answer


@pytest.mark.parametrize("label", LISTS)
def test_list__any_lookup_in_its_address__never_a_500(label: str, looker: Client) -> None:
    model = _model(label)
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    assert get(looker, address).status_code in (200, 302, 403)
    failed = []
    for query in _queries(model):
        answer = get(looker, f"{address}?{query}")
        if answer.status_code not in (200, 302, 400, 403):
            failed.append((query[:80], answer.status_code))
    assert not failed


def _queries(model: type[models.Model]) -> Iterator[str]:
    """One column of each kind, with two lookups, which are others from list to list, or in a deep run with all; and what is
    no column."""
    kinds = {type(field): field for field in model._meta.concrete_fields}
    for number, field in enumerate(kinds.values(), LISTS.index(model._meta.label_lower)):
        for turn, (lookup, value) in enumerate(ASKED):
            if depth.IS_DEEP or (turn + number) % 4 == 0:
                yield urlencode({f"{field.name}{lookup}": value})
    for pair in BESIDE.items():
        yield urlencode([pair])


def test_list__regex_that_is_none__back_to_the_list_with_a_word_about_it(looker: Client) -> None:
    """As Django does it for what it finds out itself; the cells that a list asks for again go without."""
    for label, column in (
        ("gateway.target", "url"),
        ("queue_app.queue", "name"),
        ("orm_app.user", "username"),
    ):
        address = reverse(f"admin:{label.replace('.', '_')}_changelist")
        answer = get(looker, f"{address}?{column}__regex=(")
        assert (answer.status_code, answer.headers["Location"]) == (302, f"{address}?e=1")
        assert get(looker, f"{address}?e=1").status_code == 200
        assert get(looker, f"{address}?{column}__regex=.").status_code == 200
    live = reverse("admin:gateway_target_live")
    assert [get(looker, f"{live}?url__regex={pattern}").status_code for pattern in ("(", ".")] == [400, 200]
