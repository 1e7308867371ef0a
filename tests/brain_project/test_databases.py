from __future__ import annotations

import pytest

from brain_project.databases import configured
from orm_app.databases import BadURL

PRIMARY = "postgres://brain@db/brain"


def test_configured__replicas_of_two_clusters__are_numbered_by_their_primary() -> None:
    found = configured(
        PRIMARY,
        [("orders", "postgres://brain@orders/brain")],
        [("", "postgres://brain@r1/brain"), ("orders", "postgres://brain@r2/brain"), ("", PRIMARY)],
    )
    assert list(found) == ["default", "orders", "default_replica1", "orders_replica1", "default_replica2"]
    assert found["orders_replica1"]["HOST"] == "r2"
    assert found["orders_replica1"]["REPLICA_OF"] == "orders"
    assert found["orders_replica1"]["TEST"] == {"MIRROR": "orders"}
    assert "REPLICA_OF" not in found["default"]


@pytest.mark.parametrize(
    ("default", "others", "replicas", "said"),
    [
        ("oracle://db/x", [], [], "DATABASE_URL: unknown scheme"),
        (PRIMARY, [("", PRIMARY)], [], "DATABASE_URLS: a URL has no name"),
        (PRIMARY, [("default", PRIMARY)], [], "DATABASE_URLS: there are two"),
        (PRIMARY, [("orders", "postgres://secret@db")], [], "DATABASE_URLS: the database name is missing"),
        ("sqlite:///x", [], [("", "sqlite:///y")], "DATABASE_REPLICA_URLS: only postgres"),
        (
            PRIMARY,
            [("default_replica1", PRIMARY)],
            [("", PRIMARY)],
            "DATABASE_URLS: 'default_replica1' is what a",
        ),
    ],
    ids=["scheme", "no-name", "twice", "no-database", "sqlite", "named-like-a-replica"],
)
def test_configured__what_cannot_be_used__its_variable_is_named(
    default: str, others: list[tuple[str, str]], replicas: list[tuple[str, str]], said: str
) -> None:
    with pytest.raises(BadURL) as refused:
        configured(default, others, replicas)
    assert str(refused.value).startswith(said)
    assert "secret" not in str(refused.value)
