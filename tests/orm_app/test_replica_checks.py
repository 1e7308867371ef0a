from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from orm_app import replica_checks
from orm_app.databases import from_url
from orm_app.router import Router

PRIMARY = from_url("postgres://u@h/n")
REPLICA = from_url("postgres://u@h2/n", replica_of="default")
DATABASES = {"default": PRIMARY, "default_replica1": REPLICA}


def ids(found: Any) -> list[str]:
    return [message.id for message in found]


@pytest.mark.parametrize(
    ("alias", "entry", "number", "said"),
    [
        ("r", REPLICA | {"REPLICA_OF": "defualt"}, "orm_app.E010", "There are default, default_replica1, r."),
        ("r", REPLICA | {"REPLICA_OF": "default_replica1"}, "orm_app.E011", "Name the primary: 'default'."),
        ("r", from_url("mysql://u@h/n", "default"), "orm_app.E012", "its engine is orm_app.mysql_pool"),
    ],
    ids=["unknown", "of-a-replica", "engine"],
)
def test_wrong_replicas__entry_that_cannot_be_one__an_error_that_says_what_to_write(
    alias: str, entry: Any, number: str, said: str
) -> None:
    assert not list(replica_checks.wrong_replicas(DATABASES))
    [message] = replica_checks.wrong_replicas(DATABASES | {alias: entry})
    assert message.id == number
    assert said in f"{message.msg} {message.hint}"


def test_wrong_homes__unknown_database_and_replica__errors() -> None:
    homes = {"billing": "orders", "wiki": "default_replica1", "blog": "default"}
    assert ids(replica_checks.wrong_homes(DATABASES, homes)) == ["orm_app.E013", "orm_app.E014"]


def test_unknown_apps__label_that_is_not_installed__warned_of() -> None:
    [message] = replica_checks.unknown_apps({"biling": "orders", "blog": "orders"}, ["billing", "blog"])
    assert message.id == "orm_app.W010"
    assert "'biling'" in message.msg


def test_deciding_by_old_rows__own_list_without_the_platforms__warned_of() -> None:
    [message] = replica_checks.deciding_by_old_rows(("billing", "auth"), {"auth", "sessions", "people"})
    assert message.id == "orm_app.W012"
    assert "leaves out people, sessions:" in message.msg
    assert not list(replica_checks.deciding_by_old_rows(("auth", "billing"), {"auth"}))


class Mine(Router):
    pass


@pytest.mark.parametrize(
    ("routers", "expected"),
    [
        ([], ["orm_app.E015"]),
        (["orm_app.router.Router"], []),
        ([Mine()], []),
    ],
    ids=["none", "ours", "a-child-of-ours"],
)
def test_unrouted__replicas__need_the_router(routers: list[Any], expected: list[str]) -> None:
    assert ids(replica_checks.unrouted(DATABASES, {}, routers)) == expected
    assert not list(replica_checks.unrouted({"default": PRIMARY}, {}, routers))


def test_always_late__limit_below_two_looks__warned_of() -> None:
    assert ids(replica_checks.always_late(1.0, 1.0)) == ["orm_app.W011"]
    assert not list(replica_checks.always_late(2.0, 1.0))


@override_settings(BRAIN={"DATABASE": {"APPS": {"auth": "nowhere"}}}, DATABASE_ROUTERS=[])
def test_checks__settings_of_the_site__are_looked_at() -> None:
    found = ids(run_checks(tags=["orm_app"]))
    assert {"orm_app.E013", "orm_app.E015"} <= set(found)
