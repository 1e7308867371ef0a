from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import IntegrityError, transaction

from foundation.models import AuditEntry
from gateway import changes, config, secret_box
from gateway.errors import InvalidDocument
from gateway.models import ApiKey, Configuration, Consumer, JwtIssuer, Plan, Route, Target, Upstream
from gateway.snapshot import Holder, limits

# The customer's document, word for word.
SEED = """\
authentication:
  jwt_secret: "your-secret-key"
  jwt_algorithm: "HS256"
  jwt_expiry: 3600
  api_key_header: "X-API-Key"
  api_keys:
    demo-key: "demo-secret"

routes:
  - path: "/api/v1/tasks"
    target_url: "http://localhost:8001"
    methods: ["GET", "POST", "PUT", "DELETE"]
    rate_limit:
      requests_per_minute: 60
      requests_per_hour: 1000
      burst_limit: 10
    auth_required: true
    timeout: 30
"""
EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway.yaml"


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        config.load(text)
    return caught.value.problems


def put(text: str) -> list[config.Change]:
    return config.apply(config.load(text), actor="tester", source="cli")


@pytest.mark.django_db
def test_apply__the_customers_document__every_value_in_its_row() -> None:
    document = config.load(SEED)
    assert document.api_keys == {"demo-key": "demo-secret"}
    assert len(document.warnings) == 2
    config.apply(document, actor="tester", source="cli")
    route = Route.objects.select_related("plan", "upstream").get()
    assert (route.path, route.methods, route.auth_required) == (
        "/api/v1/tasks",
        ["GET", "POST", "PUT", "DELETE"],
        True,
    )
    assert route.timeout_s == 30.0
    assert [target.url for target in route.upstream.targets.all()] == ["http://localhost:8001"]
    minute, hour = limits(route.plan)
    assert (minute.rate, minute.capacity) == (1.0, 10.0)
    assert (hour.rate, hour.capacity) == (1000 / 3600, 1000.0)
    issuer = JwtIssuer.objects.get()
    assert (issuer.signs, issuer.algorithm, issuer.expiry_s, issuer.key()) == (
        True,
        "HS256",
        3600,
        b"your-secret-key",
    )
    assert "your-secret-key" not in issuer.secret
    assert Consumer.objects.get().name == "demo-key"
    assert Configuration.objects.get().api_key_header == "X-API-Key"


@pytest.mark.django_db
def test_apply__again__no_change_no_version_no_audit() -> None:
    assert put(SEED)
    version, entries = Configuration.objects.get().version, AuditEntry.objects.count()
    assert put(SEED) == []
    assert Configuration.objects.get().version == version
    assert AuditEntry.objects.count() == entries


@pytest.mark.django_db
def test_apply__audit__names_every_change_and_no_secret() -> None:
    put(SEED)
    actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert {
        "route.create",
        "consumer.create",
        "key.create",
        "issuer.create",
        "upstream.create",
        "plan.create",
    } <= actions
    said = " ".join(f"{entry.before} {entry.after} {entry.target_id}" for entry in AuditEntry.objects.all())
    assert "your-secret-key" not in said
    assert "demo-secret" not in said


@pytest.mark.django_db
def test_apply__one_bad_entry__nothing_is_written() -> None:
    text = SEED.replace('target_url: "http://localhost:8001"', "upstream: missing")
    with pytest.raises(InvalidDocument, match="there is no upstream 'missing'"):
        put(text)
    assert not Route.objects.exists()
    assert not Configuration.objects.exists()


@pytest.mark.django_db
def test_apply__metadata_address_as_target__refused() -> None:
    with pytest.raises(InvalidDocument, match="metadata"):
        put(SEED.replace("http://localhost:8001", "http://169.254.169.254:80"))


@pytest.mark.django_db
def test_example__the_customers_values_on_three_targets() -> None:
    example, seed = yaml.safe_load(EXAMPLE.read_text()), yaml.safe_load(SEED)
    assert example["authentication"] == seed["authentication"]
    given = {key: value for key, value in example["routes"][0].items() if key != "upstream"}
    assert given == {key: value for key, value in seed["routes"][0].items() if key != "target_url"}
    put(EXAMPLE.read_text())
    assert Target.objects.count() == 3
    assert [route.upstream.name for route in Route.objects.all()] == ["tasks_service"] * 2


