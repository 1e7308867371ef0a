from __future__ import annotations

import datetime as dt
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import Error, IntegrityError, connections, transaction
from django.test import RequestFactory
from django.utils import timezone

from foundation import audit, request_id
from foundation.models import AppendOnly, AuditEntry
from orm_app.models import User

from .databases import second_database

WROTE = {"actor": "ann", "action": "job.replay", "target": "queue_app.Job:7", "source": "cli"}


# --- masking ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "key",
    [
        "password", "db_password", "PASSWD", "secret", "client_secret", "jwt_secret", "token", "access_token",
        "X-API-Key", "api_key", "apikey", "private_key", "signing_key", "Authorization", "Set-Cookie", "sessionid",
        "credentials", "signature", "dsn", "key", "otp",
    ],
)  # fmt: skip
def test_mask__key_of_a_secret__value_hidden(key):
    assert audit.mask({key: "hunter2"}) == {key: "***"}


@pytest.mark.parametrize(
    "key",
    ["name", "key_prefix", "monkey", "keyboard", "author", "routing_key", "passenger", "api_key_header"],
)
def test_mask__ordinary_key__value_kept(key):
    assert audit.mask({key: "x"}) == {key: "x"}


def test_mask__nested_values__masked_at_every_depth():
    value = {"a": [{"token": "t", "b": 1}, ("x", {"deep": {"api-key": "k"}})], "secret": {"inner": "s"}}
    assert audit.mask(value) == {
        "a": [{"token": "***", "b": 1}, ["x", {"deep": {"api-key": "***"}}]],
        "secret": "***",
    }


def test_mask__secret_that_is_unset__stays_visible():
    assert audit.mask({"password": None, "token": "", "has_secret": True}) == {
        "password": None,
        "token": "",
        "has_secret": True,
    }


def test_mask__url_with_a_password__only_the_password_is_hidden():
    masked = audit.mask({"database": "postgres://brain:p%40ss@db:5432/x and redis://:pw@cache/0"})
    assert masked == {"database": "postgres://brain:***@db:5432/x and redis://:***@cache/0"}


def test_mask__values_that_json_columns_refuse__become_text():
    masked = audit.mask({"nan": float("nan"), "nul": "a\x00b", "when": dt.date(2026, 1, 2), 3: {4}})
    assert masked == {"nan": "nan", "nul": "a\ufffdb", "when": "2026-01-02", "3": [4]}


# --- writing ---------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_record__user_and_instance__who_and_what_as_text():
    user = User.objects.create_user("ann", "ann@example.com")
    entry = audit.record(
        actor=user, action="user.change", target=user, source="admin", after={"password": "x"}
    )
    stored = AuditEntry.objects.get(pk=entry.pk)
    assert (stored.actor, stored.actor_id) == ("ann", str(user.pk))
    assert (stored.target_label, stored.target_id, stored.target) == (
        "orm_app.User",
        str(user.pk),
        f"orm_app.User:{user.pk}",
    )
    assert (stored.before, stored.after) == (None, {"password": "***"})
    user.delete()
    assert AuditEntry.objects.get(pk=entry.pk).actor == "ann"


@pytest.mark.django_db
def test_record__name_or_nobody__text_or_system():
    assert audit.record(**WROTE).actor == "ann"
    entry = audit.record(**WROTE | {"actor": None, "target": "cache"})
    assert (entry.actor, entry.target_label, entry.target_id) == ("system", "cache", "")


@pytest.mark.django_db
def test_record__request_id__current_one_unless_given():
    with request_id.bound("req-9"):
        assert audit.record(**WROTE).request_id == "req-9"
        assert audit.record(**WROTE, request_id="other").request_id == "other"
    assert audit.record(**WROTE).request_id == ""


@pytest.mark.django_db
def test_record__unknown_source__refused_by_code_and_by_the_database():
    with pytest.raises(ValueError, match="carrier pigeon"):
        audit.record(**WROTE | {"source": "carrier pigeon"})
    with pytest.raises(IntegrityError), transaction.atomic():
        AuditEntry.objects.create(actor="a", action="b.c", target_label="d", source="pigeon")


