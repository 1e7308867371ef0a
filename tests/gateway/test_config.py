"""Documents into rows and back: apply, diff, export, prune."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.models import AuditEntry
from gateway import changes, config, export, rows, secret_box
from gateway.errors import InvalidDocument
from gateway.models import (
    ApiKey,
    Configuration,
    Consumer,
    JwtIssuer,
    Plan,
    Revision,
    Route,
    Service,
    Target,
    Transform,
)
from gateway.snapshot import limits
from tests.depth import examples

from .documents import EXAMPLE, FULL, SEED, put


@pytest.mark.django_db
def test_apply__the_customers_document__every_value_in_its_row() -> None:
    put(SEED)
    route = Route.objects.select_related("plan", "service").get()
    assert (route.name, route.path, route.methods) == (
        "/api/v1/tasks",
        "/api/v1/tasks",
        ["GET", "POST", "PUT", "DELETE"],
    )
    assert (route.auth_required, route.timeout_s) == (True, 30.0)
    assert [target.url for target in route.service.targets.all()] == ["http://localhost:8001"]
    assert route.plan is not None
    minute, hour = limits(config.entry_of(route.plan)[2])
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
    assert Configuration.objects.get().version == version == Revision.objects.count() == 1
    assert AuditEntry.objects.count() == entries


@pytest.mark.django_db
def test_apply__audit_and_revision__name_every_change_and_no_secret_in_clear() -> None:
    made = put(SEED)
    actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert actions == {f"{change.kind}.create" for change in made}
    assert len(made) == 7
    audited = " ".join(
        f"{entry.before} {entry.after} {entry.target_id}" for entry in AuditEntry.objects.all()
    )
    revision = Revision.objects.get()
    assert (revision.actor, revision.source, len(revision.changes)) == ("tester", "cli", 7)
    sealed = next(c["after"]["secret"] for c in revision.changes if c["kind"] == "issuer")
    assert secret_box.open_(sealed) == "your-secret-key"
    for said in (audited, str(revision.changes), str([change.shown() for change in made])):
        assert "your-secret-key" not in said
        assert "demo-secret" not in said
    assert sealed not in audited + str([change.shown() for change in made])


@pytest.mark.django_db
def test_apply__one_bad_entry__named_by_its_line_and_nothing_is_written() -> None:
    text = SEED.replace('target_url: "http://localhost:8001"', "service: missing")
    with pytest.raises(
        InvalidDocument, match=r"line 11: routes\[0\]\.service: there is no service 'missing'"
    ):
        put(text)
    assert not Route.objects.exists()
    assert not Revision.objects.exists()


@pytest.mark.django_db
def test_apply__what_only_the_database_refuses__said_in_words_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(vars(JwtIssuer._meta.get_field("leeway_s")), "validators", [])
    with pytest.raises(InvalidDocument, match=r"line \d+: issuers.partner: .*gateway_issuer_leeway_positive"):
        put(FULL.replace("leeway: 5", "leeway: -5"))
    assert not Plan.objects.exists()


@pytest.mark.django_db
def test_example__the_customers_values_on_three_targets() -> None:
    example, seed = yaml.safe_load(EXAMPLE.read_text()), yaml.safe_load(SEED)
    assert example["authentication"] == seed["authentication"]
    given = {key: value for key, value in example["routes"][0].items() if key != "service"}
    assert given == {key: value for key, value in seed["routes"][0].items() if key != "target_url"}
    put(EXAMPLE.read_text())
    assert Target.objects.count() == 3
    assert [route.service.name for route in Route.objects.all()] == ["tasks_service"] * 2


@pytest.mark.django_db
def test_set_targets__other_urls__replaced_in_one_revision() -> None:
    put(FULL.replace("name: stamp", "name: kept"))
    urls = ["http://127.0.0.1:9001", "http://127.0.0.1:9002"]
    assert config.set_targets("tasks", urls, actor="up", source="cli")
    assert [target.url for target in Service.objects.get(name="tasks").targets.all()] == urls
    assert config.set_targets("tasks", urls, actor="up", source="cli") == []
    assert Configuration.objects.get().version == 2
    assert Transform.objects.filter(name="kept").exists()
    assert AuditEntry.objects.filter(actor="up").count() == 4


@pytest.mark.django_db
def test_with_targets__document__same_but_for_the_targets() -> None:
    document = config.with_targets(
        config.load(EXAMPLE.read_text()), "tasks_service", ["http://127.0.0.1:9001"]
    )
    config.apply(document, actor="up", source="cli")
    assert [target.url for target in Target.objects.all()] == ["http://127.0.0.1:9001"]
    assert Route.objects.count() == 2
    with pytest.raises(KeyError):
        config.with_targets(document, "another", [])


@pytest.mark.django_db
@pytest.mark.parametrize("text", [SEED, EXAMPLE.read_text(), FULL], ids=["seed", "example", "full"])
def test_export__then_load__no_difference_and_no_secret(text: str) -> None:
    put(text)
    exported = config.export()
    for secret in (
        "your-secret-key",
        "demo-secret",
        "a-key-of-more-than-twenty",
        "0123456789abcdef0123456789abcdef",
    ):
        assert secret not in exported
    assert config.diff(config.load(exported)) == []
    assert config.diff(config.load(exported), prune=True) == []
    assert config.export() == exported


@pytest.mark.django_db
def test_export__into_an_empty_database__the_same_but_for_what_is_secret() -> None:
    put(FULL)
    before, exported = config.current(), config.export()
    for model in (Route, Consumer, Service, Plan, JwtIssuer, Configuration, Revision):
        model.objects.all().delete()
    with pytest.raises(InvalidDocument, match="jwt_secret is needed the first time"):
        put(exported)
    secret = "authentication:\n  jwt_secret: 0123456789abcdef0123456789abcdef\n"
    put(
        exported.replace("authentication:\n", secret).replace(
            "  second: {}\n", "  second: {secret: fedcba9876543210fedcba9876543210}\n"
        )
    )
    after = config.current()
    for entries in (before, after):
        for (kind, _), fields in entries.items():
            fields.pop("created_at", None)
            if kind == "issuer":
                fields["secret"] = bool(fields["secret"])
    assert after == before


@pytest.mark.django_db
def test_diff__changed_and_missing__named_and_pruned_only_when_asked() -> None:
    put(EXAMPLE.read_text())
    text = SEED.replace("burst_limit: 10", "burst_limit: 20").replace(
        'target_url: "http://localhost:8001"', "service: tasks_service"
    )
    (change,) = config.diff(config.load(text))
    assert str(change) == "update plan /api/v1/tasks"
    assert change.line() == "~ plan /api/v1/tasks  burst_limit: 10 -> 20"
    with pytest.raises(InvalidDocument, match="there is no service 'tasks_service'"):  # prune would delete it
        config.diff(config.load(text), prune=True)
    text += "services: {tasks_service: {targets: ['http://localhost:8001']}}\n"
    gone = [str(change) for change in config.diff(config.load(text), prune=True)][1:]
    assert gone == [
        "delete route /api/v1/stats",
        "delete target tasks_service http://localhost:8002",
        "delete target tasks_service http://localhost:8003",
        "delete plan /api/v1/stats",
    ]


@pytest.mark.django_db
def test_diff__service_that_is_named__owns_its_targets_and_transforms() -> None:
    put(FULL)
    text = FULL.replace("      - {name: b, position: 7}\n", "").replace(
        '      - "https://93.184.216.34"\n', ""
    )
    assert [str(change) for change in config.diff(config.load(text))] == [
        "delete transform b",
        "delete target tasks https://93.184.216.34",
    ]


@pytest.mark.django_db
def test_apply__prune__deletes_what_is_not_named() -> None:
    put(EXAMPLE.read_text())
    put(SEED, prune=True)
    assert list(Route.objects.values_list("path", flat=True)) == ["/api/v1/tasks"]
    assert list(Service.objects.values_list("name", flat=True)) == ["localhost:8001"]
    put(FULL, prune=True)
    assert config.diff(config.load(FULL), prune=True) == []
    assert Configuration.objects.get().version == 3


@pytest.mark.django_db
def test_apply__state_that_an_operator_set__stays_unless_the_document_says_it() -> None:
    put(SEED)
    Target.objects.update(state="off")
    assert config.diff(config.load(SEED)) == []
    text = 'services: {"localhost:8001": {targets: [{url: "http://localhost:8001", state: active}]}}'
    assert [change.fields() for change in put(text)] == [["state"]]


@pytest.mark.django_db
def test_apply__new_secret__changes_the_issuer_and_is_not_shown() -> None:
    put(SEED)
    (change,) = put(SEED.replace("your-secret-key", "another-secret-of-32-characters!!"))
    assert change.shown() == {
        "verb": "update",
        "kind": "issuer",
        "name": "default",
        "before": {"secret": "***"},
        "after": {"secret": "***"},
    }
    assert change.line() == "~ issuer default  secret: another"
    assert JwtIssuer.objects.get().key() == b"another-secret-of-32-characters!!"


@pytest.mark.django_db
def test_apply__another_signer__the_one_before_lets_go_and_the_diff_says_so() -> None:
    put("issuers: {first: {secret: 0123456789abcdef0123456789abcdef, signs: true}}")
    assert [(str(c), c.fields()) for c in put(SEED) if c.kind == "issuer" and c.before] == [
        ("update issuer first", ["signs"])
    ]
    assert JwtIssuer.objects.get(signs=True).name == "default"
    assert config.diff(config.load(SEED)) == []


@pytest.mark.django_db
def test_apply__key_that_was_revoked__stays_so_and_is_named() -> None:
    put(SEED)
    ApiKey.objects.update(revoked_at="2026-01-01T00:00:00Z")
    assert put(SEED) == []
    assert config.stay_revoked(config.load(SEED)) == [
        "line 7: authentication.api_keys.demo-key: this key was revoked and stays so; take it out"
    ]
    assert ApiKey.objects.get().digest not in config.export()
    put("authentication: {api_keys: {demo-key: {}}}", prune=True)
    assert ApiKey.objects.get().revoked_at is not None
    put("plans: {p: {requests_per_hour: 1}}", prune=True)
    assert not ApiKey.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["deleted", "pruned"])
def test_apply__key_that_was_revoked_and_went_with_its_consumer__comes_back_as_it_was(way: str) -> None:
    keys = [f"a-key-of-more-than-20-characters-{i}" for i in range(3)]
    text = f"authentication: {{api_keys: {{{', '.join(f'c{i}: {key}' for i, key in enumerate(keys))}}}}}"
    put(text)
    revoked, rotated, _ = ApiKey.objects.order_by("consumer__name")
    changes.revoke_key(revoked, actor="tester", source="cli")
    changes.rotate_key(rotated, overlap_s=0, actor="tester", source="cli")
    rotated.refresh_from_db()
    if way == "pruned":
        put("plans: {}", prune=True)
    else:
        for consumer in Consumer.objects.all():
            changes.delete(consumer, actor="tester", source="cli")
    assert not ApiKey.objects.exists()
    (warned,) = config.stay_revoked(config.load(text))
    assert warned.startswith("line 1: authentication.api_keys.c0: this key was revoked and stays so")
    put(text)
    came = list(ApiKey.objects.order_by("consumer__name").values_list("revoked_at", "expires_at"))
    assert came == [(revoked.revoked_at, None), (None, rotated.expires_at), (None, None)]
    assert config.diff(config.load(text)) == []
    put(text.replace(keys[1], f"{{key_sha256: {{sha256: {rotated.digest}, expires: 2100-01-01}}}}"))
    assert ApiKey.objects.get(digest=rotated.digest).expires_at.year == 2100


@pytest.mark.django_db
def test_apply__key_that_ends__keeps_its_end_unless_the_document_gives_one() -> None:
    put(SEED)
    ApiKey.objects.update(expires_at="2100-01-01T00:00:00Z")
    assert put(SEED) == []
    digest = ApiKey.objects.get().digest
    text = f"authentication: {{api_keys: {{demo-key: {{key_sha256: [{{sha256: {digest}, expires: 2101-01-01}}]}}}}}}"
    assert [change.fields() for change in put(text)] == [["expires_at"]]


@pytest.mark.django_db
def test_current__two_thousand_routes__a_query_a_kind() -> None:
    service, plan = Service.objects.create(name="s"), Plan.objects.create(name="p", requests_per_hour=1)
    Route.objects.bulk_create(
        Route(name=f"/r{i}", path=f"/r{i}", service=service, plan=plan) for i in range(2000)
    )
    with CaptureQueriesContext(
        connection,
    ) as queries:
        entries = config.current()
    assert len(queries) < 12
    assert len(entries) == 2003
    assert entries["route", "/r1999"]["service"] == "s"


@pytest.mark.django_db
def test_apply__many_routes__queries_grow_by_two_a_route() -> None:
    def routes(count: int) -> str:
        rows = [
            f"  - {{path: /r{i}, service: s, rate_limit: {{requests_per_hour: 1}}}}" for i in range(count)
        ]
        return "\n".join(['services: {s: {targets: ["http://127.0.0.1:1"]}}', "routes:", *rows])

    put(routes(1))
    with CaptureQueriesContext(connection) as few:
        put(routes(11))
    with CaptureQueriesContext(connection) as many:
        put(routes(61))
    assert len(many) - len(few) == 40 * 2 * 2  # of a route and its plan: the row and its audit entry


@pytest.mark.django_db
def test_entry_of__each_row__as_current_has_it() -> None:
    put(FULL)
    entries = config.current()
    models = (Configuration, JwtIssuer, Plan, Service, Target, Consumer, ApiKey, Route, Transform)
    rows = [config.entry_of(row) for model in models for row in model.objects.all()]
    assert {(kind, name): fields for kind, name, fields in rows} == entries
    with pytest.raises(TypeError, match="no part of the configuration"):
        config.entry_of(Revision())


@pytest.mark.django_db
def test_apply__row_that_is_changed_in_place__leaves_the_defaults_alone() -> None:
    document = config.load(
        "plans: {p: {requests_per_hour: 1}}\nservices: {s: {targets: []}}\nroutes: [{path: /a, service: s}]"
    )
    with changes.change(actor="t", source="cli") as writing:
        for change in config.diff(document):
            writing.put(change.kind, change.name, change.after or {})
        row = writing.rows.find("route", "/a")
        assert isinstance(row, Route)
        row.methods.append("GET")
    assert rows.initial("route")["methods"] == []


def test_export__lists_that_entries_share__written_out_without_anchors() -> None:
    entries = config.load(
        "services: {s: {targets: []}}\nroutes: [{path: /a, service: s}, {path: /b, service: s}]"
    ).entries
    roles = ["viewer"]
    shared = {e: {**fields, "roles": roles} if e[0] == "route" else fields for e, fields in entries.items()}
    text = export.text(shared, rows.initial)
    assert "&" not in text
    assert [route["roles"] for route in yaml.safe_load(text)["routes"]] == [roles, roles]


# --- whatever the configuration, it comes back ---
_NAMES = st.sampled_from(["a", "b", "c.d", "e-f"])
_WORDS = st.lists(st.sampled_from(["read", "write", "x:y"]), unique=True, max_size=2)
_SECONDS = st.sampled_from([0.5, 1.0, 2.25, 30.0, 3600.0])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("aé:#- \n", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text("ab:~", min_size=1, max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
_OBJECTS = st.dictionaries(st.sampled_from(["headers", "yes", "1", "null"]), _JSON, max_size=2)
_EDITS = st.fixed_dictionaries(
    {}, optional={"headers": st.fixed_dictionaries({}, optional={"add": st.dictionaries(st.sampled_from(["X-A", "X-Yes"]), st.sampled_from(["yes", "1", "a: #b", "null", "- x"]), max_size=2)})}
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """As YAML has it, of a few names that refer to each other."""
    some = lambda **values: draw(st.fixed_dictionaries({}, optional=values))  # noqa: E731
    plans = {
        name: some(requests_per_hour=st.just(7), burst_limit=st.integers(1, 9), exact=st.booleans())
        | {"requests_per_minute": draw(st.integers(1, 9))}
        for name in draw(st.sets(_NAMES))
    }
    services = {
        name: some(
            strategy=st.sampled_from(["p2c", "weighted"]), connect_timeout=_SECONDS, total_timeout=_SECONDS,
            breaker=st.fixed_dictionaries({}, optional={"volume": st.integers(1, 99), "slow": _SECONDS}),
            health=st.fixed_dictionaries({}, optional={"enabled": st.booleans(), "statuses": st.just("200")}),
            fallback=st.fixed_dictionaries({}, optional={"status": st.just(200), "body": st.text("{}\"'é\n:", max_size=9)}),
        )
        | {"targets": [{"url": f"http://127.0.0.1:{port}", **some(weight=st.integers(1, 9), state=st.just("off"))} for port in draw(st.sets(st.integers(1, 3)))]}
        for name in draw(st.sets(_NAMES, min_size=1))
    }  # fmt: skip
    consumers = {
        name: some(
            roles=st.just(["viewer"]), scopes=_WORDS, enabled=st.booleans(),
            key_sha256=st.just([f"{i:064x}", {"sha256": f"{i + 8:064x}", "scopes": ["read"], "expires": "2100-01-01"}]),
        )
        for i, name in enumerate(draw(st.sets(_NAMES)))
    }  # fmt: skip
    routes = [
        some(
            methods=st.just(["GET"]), hosts=st.just(["*.example.com"]), headers=st.just({"X-V": "2"}), scopes=_WORDS,
            timeout=_SECONDS, cost=st.integers(1, 3), enabled=st.booleans(), auth_required=st.booleans(),
            plan=st.sampled_from(sorted(plans)) if plans else st.none(),
            path_kind=st.just("exact"), name=st.just(f"named-{i}"),
        )
        | {"path": f"/r/{i}", "service": draw(st.sampled_from(sorted(services)))}
        | {"transforms": [{"name": f"t{i}{j}", **some(request=_EDITS, settings=_OBJECTS, position=st.integers(0, 3))} for j in range(draw(st.integers(0, 2)))]}
        for i in range(draw(st.integers(0, 3)))
    ]  # fmt: skip
    for route in routes:
        if "plan" not in route and draw(st.booleans()):
            route["rate_limit"] = {"requests_per_hour": draw(st.integers(1, 9))}
    return {"authentication": {"api_keys": consumers}, "plans": plans, "services": services, "routes": routes}


@pytest.mark.django_db
@settings(max_examples=examples(24), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(first=documents(), second=documents())
def test_apply__any_documents_one_after_the_other__diff_is_empty_and_the_export_says_the_same(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    with transaction.atomic():
        for made in (first, second):
            text = yaml.safe_dump(made)
            put(text, prune=True)
            assert config.diff(config.load(text), prune=True) == []
            exported = config.export()
            assert config.diff(config.load(exported), prune=True) == []
            assert yaml.safe_load(exported) == yaml.safe_load(config.export())
        transaction.set_rollback(True)


# --- what the database itself holds ---
@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/admin", "/admin/x", "/gateway/health", "/api/v1/queue", "/api/v1/database/x", "api"]
)
def test_route__reserved_path__refused_by_the_database_too(path: str) -> None:
    service = Service.objects.create(name="u")
    with pytest.raises(IntegrityError), transaction.atomic():
        Route.objects.create(name="r", path=path, service=service)
    with pytest.raises(InvalidDocument):
        put(SEED.replace("/api/v1/tasks", path))


@pytest.mark.django_db
def test_route__path_next_to_a_reserved_one__accepted() -> None:
    Route.objects.create(name="r", path="/administrators", service=Service.objects.create(name="u"))


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
def test_plan__hour_alone__burst_is_its_capacity() -> None:
    (hour,) = limits(config.entry_of(Plan(name="p", requests_per_hour=100, burst_limit=5))[2])
    assert (hour.quota, hour.capacity, hour.window_s) == (100, 5.0, 3600)