@pytest.mark.django_db
def test_set_targets__other_urls__replaced_and_audited() -> None:
    put(EXAMPLE.read_text())
    urls = ["http://127.0.0.1:9001", "http://127.0.0.1:9002"]
    assert config.set_targets("tasks_service", urls, actor="up", source="cli")
    assert [target.url for target in Target.objects.all()] == urls
    assert config.set_targets("tasks_service", urls, actor="up", source="cli") == []
    assert AuditEntry.objects.filter(action="upstream.update", actor="up").count() == 1


@pytest.mark.django_db
def test_with_targets__document__same_but_for_the_targets() -> None:
    document = config.with_targets(
        config.load(EXAMPLE.read_text()), "tasks_service", ["http://127.0.0.1:9001"]
    )
    config.apply(document, actor="up", source="cli")
    assert [target.url for target in Target.objects.all()] == ["http://127.0.0.1:9001"]
    assert Route.objects.count() == 2


@pytest.mark.django_db
def test_export__then_load__no_difference_and_no_secret() -> None:
    put(EXAMPLE.read_text())
    text = config.export()
    assert "your-secret-key" not in text
    assert "demo-secret" not in text
    assert config.diff(config.load(text)) == []
    assert config.diff(config.load(text), prune=True) == []


@pytest.mark.django_db
def test_diff__changed_and_missing__named_and_pruned_only_when_asked() -> None:
    put(EXAMPLE.read_text())
    text = SEED.replace("burst_limit: 10", "burst_limit: 20").replace(
        'target_url: "http://localhost:8001"', "upstream: tasks_service"
    )
    assert [str(change) for change in config.diff(config.load(text))] == ["update plan /api/v1/tasks"]
    gone = [str(change) for change in config.diff(config.load(text), prune=True)][1:]
    assert gone == [
        "delete route /api/v1/stats",
        "delete upstream tasks_service",
        "delete plan /api/v1/stats",
    ]


@pytest.mark.django_db
def test_apply__prune__deletes_what_is_not_named() -> None:
    put(EXAMPLE.read_text())
    config.apply(config.load(SEED), actor="t", source="cli", prune=True)
    assert list(Route.objects.values_list("path", flat=True)) == ["/api/v1/tasks"]
    assert list(Upstream.objects.values_list("name", flat=True)) == ["localhost:8001"]


@pytest.mark.django_db
def test_apply__new_secret__changes_the_issuer_and_is_not_shown() -> None:
    put(SEED)
    (change,) = put(SEED.replace("your-secret-key", "another-secret-of-32-characters!!"))
    assert (change.verb, dict(change.after or {})) == ("update", {"secret": "as given"})
    assert JwtIssuer.objects.get().key() == b"another-secret-of-32-characters!!"


def test_load__weak_secrets_in_production__refused(settings: Any) -> None:
    settings.PRODUCTION = True
    found = problems(SEED)
    assert [line.partition(":")[0] for line in found] == [
        "authentication.jwt_secret",
        "authentication.api_keys.demo-key",
    ]


@pytest.mark.parametrize(
    ("was", "becomes", "expected"),
    [
        ("timeout: 30", "timeuot: 30", "routes[0].timeuot: unknown key; did you mean 'timeout'?"),
        ("timeout: 30", "timeout: soon", "routes[0].timeout: is a number of seconds up to 3600, not str 'soon'"),
        ("timeout: 30", "timeout: -1", "routes[0].timeout: is a number of seconds up to 3600, not int -1"),
        ("auth_required: true", "auth_required: 1", "routes[0].auth_required: is true or false, not int 1"),
        ("requests_per_minute: 60", "requests_per_minute: 0", "routes[0].rate_limit.requests_per_minute: is a whole number from 1, not int 0"),
        ("burst_limit", "burst", "routes[0].rate_limit.burst: unknown key; did you mean 'burst_limit'?"),
        ("HS256", "none", "authentication.jwt_algorithm: is one of HS256, HS384, HS512, not str 'none'"),
        ("http://localhost:8001", "ftp://localhost", "routes[0].target_url: is http://host:port, not str 'ftp://localhost'"),
        ("target_url: ", "upstream: a\n    target_url: ", "routes[0]: give either target_url or upstream"),
        ("routes:", "routs:", "routs: unknown key; did you mean 'routes'?"),
        ('demo-key: "demo-secret"', "demo-key: 7", "authentication.api_keys.demo-key: is a mapping, not int 7"),
        ("timeout: 30", "timeout: 30\n    timeout: 40", "not YAML: the key 'timeout' stands twice (line 19)"),
        ('"X-API-Key"', '"X-API-Key', "not YAML"),
    ],
)  # fmt: skip
def test_load__mistake__named_by_the_path_to_its_key(was: str, becomes: str, expected: str) -> None:
    assert SEED.count(was) >= 1
    assert any(line.startswith(expected) for line in problems(SEED.replace(was, becomes, 1)))


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "routes: 5", "authentication: []", "upstreams: {a: {targets: []}}"]
)
def test_load__not_a_document__problems_and_no_crash(text: str) -> None:
    assert problems(text)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/admin", "/admin/x", "/gateway/health", "/api/v1/queue", "/api/v1/database/x", "api"]
)
def test_route__reserved_path__refused_by_the_database_too(path: str) -> None:
    upstream = Upstream.objects.create(name="u")
    with pytest.raises(IntegrityError), transaction.atomic():
        Route.objects.create(path=path, upstream=upstream)
    with pytest.raises(InvalidDocument):
        put(SEED.replace("/api/v1/tasks", path))


