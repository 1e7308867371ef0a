"""Single writes: rows, audit, revision, version and what is told of it, together or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import ProtectedError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from foundation.models import AuditEntry
from gateway import changes, config, keys
from gateway.conf import GatewayConf, conf
from gateway.models import ApiKey, Configuration, Consumer, JwtIssuer, Plan, Revision, Route, Service, Target

from .documents import FULL, put

BY: dict[str, Any] = {"actor": "tester", "source": "admin", "request_id": "r-1", "ip": "192.0.2.1"}
pytestmark = pytest.mark.django_db


@pytest.fixture
def route() -> Route:
    service = Service.objects.create(name="s")
    Target.objects.create(service=service, url="http://127.0.0.1:1")
    plan = Plan.objects.create(name="p", requests_per_hour=99)
    return Route.objects.create(name="r", path="/r", service=service, plan=plan)


@pytest.fixture
def consumer() -> Consumer:
    return Consumer.objects.create(name="c", roles=["viewer"], scopes=["read", "write"])


def version() -> int:
    return Configuration.objects.get().version


def test_save__update__row_audit_revision_and_version_as_one(route: Route) -> None:
    route.timeout_s = 5
    changes.save(route, **BY)
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.request_id, entry.ip) == (
        "tester",
        "route.update",
        "r-1",
        "192.0.2.1",
    )
    assert (entry.before, entry.after) == ({"timeout_s": None}, {"timeout_s": 5})
    revision = Revision.objects.get()
    (change,) = revision.changes
    assert (revision.version, revision.actor, revision.source) == (1, "tester", "admin")
    assert (change["kind"], change["name"], change["after"]) == (
        "route",
        "r",
        change["before"] | {"timeout_s": 5},
    )
    assert change["after"] == config.current()["route", "r"]
    assert version() == 1


def test_save__nothing_changed__no_version(route: Route) -> None:
    changes.save(Route.objects.get(), **BY)
    assert not Revision.objects.exists()
    assert not AuditEntry.objects.exists()


def test_save__wrong_value__nothing_happens(route: Route) -> None:
    route.path = "/admin/x"
    with pytest.raises(ValidationError, match="belongs to the platform"):
        changes.save(route, **BY)
    assert not Revision.objects.exists()
    assert Route.objects.get().path == "/r"


def test_save__new_name__those_that_name_it_are_in_the_revision(route: Route) -> None:
    service = Service.objects.get()
    service.name = "t"
    changes.save(service, **BY)
    made = Revision.objects.get().changes
    assert [(c["kind"], c["name"], c["before"] is None, c["after"] is None) for c in made] == [
        ("service", "t", True, False),
        ("target", "t http://127.0.0.1:1", True, False),
        ("route", "r", False, False),
        ("target", "s http://127.0.0.1:1", False, True),
        ("service", "s", False, True),
    ]
    assert {
        (c["kind"], c["name"]): c["after"] for c in made if c["after"]
    }.items() <= config.current().items()
    assert AuditEntry.objects.get().action == "service.update"


def test_delete__with_what_belongs_to_it__all_of_it_recorded() -> None:
    put(FULL)
    before = config.current()
    changes.delete(Consumer.objects.get(name="other"), **BY)
    changes.delete(Route.objects.get(name="tasks"), **BY)
    gone = {
        (c["kind"], c["name"]): c["before"] for r in Revision.objects.filter(version__gt=1) for c in r.changes
    }
    assert {kind for kind, _ in gone} == {"consumer", "key", "route", "transform"}
    assert gone == {entry: fields for entry, fields in before.items() if entry not in config.current()}
    assert AuditEntry.objects.filter(action="key.delete", source="admin").count() == 2


def test_delete__needed_by_others__refused_and_nothing_happens(route: Route) -> None:
    with pytest.raises(ProtectedError):
        changes.delete(route.service, **BY)
    assert Target.objects.exists()
    assert not Revision.objects.exists()


def test_change__several_writes__one_revision(route: Route, consumer: Consumer) -> None:
    with changes.change(**BY) as writing:
        for timeout_s in (5, 6):
            route.timeout_s = timeout_s
            writing.save(route)
        consumer.roles = ["admin"]
        writing.save(consumer)
        consumer.roles = ["viewer"]
        writing.save(consumer)
    (change,) = Revision.objects.get().changes  # the consumer ended as it began
    assert (change["before"]["timeout_s"], change["after"]["timeout_s"]) == (None, 6)


def test_change__failure_in_the_middle__nothing_is_left(route: Route) -> None:
    with pytest.raises(RuntimeError), changes.change(**BY) as writing:
        route.timeout_s = 5
        writing.save(route)
        raise RuntimeError
    assert Route.objects.get().timeout_s is None
    assert not Revision.objects.exists()
    assert not AuditEntry.objects.exists()


def test_save__what_the_edges_write_meanwhile__is_not_overwritten(consumer: Consumer) -> None:
    row, _ = changes.issue_key(consumer, **BY)
    used = timezone.now()
    ApiKey.objects.update(last_used_at=used)
    row.expires_at = used + timedelta(days=1)
    changes.save(row, **BY)
    assert ApiKey.objects.get().last_used_at == used


def test_set_target_state__known_and_unknown(route: Route) -> None:
    target = Target.objects.get()
    changes.set_target_state(target, "draining", **BY)
    assert Target.objects.get().state == "draining"
    with pytest.raises(ValidationError, match="state"):
        changes.set_target_state(target, "asleep", **BY)
    assert version() == 1


def test_set_secret__saved__sealed_in_the_revision_and_masked_in_the_audit() -> None:
    issuer = JwtIssuer(name="i")
    changes.set_secret(issuer, "0123456789abcdef0123456789abcdef")
    changes.save(issuer, **BY)
    entry = AuditEntry.objects.get()
    assert entry.after is not None
    assert entry.after["secret"] == "***"
    assert Revision.objects.get().changes[0]["after"]["secret"] == issuer.secret
    assert JwtIssuer.objects.get().key() == b"0123456789abcdef0123456789abcdef"


# --- revisions that are kept, and who hears of a version ---
def test_change__more_than_are_kept__the_oldest_revisions_go(route: Route) -> None:
    before = conf()
    conf.bind(GatewayConf(REVISIONS_KEPT=10))
    try:
        for cost in range(2, 17):
            route.cost = cost
            changes.save(route, **BY)
    finally:
        conf.bind(before)
    assert list(Revision.objects.values_list("version", flat=True)) == list(range(15, 5, -1))


@pytest.fixture
def heard(valkey: str) -> Iterator[Any]:
    """What is published, as a function that waits for the next one."""
    with redis.Redis.from_url(valkey) as client, client.pubsub() as channel:
        channel.subscribe(changes.CHANNEL)
        assert channel.get_message(timeout=30)["type"] == "subscribe"
        yield lambda: channel.get_message(timeout=30)


def test_change__commit__its_version_is_told(
    route: Route, heard: Any, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        route.timeout_s = 5
        changes.save(route, **BY)
    assert heard()["data"] == b"1"


def test_announce__store_down__logged_and_no_error(
    settings: Any, route: Route, django_capture_on_commit_callbacks: Any
) -> None:
    settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": "unix:///nowhere/valkey.sock"}}
    with django_capture_on_commit_callbacks(execute=True):
        route.timeout_s = 5
        changes.save(route, **BY)
    assert version() == 1


def test_bump__version_without_a_revision() -> None:
    assert changes.bump() == 1
    assert changes.bump() == 2
    assert not Revision.objects.exists()


# --- API keys ---
def test_issue_key__text_is_kept_nowhere(consumer: Consumer) -> None:
    row, text = changes.issue_key(consumer, scopes=["read"], **BY)
    assert text.startswith(f"brn_{row.prefix}_")
    assert row.digest == keys.digest(text.encode()).hex()
    said = f"{ApiKey.objects.values().get()} {Revision.objects.get().changes} {AuditEntry.objects.values().get()}"
    assert text not in said
    assert text.rpartition("_")[2] not in said
    assert ApiKey.objects.get().scopes == ["read"]
    with pytest.raises(ValidationError, match="does not have the scope 'root'"):
        changes.issue_key(consumer, scopes=["read", "root"], **BY)


def test_rotate_key__overlap__the_old_one_ends_then_and_the_new_one_takes_its_place(
    consumer: Consumer,
) -> None:
    old, _ = changes.issue_key(consumer, scopes=["read"], **BY)
    began = timezone.now()
    new, text = changes.rotate_key(old, overlap_s=60, **BY)
    old.refresh_from_db()
    overlap = timedelta(seconds=60)
    assert began + overlap <= old.expires_at <= timezone.now() + overlap
    assert (new.scopes, new.expires_at, new.consumer) == (["read"], None, consumer)
    assert keys.digest(text.encode()).hex() == new.digest != old.digest
    assert version() == 2
    assert sorted(c["name"] for c in Revision.objects.first().changes) == sorted([old.digest, new.digest])  # type: ignore[union-attr]


def test_rotate_key__no_overlap_and_an_end__at_once_and_the_same_lifetime(consumer: Consumer) -> None:
    old, _ = changes.issue_key(consumer, expires_at=timezone.now() + timedelta(days=30), **BY)
    new, _ = changes.rotate_key(old, overlap_s=0, **BY)
    assert old.expires_at <= timezone.now()
    assert timedelta(days=29) < new.expires_at - timezone.now() <= timedelta(days=30)
    with pytest.raises(ValidationError, match="revoked or expired"):
        changes.rotate_key(old, overlap_s=0, **BY)
    for overlap_s in (-1, math.nan, 1e300, 91 * 86_400):
        with pytest.raises(ValidationError, match="0 seconds or more, and 7776000"):
            changes.rotate_key(new, overlap_s=overlap_s, **BY)
    end = new.expires_at
    changes.rotate_key(new, overlap_s=90 * 86_400, **BY)
    assert new.expires_at == end  # never later than it would have ended


def test_rotate_key__end_of_the_calendar__the_new_one_ends_with_it_too(consumer: Consumer) -> None:
    end = datetime(9999, 12, 31, tzinfo=UTC)
    old, _ = changes.issue_key(consumer, expires_at=end, **BY)
    ApiKey.objects.update(created_at=timezone.now() - timedelta(days=400))
    assert changes.rotate_key(old, overlap_s=0, **BY)[0].expires_at == end


def test_revoke_key__twice__once_and_for_good(consumer: Consumer) -> None:
    row, _ = changes.issue_key(consumer, **BY)
    stale = ApiKey.objects.get()
    changes.revoke_key(row, **BY)
    revoked_at = row.revoked_at
    changes.revoke_key(row, **BY)
    changes.revoke_key(stale, **BY)
    assert ApiKey.objects.get().revoked_at == revoked_at
    assert version() == 2
    stale.revoked_at = None
    with pytest.raises(ValidationError, match="stays revoked"):
        changes.save(stale, **BY)
    assert ApiKey.objects.get().revoked_at == revoked_at


def test_save__one_row_among_many__queries_do_not_grow_with_them(route: Route) -> None:
    def cost(value: int) -> int:
        route.cost = value
        with CaptureQueriesContext(connection) as queries:
            changes.save(route, **BY)
        return len(queries)

    few = cost(2)
    Route.objects.bulk_create(Route(name=f"/r{i}", path=f"/r{i}", service=route.service) for i in range(500))
    assert cost(3) <= few
