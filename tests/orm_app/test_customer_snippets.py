"""The customer's text of "Database ORM": its bodies run unchanged, on the three engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.utils import timezone

from .snippets_app import databases


@pytest.fixture(
    scope="module",
    params=[
        databases.ENGINES[0],
        *(pytest.param(e, marks=pytest.mark.service) for e in databases.ENGINES[1:]),
    ],
)
def engine(request, tmp_path_factory, django_db_blocker) -> Iterator[str]:
    url = databases.url_of(request.param, request, tmp_path_factory.mktemp("snippets"))
    with django_db_blocker.unblock(), databases.snippets_database(url) as alias:
        yield alias


@pytest.fixture(autouse=True)
def _empty(engine) -> None:
    databases.empty(engine)


async def test_usage_and_querying__within_a_loop(engine):
    from orm_app import db

    from .snippets_app.models import User

    # Usage
    user = User(username="john_doe", email="john@example.com")
    saved_user = await user.save()

    # Querying
    users = await db.query(User).where_eq("username", "john_doe").all()
    user_count = await db.query(User).count()

    assert saved_user is user
    assert users == [saved_user]
    assert user_count == 1
    assert (saved_user.id, saved_user.is_active) == (users[0].id, True)
    assert abs((timezone.now() - saved_user.created_at).total_seconds()) < 60


def test_usage_and_querying__in_sync_code(engine):
    from orm_app import db

    from .snippets_app.models import User

    user = User(username="john_doe", email="john@example.com")
    saved_user = user.save()
    users = db.query(User).where_eq("username", "john_doe").all()
    user_count = db.query(User).count()
    assert (saved_user is user, users, user_count) == (True, [user], 1)