@pytest.mark.django_db
def test_route__path_next_to_a_reserved_one__accepted() -> None:
    Route.objects.create(path="/administrators", upstream=Upstream.objects.create(name="u"))


@pytest.mark.django_db
def test_issuer__second_one_that_signs__refused_by_the_database() -> None:
    JwtIssuer.objects.create(name="a", signs=True)
    JwtIssuer.objects.create(name="b")
    JwtIssuer.objects.create(name="c")
    with pytest.raises(IntegrityError), transaction.atomic():
        JwtIssuer.objects.create(name="d", signs=True)


def test_secret_box__former_key_as_fallback__still_opens(settings: Any) -> None:
    sealed = secret_box.seal("s3cret")
    former, settings.SECRET_KEY = settings.SECRET_KEY, "another" * 10
    with pytest.raises(secret_box.Sealed):
        secret_box.open_(sealed)
    settings.SECRET_KEY_FALLBACKS = [former]
    assert secret_box.open_(sealed) == "s3cret"


@pytest.mark.django_db
def test_issue_key__text_works_once_and_revoking_ends_it() -> None:
    consumer = Consumer.objects.create(name="c", roles=["viewer"])
    row, text = changes.issue_key(consumer, actor="t", source="cli")
    assert text.startswith(f"brn_{row.prefix}_")
    assert text not in str(ApiKey.objects.values().get())
    holder = Holder()
    assert [record.identity.name for record in holder.refresh_if_due().keys.values()] == ["c"]
    changes.revoke_key(row, actor="t", source="cli")
    holder.refresh()
    assert holder.snapshot.keys == {}


@pytest.mark.django_db
def test_holder__change__seen_and_targets_keep_their_state() -> None:
    put(EXAMPLE.read_text())
    holder = Holder()
    assert holder.refresh()
    first = holder.snapshot
    first.targets[0].inflight = 3
    assert not holder.refresh()
    config.set_targets(
        "tasks_service", ["http://localhost:8001", "http://localhost:8009"], actor="t", source="cli"
    )
    assert holder.refresh()
    assert first.version < holder.snapshot.version
    assert holder.snapshot.targets[0] is first.targets[0]
    assert [target.name for target in holder.snapshot.targets] == ["localhost:8001", "localhost:8009"]
    assert [target.retired for target in first.targets] == [False, True, True]


@pytest.mark.django_db
def test_holder__broken_database__last_snapshot_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    put(EXAMPLE.read_text())
    holder = Holder()
    holder.refresh()
    kept = holder.snapshot

    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.snapshot.current_version", broken)
    assert not holder.refresh()
    assert holder.snapshot is kept


@pytest.mark.django_db
def test_holder__ranked_roles_and_disabled_rows() -> None:
    put(EXAMPLE.read_text())
    Route.objects.filter(path="/api/v1/tasks").update(roles=["operator"])
    Route.objects.filter(path="/api/v1/stats").update(enabled=False)
    Consumer.objects.update(enabled=False)
    holder = Holder()
    holder.refresh()
    (route,) = holder.snapshot.routes
    assert route.roles == {"operator", "admin"}
    assert not holder.snapshot.keys


@pytest.mark.django_db
def test_plan__hour_alone__burst_is_its_capacity() -> None:
    (hour,) = limits(Plan(requests_per_hour=100, burst_limit=5))
    assert (hour.quota, hour.capacity, hour.window_s) == (100, 5.0, 3600)
