from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from orm_app import pools
from tests.foundation.databases import second_database


def samples() -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["alias"]): sample.value
        for family in pools.families()
        for sample in family.samples
    }


@pytest.mark.service
@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_stats_and_families__a_connection_is_lent_and_given_back__both_say_so(
    server: str, request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any
) -> None:
    if server == "mariadb_url":
        pytest.importorskip("MySQLdb")
    url = request.getfixturevalue(server)
    with django_db_blocker.unblock(), second_database(f"{url}?pool_max_size=3", app="orm_app") as alias:
        connections[alias].close()
        before = pools.stats(alias)[0]
        connections[alias].ensure_connection()
        (lent,) = pools.stats(alias)
        assert (lent.max_size, lent.in_use, lent.waiting, lent.errors_num) == (3, 1, 0, 0)
        assert lent.requests_num == before.requests_num + 1
        assert lent.connections_num >= 1
        shown = samples()
        assert shown["brain_database_pool_in_use", alias] == 1
        assert shown["brain_database_pool_max_connections", alias] == 3
        assert shown["brain_database_pool_requests_total", alias] == lent.requests_num
        connections[alias].close()
        assert pools.stats(alias)[0].in_use == 0
        assert alias in [one.alias for one in pools.stats()]


def test_stats__sqlite__has_none() -> None:
    vendors = {connections[one.alias].vendor for one in pools.stats()}
    assert "sqlite" not in vendors
