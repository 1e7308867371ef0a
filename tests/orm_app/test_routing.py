from __future__ import annotations

import pytest

from orm_app import routing

DATABASES = {
    "default": {"ENGINE": "django.db.backends.postgresql"},
    "default_replica1": {"ENGINE": "django.db.backends.postgresql", "REPLICA_OF": "default"},
    "default_replica2": {"ENGINE": "django.db.backends.postgresql", "REPLICA_OF": "default"},
    "orders": {"ENGINE": "django.db.backends.postgresql"},
    "orders_replica1": {"ENGINE": "django.db.backends.postgresql", "REPLICA_OF": "orders"},
    "docs": {"ENGINE": "django_mongodb_backend"},
    "archive": {"ENGINE": "orm_app.sqlite"},
}
KNOWN = routing.topology(DATABASES, {"billing": "orders", "shipping": "orders", "wiki": "docs"})


def test_topology__two_clusters__each_knows_its_replicas() -> None:
    assert KNOWN.replicas == {
        "default": ("default_replica1", "default_replica2"),
        "orders": ("orders_replica1",),
    }


def test_topology__replica_of_nobody__takes_no_reads_and_no_migrations() -> None:
    known = routing.topology({"default": {}, "lost": {"REPLICA_OF": "gone"}}, {})
    assert known.replicas == {}
    assert routing.may_migrate(known, "lost", "auth") is False


@pytest.mark.parametrize(
    ("app", "near", "cluster"),
    [
        ("billing", None, "orders"),
        ("blog", None, None),
        ("blog", ("blog", "default_replica1"), "default"),
        ("blog", ("blog", "archive"), "archive"),
        ("billing", ("shipping", "orders_replica1"), "orders"),
        ("billing", ("shipping", "archive"), "archive"),
        # A relative of another cluster's row is not in that row's database.
        ("billing", ("blog", "default"), "orders"),
        ("blog", ("billing", "orders"), "default"),
    ],
)
def test_cluster__app_and_the_row_it_is_for__where_the_model_is(
    app: str, near: tuple[str, str] | None, cluster: str | None
) -> None:
    assert routing.cluster(KNOWN, app, near) == cluster


@pytest.mark.parametrize(
    ("alias", "app", "may"),
    [
        ("orders", "billing", True),
        ("default", "billing", False),
        ("default", "auth", None),
        ("archive", "auth", None),
        ("orders", "auth", False),
        ("orders_replica1", "billing", False),
        ("default_replica1", "auth", False),
        ("docs", "wiki", True),
        ("docs", "contenttypes", False),
    ],
)
def test_may_migrate__app_on_a_database__only_where_its_tables_belong(
    alias: str, app: str, may: bool | None
) -> None:
    assert routing.may_migrate(KNOWN, alias, app) is may


def test_may_migrate__document_database_that_no_app_is_mapped_to__takes_none() -> None:
    known = routing.topology(DATABASES, {})
    assert routing.may_migrate(known, "docs", "auth") is False
    assert routing.may_migrate(known, "orders", "auth") is None


def test_may_relate__rows_of_a_primary_and_its_replica__may() -> None:
    assert routing.may_relate(KNOWN, "default", "default_replica2")
    assert not routing.may_relate(KNOWN, "default", "orders_replica1")
