"""What each version changed, and the way back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.models import AuditEntry
from gateway import changes, config, entries, history, secret_box
from gateway.conf import GatewayConf, conf
from gateway.entries import Change, Entry
from gateway.errors import RollbackRefused
from gateway.models import ApiKey, Consumer, JwtIssuer, Plan, Revision, Route, Service, Target
from tests.depth import examples

from .documents import EXAMPLE, FULL, SEED, put

BY: dict[str, Any] = {"actor": "tester", "source": "admin"}
pytestmark = pytest.mark.django_db


def test_changes_between__several_versions__one_change_an_entry_and_none_that_ended_where_it_began() -> None:
    put(SEED)
    target, route = Target.objects.get(), Route.objects.get()
    for timeout_s in (40, 50):
        route.timeout_s = timeout_s
        changes.save(route, **BY)
    changes.set_target_state(target, "off", **BY)
    changes.set_target_state(target, "active", **BY)
    (change,) = history.changes_between(1, 5)
    assert change.line() == "~ route /api/v1/tasks  timeout_s: 30 -> 50"
    assert [c.line() for c in history.changes_between(5, 1)] == ["~ route /api/v1/tasks  timeout_s: 50 -> 30"]
    assert [str(c) for c in history.changes_between(3, 4)] == [
        "update target localhost:8001 http://localhost:8001"
    ]
    assert history.changes_between(2, 2) == []
    assert [revision.version for revision in history.revisions()] == [5, 4, 3, 2, 1]
    with pytest.raises(RollbackRefused, match="no version 6 yet; the newest is 5"):
        history.changes_between(1, 6)


@pytest.mark.parametrize("back_to", [0, 1, 2, 3])
def test_rollback__any_version__every_entry_as_it_was_and_the_way_forward_too(back_to: int) -> None:
    states = [config.current()]
    for text in (SEED, EXAMPLE.read_text(), FULL, SEED):
        put(text, prune=True)
        states.append(config.current())
    assert history.rollback(back_to, **BY) == 5
    assert _lasting(config.current()) == _lasting(states[back_to])
    assert history.rollback(4, **BY) == 6
    assert _lasting(config.current()) == _lasting(states[4])
    assert history.rollback(5, **BY) == 7
    assert _lasting(config.current()) == _lasting(states[back_to])


def _lasting(found: dict[Entry, dict[str, Any]]) -> dict[Entry, dict[str, Any]]:
    """Without keys, for which a rollback has rules of its own."""
    return {entry: fields for entry, fields in found.items() if entry[0] != "key"}


def test_rollback__is_a_change_like_any_other__audited_with_what_it_went_back_to() -> None:
    put(SEED)
    put(EXAMPLE.read_text())
    assert history.rollback(1, request_id="r-1", ip="192.0.2.1", **BY) == 3
    revision = history.revisions()[0]
    assert (revision.version, revision.actor, revision.source) == (3, "tester", "admin")
    entry = AuditEntry.objects.get(action="configuration.rollback")
    assert (entry.target, entry.after, entry.ip) == ("gateway.Revision:3", {"as_after": 1}, "192.0.2.1")
    assert history.rollbacks([1, 2, 3]) == {3: 1}
    assert history.changes_between(0, 1) == history.changes_between(0, 3)


def test_rollback__nothing_to_bring_back__no_new_version() -> None:
    put(SEED)
    assert history.rollback(1, **BY) == 1
    assert not AuditEntry.objects.filter(action="configuration.rollback").exists()


def test_rollback__version_that_is_not_kept_or_not_there__refused() -> None:
    before = conf()
    conf.bind(GatewayConf(REVISIONS_KEPT=10))
    try:
        put(SEED.replace("burst_limit: 10", "burst_limit: 60"))
        route = Route.objects.get()
        for cost in range(2, 15):
            route.cost = cost
            changes.save(route, **BY)
    finally:
        conf.bind(before)
    with pytest.raises(RollbackRefused, match="version 3 is no longer kept; the oldest one is 4"):
        history.rollback(3, **BY)
    with pytest.raises(RollbackRefused, match="no version 15 yet; the newest is 14"):
        history.rollback(15, **BY)
    with pytest.raises(RollbackRefused, match="no longer kept"):
        history.changes_between(1, 14)
    assert history.rollback(4, **BY) == 15
    assert Route.objects.get().cost == 4


def test_rollback__renamed_and_replaced__order_of_what_depends_on_what() -> None:
    put(FULL)
    state = config.current()
    service = Service.objects.get(name="tasks")
    service.name = "jobs"
    changes.save(service, **BY)
    put(
        FULL.replace("plan: gold", "plan: silver")
        .replace("  gold:", "  silver:")
        .replace("service: tasks", "service: jobs")
        .replace("  tasks:\n", "  jobs:\n"),
        prune=True,
    )
    history.rollback(1, **BY)
    assert config.current() == state


def test_rollback__secret_of_an_issuer__comes_back_sealed() -> None:
    put(SEED)
    put(SEED.replace("your-secret-key", "another-secret-of-32-characters!!"))
    history.rollback(1, **BY)
    assert JwtIssuer.objects.get().key() == b"your-secret-key"
    (change,) = history.changes_between(2, 3)
    assert "***" in str(change.shown())
    assert "secret: another" in change.line()


def test_rollback__secret_that_cannot_be_opened_any_more__refused(settings: Any) -> None:
    put(SEED)
    settings.SECRET_KEY = "another" * 10
    put(SEED.replace("your-secret-key", "another-secret-of-32-characters!!"))
    with pytest.raises(RollbackRefused, match="issuer default: the secret cannot be opened"):
        history.rollback(1, **BY)
    assert JwtIssuer.objects.get().key() == b"another-secret-of-32-characters!!"


def test_rollback__signer_that_changed__the_first_one_signs_again() -> None:
    put("issuers: {first: {secret: 0123456789abcdef0123456789abcdef, signs: true}}")
    put(SEED)
    history.rollback(1, **BY)
    assert [(row.name, row.signs) for row in JwtIssuer.objects.all()] == [("first", True)]


def test_rollback__what_the_rules_refuse_today__refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    put(SEED)
    put(EXAMPLE.read_text(), prune=True)
    monkeypatch.setattr("gateway.models.route.routing.RESERVED", ("/api/v1/tasks",))
    monkeypatch.setattr("gateway.routing._RESERVED", (b"/api/v1/tasks",))
    with pytest.raises(RollbackRefused, match="route /api/v1/tasks: "):
        history.rollback(1, **BY)
    assert Service.objects.get().name == "tasks_service"


def test_rollback__row_that_was_made_elsewhere_needs_one__refused() -> None:
    put("plans: {a: {requests_per_hour: 1}}")
    put("plans: {b: {requests_per_hour: 1}}")
    Consumer.objects.create(name="by-hand", plan=Plan.objects.get(name="b"))
    with pytest.raises(RollbackRefused, match="plan b: others need it"):
        history.rollback(1, **BY)


# --- keys: a rollback gives back no access, and takes none away ---
def test_rollback__key_revoked_since__stays_revoked() -> None:
    consumer = Consumer.objects.create(name="c")
    row, _ = changes.issue_key(consumer, **BY)
    before_it = history.newest()
    changes.revoke_key(row, **BY)
    history.rollback(before_it, **BY)
    assert ApiKey.objects.get().revoked_at == row.revoked_at


def test_rollback__key_revoked_and_then_deleted_with_its_consumer__comes_back_revoked() -> None:
    put(SEED)
    (key,) = ApiKey.objects.all()
    kept, _ = changes.issue_key(key.consumer, **BY)
    before_it = history.newest()
    changes.revoke_key(key, **BY)
    changes.delete(key.consumer, **BY)
    history.rollback(before_it, **BY)
    states = {row.digest: row.revoked_at for row in ApiKey.objects.all()}
    assert states == {key.digest: key.revoked_at, kept.digest: None}


def test_rollback__rotated_key__the_old_one_keeps_its_end_and_the_new_one_works_on() -> None:
    put(SEED)
    old = ApiKey.objects.get()
    new, _ = changes.rotate_key(old, overlap_s=60, **BY)
    history.rollback(1, **BY)
    assert {row.digest: row.expires_at for row in ApiKey.objects.all()} == {
        old.digest: old.expires_at,
        new.digest: None,
    }


def test_rollback__end_that_was_moved_and_taken_away__the_earliest_one_holds() -> None:
    put(SEED)
    row = ApiKey.objects.get()
    early, late = (timezone.now() + timedelta(days=days) for days in (1, 9))
    for end in (late, early, None):
        row.expires_at = end
        changes.save(row, **BY)
    history.rollback(1, **BY)
    assert ApiKey.objects.get().expires_at == early


def test_rollback__key_issued_since__stays_unless_its_consumer_goes() -> None:
    put(SEED)
    row, _ = changes.issue_key(Consumer.objects.get(), **BY)
    put("authentication: {api_keys: {late: {}}}")
    changes.issue_key(Consumer.objects.get(name="late"), **BY)
    history.rollback(1, **BY)
    assert set(ApiKey.objects.values_list("digest", flat=True)) >= {row.digest}
    assert set(ApiKey.objects.values_list("consumer__name", flat=True)) == {"demo-key"}
    assert {c.kind for c in history.changes_between(history.newest() - 1, history.newest())} == {
        "consumer",
        "key",
    }


# --- the arithmetic of changes ---
_FIELDS = st.none() | st.fixed_dictionaries({"n": st.integers(0, 2)})
_STATES = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.fixed_dictionaries({"n": st.integers(0, 2)})),
    min_size=2,
    max_size=6,
)


@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(states=_STATES)
def test_folded__steps_between_states__the_same_as_the_first_against_the_last(
    states: list[dict[str, Any]],
) -> None:
    whole = [{("plan", name): fields for name, fields in state.items()} for state in states]
    steps = [
        change
        for before, after in zip(whole, whole[1:], strict=False)
        for change in entries.compare(before, {**dict.fromkeys(before), **after})
    ]
    at_once = entries.compare(whole[0], {**dict.fromkeys(whole[0]), **whole[-1]})
    key = lambda change: (change.kind, change.name)  # noqa: E731
    assert sorted(entries.folded(steps), key=key) == sorted(at_once, key=key)


def test_in_order__what_is_named_first__and_gone_last() -> None:
    kinds = ["transform", "route", "service", "plan"]
    made = [Change(kind, kind, None, {}) for kind in kinds] + [
        Change(kind, "old", {}, None) for kind in reversed(kinds)
    ]
    assert [str(change) for change in entries.in_order(made)] == [
        "create plan plan", "create service service", "create route route", "create transform transform",
        "delete transform old", "delete route old", "delete service old", "delete plan old",
    ]  # fmt: skip


def test_line__secrets_and_long_values__hidden_and_cut() -> None:
    sealed = secret_box.seal("s3cret")
    made = Change(
        "issuer", "i", {"secret": sealed, "public_key": ""}, {"secret": "", "public_key": "x\n" * 100}
    )
    line = made.line()
    assert "secret: none" in line
    assert len(line) < 120
    assert "\n" not in line
    assert entries.shown({"secret": sealed, "n": 1}) == {"secret": "***", "n": 1}
    assert entries.shown({"secret": ""}) == {"secret": ""}


def test_line__long_values_that_begin_alike__shown_where_they_differ() -> None:
    before = {"tls_ca": "-" * 90 + "A" * 90, "request": {"a": None}, "timeout_s": 1234567.5, "stale_s": 2.0}
    after = {"tls_ca": "-" * 90 + "B" * 90, "request": {"a": True}, "timeout_s": 1234567.25, "stale_s": None}
    cut = "…" + "-" * 15
    assert Change("service", "s", before, after).line() == (
        f"~ service s  tls_ca: {cut}{'A' * 44}… -> {cut}{'B' * 44}…, "
        'request: {"a": null} -> {"a": true}, timeout_s: 1234567.5 -> 1234567.25, stale_s: 2 -> none'
    )


def test_revision__rows__hold_no_secret_in_clear() -> None:
    put(FULL)
    text = str(list(Revision.objects.values_list("changes", flat=True)))
    assert "0123456789abcdef" not in text
    assert "a-key-of-more-than-twenty" not in text
