"""What locks, plans and health say of an engine that they know little of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orm_app import checkups, explain, locks

from .documents_app import databases

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def alias(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    databases.require_driver()
    url = request.getfixturevalue("mongodb_url")
    with django_db_blocker.unblock(), databases.documents_database(url) as name:
        yield name


def test_explain__a_query_of_models__the_backends_own_plan(alias: str) -> None:
    from .documents_app import models

    plan = explain.of(alias, models.Author.objects.filter(name="ann"))
    assert plan.engine == "mongodb"
    assert plan.text
    with pytest.raises(explain.CannotExplain, match="only queries of models"):
        explain.of(alias, "SELECT 1")


def test_locks__not_told_there__a_note(alias: str) -> None:
    found = locks.every(alias)
    assert found.sessions == []
    assert found.notes
    with pytest.raises(locks.NoSuchSession):
        locks.end(alias, 1, actor=None, source="cli")


def test_checkups__connection_and_migrations__looked_at(alias: str) -> None:
    found = checkups.of(alias)
    assert {"connection", "migrations"} <= {one.name for one in found.findings}
