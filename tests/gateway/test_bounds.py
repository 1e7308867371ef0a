"""Bounds that the database holds itself, whoever writes."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import DatabaseError, models, transaction

from gateway import rows
from gateway.entries import KINDS
from gateway.models import Service, Target
from gateway.reading import LARGEST

pytestmark = pytest.mark.usefixtures("every_database", "django_db_blocker")

WRONG: list[dict[str, Any]] = [
    {"total_timeout_s": 0.0},
    {"breaker_slow_s": -1.0},
    {"breaker_volume": 0},
    {"breaker_probes": 0},
    {"breaker_open_s": 10.0, "breaker_open_max_s": 5.0},
    {"healthy_after": 0},
    {"unhealthy_after": 0},
    {"slow_start_s": -1.0},
    {"stale_s": -1.0},
    {"retries": 11},
    {"eject_most_percent": 101},
    {"fallback_status": 101},
]


@pytest.fixture(autouse=True)
def _unblocked(django_db_blocker: Any) -> Any:
    with django_db_blocker.unblock():
        yield


@pytest.mark.parametrize("values", WRONG, ids=lambda values: " ".join(values))
def test_service__value_out_of_bounds__refused_by_the_model_and_by_the_database(
    values: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError) as refused:
        Service(name="s", **values).full_clean()
    assert set(refused.value.message_dict) <= set(values), "said at the field, and once"
    with pytest.raises(DatabaseError), transaction.atomic():
        Service.objects.create(name="s", **values)


def test_target__without_weight__refused_by_the_model_and_by_the_database() -> None:
    with transaction.atomic():
        service = Service.objects.create(name="s")
        with pytest.raises(ValidationError):
            Target(service=service, url="http://127.0.0.1:1", weight=0).full_clean()
        with pytest.raises(DatabaseError), transaction.atomic():
            Target.objects.create(service=service, url="http://127.0.0.1:1", weight=0)
        transaction.set_rollback(True)


def test_numbers__of_every_row__no_larger_than_a_document_can_say() -> None:
    """What a form or the API takes must come back from an export."""
    numbers = [
        (kind, column.field)
        for kind in KINDS
        for column in rows.columns(kind)
        if isinstance(column.field, models.IntegerField | models.FloatField)
    ]
    assert len(numbers) > 30
    unbound = [
        f"{kind}.{field.name}"
        for kind, field in numbers
        if not any(
            isinstance(one, MaxValueValidator) and one.limit_value <= LARGEST for one in field.validators
        )
    ]
    assert not unbound
