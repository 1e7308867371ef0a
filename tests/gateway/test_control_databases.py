"""Documents, changes and history on each database: committed, and from several connections at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from rest_framework.exceptions import ValidationError as APIValidationError

from foundation.models import AuditEntry
from gateway import changes, config, cuts, history, holder, rows
from gateway.api.answers import Named
from gateway.errors import InvalidDocument
from gateway.models import (
    ApiKey,
    Configuration,
    Consumer,
    EndedKey,
    JwtIssuer,
    Plan,
    Revision,
    Route,
    Service,
    Target,
    TokenCut,
)

from .documents import FULL, SEED, put

BY: dict[str, Any] = {"actor": "tester", "source": "admin"}


@pytest.fixture(autouse=True)
def empty(every_database: None) -> Iterator[None]:
    yield
    for model in (Route, Consumer, EndedKey, Service, Plan, JwtIssuer, TokenCut, Revision, Configuration):
        model.objects.all().delete()
    AuditEntry.objects.expire(timezone.now())


def test_apply__prune__rollback__each_state_comes_back() -> None:
    put(FULL)
    first = config.current()
    assert config.diff(config.load(FULL), prune=True) == []
    assert config.diff(config.load(config.export()), prune=True) == []
    put(SEED, prune=True)
    assert history.rollback(1, **BY) == 3
    assert config.current() == first
    assert {
        (kind, name): fields for kind, name, fields in map(config.entry_of, Route.objects.all())
    }.items() <= first.items()
    assert history.changes_between(0, 1) == history.changes_between(0, 3)


def test_apply__what_the_database_refuses__said_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(JwtIssuer._meta.get_field("leeway_s")), "validators", [])
    text = FULL.replace("leeway: 5", "leeway: -5")
    with pytest.raises(InvalidDocument, match="gateway_issuer_leeway_positive"):
        put(text)
    assert not Plan.objects.exists()
    assert not Revision.objects.exists()
    service = Service.objects.create(name="u")
    with pytest.raises(DatabaseError), transaction.atomic():
        Route.objects.create(name="r", path="/admin/x", service=service)


def test_apply__names_that_differ_in_case_alone__two_things_or_a_clear_refusal() -> None:
    put("plans: {gold: {requests_per_hour: 1}}")
    text = "plans: {Gold: {requests_per_hour: 2}}"
    if connection.vendor == "mysql":  # whose collation does not tell them apart
        with pytest.raises(
            InvalidDocument, match="line 1: plans.Gold: name: Plan with this Name already exists."
        ):
            put(text)
        assert Plan.objects.get().requests_per_hour == 1
    else:
        put(text)
        assert sorted(Plan.objects.values_list("name", flat=True)) == ["Gold", "gold"]


def test_named__what_no_name_can_be__there_is_no_such_row() -> None:
    for name in ("a\x00b", "\ud800", "x" * 5000):
        with pytest.raises(APIValidationError):
            Named(queryset=Plan.objects.all()).run_validation(name)


def test_read__change_in_the_middle_of_it__all_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("a transaction of SQLite's keeps the writers out")
    put(SEED)
    before = holder.read()
    current = rows.current

    def late() -> Any:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
        return current()

    def work() -> None:
        try:
            changes.save(Plan(name="between", requests_per_hour=1), **BY)
        finally:
            connection.close()

    monkeypatch.setattr(rows, "current", late)
    assert holder.read() == before
    monkeypatch.setattr(rows, "current", current)
    assert holder.read()["version"] == before["version"] + 1


def test_changes__several_at_once__a_revision_each_that_begins_where_the_last_one_ended() -> None:
    put(SEED)
    names = [f"t{i}" for i in range(4)]
    failed: list[Exception] = []

    def work(name: str) -> None:
        try:
            for weight in range(2, 5):
                row = Target.objects.get()
                row.weight = weight * 10 + int(name[1])
                changes.save(row, **BY)
            consumer = Consumer.objects.get()
            changes.issue_key(consumer, **BY)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    revisions = list(Revision.objects.order_by("version"))
    assert [revision.version for revision in revisions] == list(
        range(1, Configuration.objects.get().version + 1)
    )
    assert ApiKey.objects.count() == 5
    known: dict[tuple[str, str], Any] = {}
    for revision in revisions:
        for change in revision.changes:
            entry = change["kind"], change["name"]
            assert change["before"] == known.get(entry)
            known[entry] = change["after"]
    assert known == {e: fields for e, fields in config.current().items() if e != ("setting", "gateway")}


def test_first_change__six_at_once__one_row_and_six_versions() -> None:
    ready, failed = threading.Barrier(6), []

    def work(name: str) -> None:
        try:
            ready.wait(60)
            changes.save(Plan(name=name, requests_per_hour=1), **BY)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert (Configuration.objects.get().version, Revision.objects.count()) == (6, 6)


def test_cut__several_at_once_and_subjects_that_differ_in_capitals__a_row_for_each_subject() -> None:
    later = timezone.now() + timedelta(days=1)
    ready, failed = threading.Barrier(4), []

    def work(subject: str) -> None:
        try:
            ready.wait(60)
            cuts.cut("partner", subject, expires_at=later, **BY)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("ada", "ada", "Ada", "ada")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert sorted(TokenCut.objects.values_list("subject", flat=True)) == ["Ada", "ada"]
    assert Configuration.objects.get().version == 4
    assert cuts.is_cut("partner", "Ada", None)
    assert not cuts.is_cut("partner", "ADA", None)
    assert {cut.subject for cut in cuts.living()} == {"Ada", "ada"}