@pytest.mark.django_db
def test_record__caller_rolls_back__no_entry():
    with pytest.raises(LookupError), transaction.atomic():
        audit.record(**WROTE)
        raise LookupError
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(("peer", "ip"), [("192.0.2.7", "192.0.2.7"), ("", None), ("unix:", None)])
def test_by__request__who_from_where_with_which_id(peer, ip):
    request = RequestFactory().get("/", REMOTE_ADDR=peer)
    request.user = User.objects.create_user("ann", "ann@example.com")
    with request_id.bound("req-3"):
        entry = audit.record(action="a.b", target="c", **audit.by(request, "api"))
    assert (entry.actor, entry.ip, entry.request_id, entry.source) == ("ann", ip, "req-3", "api")


# --- append-only -----------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_entry__any_change_through_the_models__refused():
    entry = audit.record(**WROTE)
    entry.actor = "eve"
    attempts: list[Any] = [
        entry.save,
        entry.delete,
        AuditEntry.objects.all().delete,
        lambda: AuditEntry.objects.update(actor="eve"),
        lambda: AuditEntry.objects.filter(pk=entry.pk).update(actor="eve"),
        lambda: AuditEntry.objects.bulk_update([entry], ["actor"]),
        lambda: AuditEntry.objects.bulk_create(
            [entry], update_conflicts=True, update_fields=["actor"], unique_fields=["id"]
        ),
        lambda: AuditEntry.objects.update_or_create(pk=entry.pk, defaults={"actor": "eve"}),
    ]
    for attempt in attempts:
        with pytest.raises(AppendOnly), transaction.atomic():
            attempt()
    with pytest.raises(IntegrityError), transaction.atomic():  # a second row with the same id
        AuditEntry(pk=entry.pk, actor="eve", action="x.y", target_label="z", source="cli").save()
    assert AuditEntry.objects.get().actor == "ann"


@pytest.mark.django_db
def test_prune__old_entries__dropped_and_that_is_recorded():
    old = AuditEntry(
        created_at=timezone.now() - dt.timedelta(days=400), actor="a", action="b.c", target_label="d"
    )
    old.source = "cli"
    old.save()
    kept = audit.record(**WROTE)
    assert audit.prune(timezone.now() - dt.timedelta(days=365), actor="ann", source="cli") == 1
    left = AuditEntry.objects.order_by("id")
    assert [entry.action for entry in left] == [kept.action, "audit.prune"]
    assert left[1].after["entries"] == 1


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def alias(request, tmp_path, django_db_blocker) -> Iterator[str]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/audit.sqlite3"
    else:
        if request.param == "mariadb" and importlib.util.find_spec("MySQLdb") is None:
            pytest.skip("mysqlclient is not installed (requirements-mysql.txt)")
        url = request.getfixturevalue(f"{request.param}_url")
    with django_db_blocker.unblock(), second_database(url) as name:
        yield name


@pytest.mark.service
def test_trigger__update_by_hand__refused_by_the_database_while_delete_works(alias):
    AuditEntry.objects.using(alias).create(
        actor="ann", action="job.replay", target_label="queue_app.Job", source="cli", after={"a": [1, None]}
    )
    with pytest.raises(Error, match="append-only"), connections[alias].cursor() as cursor:
        cursor.execute("UPDATE foundation_auditentry SET actor = 'eve'")
    stored = AuditEntry.objects.using(alias).get()
    assert (stored.actor, stored.after) == ("ann", {"a": [1, None]})
    with connections[alias].cursor() as cursor:
        cursor.execute("DELETE FROM foundation_auditentry")
    assert not AuditEntry.objects.using(alias).exists()


@pytest.mark.service
def test_migrations__back_and_forth__leave_the_trigger_and_the_groups(alias):
    call_command("migrate", "foundation", "zero", database=alias, verbosity=0)
    assert "foundation_auditentry" not in connections[alias].introspection.table_names()
    call_command("migrate", "foundation", database=alias, verbosity=0)
    AuditEntry.objects.using(alias).create(actor="ann", action="a.b", target_label="c", source="cli")
    with pytest.raises(Error, match="append-only"), connections[alias].cursor() as cursor:
        cursor.execute("UPDATE foundation_auditentry SET actor = 'eve'")
