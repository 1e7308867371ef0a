"""The gateway's admin: who sees and does what, what a form writes, and that lists cost the same however long they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from foundation import roles
from foundation.models import AuditEntry
from gateway import changes, history, soundness
from gateway.models import (
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
from tests.foundation.people import client_of

from .admin_pages import CONFIRMED, NAMES, SECRET, configuration, page

pytestmark = pytest.mark.django_db


@pytest.fixture
def made() -> dict[str, Any]:
    return configuration()


def errors(answer: Any) -> dict[str, list[str]]:
    assert answer.status_code == 200, "it was saved"
    found = answer.context["adminform"].form.errors.get_json_data()
    return {field: [one["message"] for one in problems] for field, problems in found.items()}


def route_form(route: Route, **values: Any) -> dict[str, Any]:
    inline = {"transforms-TOTAL_FORMS": "0", "transforms-INITIAL_FORMS": "0"}
    return {
        "name": route.name, "path": route.path, "path_kind": "prefix", "service": route.service_id, "cost": "1",
        "host_header": "target", "enabled": "on", "auth_required": "on", "hide_credentials": "on", **inline, **values,
    }  # fmt: skip


def service_form(service: Service, targets: tuple[dict[str, Any], ...] = (), **values: Any) -> dict[str, Any]:
    fields = {
        name: "" if value is None else value
        for name, value in ((f.name, f.value_from_object(service)) for f in service._meta.concrete_fields)
        if value is not False
    }
    inline: dict[str, Any] = {
        "targets-TOTAL_FORMS": len(targets),
        "targets-INITIAL_FORMS": sum("id" in one for one in targets),
    }
    for number, one in enumerate(targets):
        inline |= {f"targets-{number}-{name}": value for name, value in one.items()}
    return {**fields, **inline, **values}


# --- who ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", [None, roles.VIEWER, roles.OPERATOR, roles.ADMIN])
def test_pages__role__looks_adds_and_deletes_as_in_the_matrix(
    role: str | None, name: str, made: dict[str, Any]
) -> None:
    row = made.get(name) or Revision.objects.first()
    client = client_of(role)
    sees, writes = role is not None, role == roles.ADMIN
    assert (client.get(page(name)).status_code == 200) is sees
    assert (client.get(page(name, row)).status_code == 200) is sees
    by_hand = name not in ("apikey", "revokedtoken", "tokencut", "revision")
    added = client.get(reverse(f"admin:gateway_{name}_add")).status_code
    assert added == (200 if writes and by_hand else 403)
    gone = client.post(page(name, row, "delete"), {})
    assert (gone.status_code == 200) is (writes and by_hand)
    changed = client.post(page(name, row), {})
    may_change = (
        (writes and by_hand) or (name == "target" and role == roles.OPERATOR) or (writes and name == "apikey")
    )
    assert (changed.status_code != 403) is may_change


@pytest.mark.parametrize("name", ["route", "consumer", "transform"])
def test_enabled__turned_by_operators__one_and_several(name: str, made: dict[str, Any]) -> None:
    row, client = made[name], client_of(roles.OPERATOR)
    disable = page(name, row, "disable")
    assert disable in client.get(page(name, row)).content.decode()
    assert client.get(disable).status_code == 200  # asks
    row.refresh_from_db()
    assert row.enabled
    client.post(disable, CONFIRMED)
    row.refresh_from_db()
    assert not row.enabled
    client.post(page(name), {"action": "enable_selected", "_selected_action": [row.pk]})
    row.refresh_from_db()
    assert row.enabled
    actors = AuditEntry.objects.filter(source="admin").values_list("action", "actor")
    assert list(actors) == [(f"{name}.update", "some-operator")] * 2
    eve = client_of(roles.VIEWER)
    assert disable not in eve.get(page(name, row)).content.decode()
    assert eve.post(disable, CONFIRMED).status_code == 403
    eve.post(page(name), {"action": "disable_selected", "_selected_action": [row.pk]})
    row.refresh_from_db()
    assert row.enabled


@pytest.mark.parametrize(
    ("action", "state"), [("turn_on", "active"), ("drain", "draining"), ("turn_off", "off")]
)
def test_target__on_drain_and_off__by_operators_one_and_several(
    action: str, state: str, made: dict[str, Any]
) -> None:
    target, client = made["target"], client_of(roles.OPERATOR)
    other = Target.objects.create(service=target.service, url="http://127.0.0.1:9102")
    Target.objects.update(state="off" if state == "active" else "active")
    answer = client.post(page("target", target, action), CONFIRMED)
    assert answer.headers["Location"] == page("target", target)
    assert Target.objects.get(pk=target.pk).state == state
    many = {"action": f"{action}_selected", "_selected_action": [target.pk, other.pk]}
    version = history.newest()
    answer = client.post(page("target"), many, follow=True)
    assert "1 changed." in answer.content.decode()  # the other one was in that state already
    assert Target.objects.get(pk=other.pk).state == state
    assert history.newest() == version + 1
    assert client_of(roles.VIEWER).post(page("target", target, action), CONFIRMED).status_code == 403


def test_target__acted_on_in_the_list__back_to_the_list_as_it_was(made: dict[str, Any]) -> None:
    client = client_of(roles.OPERATOR)
    come_from = f"http://testserver{page('target')}?state__exact=active"
    headers = {"HX-Request": "true", "HX-Current-URL": come_from}
    answer = client.post(page("target", made["target"], "drain"), CONFIRMED, headers=headers)
    assert answer.headers["HX-Redirect"] == f"{page('target')}?state__exact=active"
    strange = {"HX-Request": "true", "HX-Current-URL": "https://elsewhere.example/x"}
    answer = client.post(page("target", made["target"], "turn_on"), CONFIRMED, headers=strange)
    assert answer.headers["HX-Redirect"] == page("target", made["target"])


def test_target__operator__weight_but_no_url(made: dict[str, Any]) -> None:
    target, client = made["target"], client_of(roles.OPERATOR)
    form = {"url": "http://127.0.0.1:1", "weight": "7", "state": "active"}
    assert client.post(page("target", target), form).status_code == 302
    target.refresh_from_db()
    assert (target.url, target.weight) == ("http://127.0.0.1:9101", 7)


def test_target__whose_url_is_no_longer_allowed__told_and_not_written(made: dict[str, Any]) -> None:
    target, client = made["target"], client_of(roles.OPERATOR)
    Target.objects.update(url="http://169.254.169.254:80")
    answer = client.post(page("target", target), {"weight": "7", "state": "active"}, follow=True)
    assert "metadata" in answer.content.decode()
    assert Target.objects.get().weight == 1


# --- what is written ---------------------------------------------------------------------------------------------------
def test_route__saved__audited_as_one_revision(made: dict[str, Any]) -> None:
    route, client, version = made["route"], client_of(roles.ADMIN), history.newest()
    form = route_form(
        route, methods="get, post", timeout_s="3", hosts="API.example.com", headers="X-Version: 2"
    )
    answer = client.post(page("route", route), form, headers={"X-Request-Id": "r-1"})
    assert answer.status_code == 302, errors(answer)
    route.refresh_from_db()
    assert (route.methods, route.hosts, route.headers) == (
        ["GET", "POST"],
        ["api.example.com"],
        {"X-Version": "2"},
    )
    entry = AuditEntry.objects.get(source="admin")
    assert (entry.action, entry.actor, entry.request_id) == ("route.update", "some-admin", "r-1")
    assert entry.after["timeout_s"] == 3.0
    assert history.newest() == version + 1


def test_route__without_a_name__is_named_by_its_path(made: dict[str, Any]) -> None:
    client = client_of(roles.ADMIN)
    client.post(reverse("admin:gateway_route_add"), route_form(made["route"], name="", path="/new/{id}"))
    assert Route.objects.get(path="/new/{id}").name == "/new/{id}"


@pytest.mark.parametrize(
    ("values", "field", "told"),
    [
        ({"path": "/admin/x"}, "path", "/admin"),
        ({"path": "nonsense"}, "path", "/"),
        ({"methods": "GET, FETCH"}, "methods", "'FETCH' is not a method"),
        ({"hosts": "http://a"}, "hosts", "is not a host"),
        ({"headers": "no colon"}, "headers", "Line 1 is not a header"),
        ({"headers": "X-A: 1\nx-a: 2"}, "headers", "stands there twice"),
        ({"roles": "king"}, "roles", "'king' is not a role"),
        ({"timeout_s": "-1"}, "timeout_s", "0.05"),
        ({"service": ""}, "service", "required"),
    ],
)
def test_route__bad_value__said_at_its_field(
    made: dict[str, Any], values: dict[str, str], field: str, told: str
) -> None:
    answer = client_of(roles.ADMIN).post(page("route", made["route"]), route_form(made["route"], **values))
    found = errors(answer)
    assert list(found) == [field]
    assert told in " ".join(found[field])
    assert not AuditEntry.objects.filter(source="admin").exists()


def test_service__with_its_targets__one_revision(made: dict[str, Any]) -> None:
    service, target, version = made["service"], made["target"], history.newest()
    inlines = (
        {"id": target.pk, "service": service.pk, "url": target.url, "weight": "3", "state": "draining"},
        {"service": service.pk, "url": "http://127.0.0.1:9102", "weight": "1", "state": "active"},
    )
    client = client_of(roles.ADMIN)
    answer = client.post(page("service", service), service_form(service, inlines, retries="4"))
    assert answer.status_code == 302, errors(answer)
    assert list(service.targets.values_list("weight", "state")) == [(3, "draining"), (1, "active")]
    assert history.newest() == version + 1
    (revision,) = Revision.objects.filter(version=version + 1)
    assert {(one["kind"], one["name"]) for one in revision.changes} == {
        ("service", "billing"),
        ("target", "billing http://127.0.0.1:9101"),
        ("target", "billing http://127.0.0.1:9102"),
    }
    gone = ({**inlines[0], "DELETE": "on"},)
    client.post(page("service", service), service_form(service, gone, retries="4"))
    assert [one.url for one in service.targets.all()] == ["http://127.0.0.1:9102"]


def test_service__target_of_the_cloud_or_twice__refused_and_nothing_written(made: dict[str, Any]) -> None:
    service, client, version = made["service"], client_of(roles.ADMIN), history.newest()
    bad = ({"service": service.pk, "url": "http://169.254.169.254:80", "weight": "1", "state": "active"},)
    answer = client.post(page("service", service), service_form(service, bad))
    assert b"metadata" in answer.content
    twice = ({**bad[0], "url": "http://127.0.0.1:9101"},)
    client.post(page("service", service), service_form(service, twice), follow=True)
    assert (service.targets.count(), history.newest()) == (1, version)


def test_service__hash_without_a_key__said_at_its_field(made: dict[str, Any]) -> None:
    form = service_form(made["service"], strategy="consistent_hash")
    assert list(errors(client_of(roles.ADMIN).post(page("service", made["service"]), form))) == ["hash_on"]


def test_plan__that_the_database_alone_refuses__told_and_not_written(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("validate_unique", "validate_constraints"):
        monkeypatch.setattr(Plan, check, lambda *_, **__: None)
    form = {"name": "gold", "requests_per_minute": "1", "counted_by": "caller"}
    answer = client_of(roles.ADMIN).post(reverse("admin:gateway_plan_add"), form, follow=True)
    assert "the database refuses it" in answer.content.decode()
    assert Plan.objects.count() == 1


def test_plan__in_use__kept_and_told(made: dict[str, Any]) -> None:
    client = client_of(roles.ADMIN)
    many = {"action": "delete_selected", "_selected_action": [made["plan"].pk], "post": "yes"}
    client.post(page("plan"), many)
    client.post(page("plan", made["plan"], "delete"), {"post": "yes"})
    assert Plan.objects.filter(pk=made["plan"].pk).exists()


def test_consumer__deleted__with_its_keys_in_one_revision(made: dict[str, Any]) -> None:
    version = history.newest()
    client_of(roles.ADMIN).post(page("consumer", made["consumer"], "delete"), {"post": "yes"})
    assert not Consumer.objects.exists()
    assert history.newest() == version + 1
    assert len(Revision.objects.get(version=version + 1).changes) == 2


def test_settings__header_of_api_keys__checked_and_versioned(made: dict[str, Any]) -> None:
    client, version = client_of(roles.ADMIN), history.newest()
    row = Configuration.objects.get()
    assert b"X-API-Key" in client.get(page("configuration")).content  # its list is the page of its only row
    for url in (page("configuration"), page("configuration", row)):
        assert list(errors(client.post(url, {"api_key_header": "no header"}))) == ["api_key_header"]
    assert client.post(page("configuration"), {"api_key_header": "X-Key"}).status_code == 302
    row.refresh_from_db()
    assert (row.api_key_header, row.version) == ("X-Key", version + 1)


# --- transforms --------------------------------------------------------------------------------------------------------
def transform_form(transform: Transform, **values: Any) -> dict[str, Any]:
    return {
        "name": transform.name, "route": transform.route_id, "position": "0", "on_failure": "continue",
        "enabled": "on", **values,
    }  # fmt: skip


def test_transform__specs__kept_as_json_and_told_what_is_wrong(made: dict[str, Any]) -> None:
    transform, client = made["transform"], client_of(roles.ADMIN)
    shown = client.get(page("transform", transform)).content.decode()
    assert "&quot;X-Team&quot;: &quot;a&quot;" in shown
    good = {"request": "", "response": json.dumps({"headers": {"remove": ["Server"]}})}
    assert client.post(page("transform", transform), transform_form(transform, **good)).status_code == 302
    transform.refresh_from_db()
    assert (transform.request, transform.response) == ({}, {"headers": {"remove": ["Server"]}})
    for value, told in (
        ("{", "This is not JSON"),
        ("[1]", "a JSON object"),
        ('{"a":' * 5_000, "nested too deep"),
        ('{"body": {"add": {"a": NaN}}}', "is not a number that JSON has"),
        ('{"heders": {}}', "did you mean"),
        ('{"headers": {"set": {"X-Consumer-Id": "1"}}}', "x-consumer-"),
    ):
        found = errors(client.post(page("transform", transform), transform_form(transform, request=value)))
        assert list(found) == ["request"]
        assert told.lower() in str(found["request"]).lower()


def test_transform__plugin__one_that_the_settings_name(
    made: dict[str, Any], gateway_conf: Callable[..., None]
) -> None:
    transform, client = made["transform"], client_of(roles.ADMIN)
    unknown = transform_form(transform, plugin="os.system")
    assert list(errors(client.post(page("transform", transform), unknown))) == ["plugin"]
    gateway_conf(PLUGINS=("gateway.admin.nothing.Here",))
    broken = transform_form(transform, plugin="gateway.admin.nothing.Here")
    assert "plugin" in errors(client.post(page("transform", transform), broken))


def test_transform__on_its_routes_page__saved_with_it(made: dict[str, Any]) -> None:
    route = made["route"]
    inline = {
        "transforms-TOTAL_FORMS": "1", "transforms-0-name": "tag", "transforms-0-position": "3",
        "transforms-0-request": '{"headers": {"set": {"X-B": "1"}}}', "transforms-0-on_failure": "continue",
        "transforms-0-enabled": "on", "transforms-0-route": route.pk,
    }  # fmt: skip
    client = client_of(roles.ADMIN)
    answer = client.post(page("route", route), route_form(route, **inline))
    assert answer.status_code == 302, answer.context["errors"]
    made_there = Transform.objects.get(name="tag")
    assert (made_there.route, made_there.position) == (route, 3)


# --- issuers -----------------------------------------------------------------------------------------------------------
def issuer_form(**values: Any) -> dict[str, Any]:
    return {
        "name": "own", "algorithm": "HS256", "expiry_s": "60", "enabled": "on", "roles_claim": "roles",
        "scopes_claim": "scope", **values,
    }  # fmt: skip


def test_issuer__secret__goes_in_and_never_comes_out(made: dict[str, Any]) -> None:
    issuer, client = made["jwtissuer"], client_of(roles.ADMIN)
    url = page("jwtissuer", issuer)
    assert SECRET not in client.get(url).content.decode()
    assert list(errors(client.post(url, issuer_form(new_secret="short")))) == ["new_secret"]
    answer = client.post(url, issuer_form(new_secret="n" * 31 + "!"))
    assert answer.status_code == 302, errors(answer)
    issuer.refresh_from_db()
    assert issuer.key() == b"n" * 31 + b"!"
    client.post(url, issuer_form())
    issuer.refresh_from_db()
    assert issuer.key() == b"n" * 31 + b"!"
    told = str(list(AuditEntry.objects.values())) + client.get(page("revision")).content.decode()
    assert "nnnn" not in told
    assert issuer.secret not in told


def test_issuer__signs__takes_it_over_from_the_other(made: dict[str, Any]) -> None:
    client, version = client_of(roles.ADMIN), None
    client.post(page("jwtissuer", made["jwtissuer"]), issuer_form(signing="on"))
    version = history.newest()
    second = issuer_form(name="second", new_secret="m" * 31 + "!", signing="on")
    answer = client.post(reverse("admin:gateway_jwtissuer_add"), second)
    assert answer.status_code == 302, errors(answer)
    assert list(JwtIssuer.objects.filter(signs=True).values_list("name", flat=True)) == ["second"]
    assert history.newest() == version + 1


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"algorithm": "RS256"}, "public_key"),
        ({"algorithm": "RS256", "public_key": "nonsense"}, "public_key"),
        ({"algorithm": "RS256", "public_key": "x", "jwks_url": "https://example.com/k"}, "public_key"),
        ({"algorithm": "RS256", "jwks_url": "http://169.254.169.254/k"}, "jwks_url"),
        ({"jwks_url": "https://example.com/k"}, "jwks_url"),
        ({"algorithm": "RS256", "jwks_url": "https://example.com/k", "signing": "on"}, "signing"),
        ({"leeway_s": "-1"}, "leeway_s"),
    ],
)
def test_issuer__keys_that_do_not_fit__said_at_their_field(
    made: dict[str, Any], values: dict[str, str], field: str
) -> None:
    found = errors(client_of(roles.ADMIN).post(page("jwtissuer", made["jwtissuer"]), issuer_form(**values)))
    assert field in found


# --- lists cost the same, however long ---------------------------------------------------------------------------------
def test_lists__four_times_the_rows__no_more_queries() -> None:
    client = client_of(roles.VIEWER)
    costs: list[dict[str, int]] = []
    for numbers in (range(7), range(7, 28)):
        for number in numbers:
            configuration(f"-{number}")
        soundness.look()  # at all of it, once a version, for the page that is first to ask
        costs.append({name: _queries(client, page(name)) for name in NAMES})
    assert costs[0] == costs[1]
    assert max(costs[1].values()) <= 12


def _queries(client: Any, url: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(url).status_code == 200
    return len(queries)


def test_search_and_filters__narrow_the_lists(made: dict[str, Any]) -> None:
    configuration("-other")
    client = client_of(roles.VIEWER)
    for name, query, count in (
        ("route", "q=invoices-other", 1),
        ("route", f"service__id__exact={made['service'].pk}", 1),
        ("route", "enabled__exact=0", 0),
        ("target", "state__exact=active", 2),
        ("service", "q=9101", 2),
        ("apikey", "state=active", 2),
        ("apikey", "state=revoked", 0),
        ("consumer", f"q={made['apikey'].prefix}", 1),
        ("plan", "q=other", 1),
        ("revision", "source__exact=cli", 16),
    ):
        answer = client.get(f"{page(name)}?{query}")
        assert answer.context["cl"].result_count == count, (name, query)


def test_menu__each_entry__leads_somewhere_for_a_viewer(made: dict[str, Any]) -> None:
    from brain_project.admin_menu import GROUPS

    client = client_of(roles.VIEWER)
    for _, _, name in dict(GROUPS)["Gateway"]:
        assert client.get(reverse(f"admin:{name}_changelist")).status_code == 200


# --- two at a time -----------------------------------------------------------------------------------------------------
def seen(client: Client, where: str) -> str:
    found = re.search(r'name="_seen" value="([^"]+)"', client.get(where).content.decode())
    assert found
    return found[1]


def test_form__drained_meanwhile__refused_by_name_and_saved_when_it_is_said_again(
    made: dict[str, Any],
) -> None:
    service, target, client = made["service"], made["target"], client_of(roles.ADMIN)
    where = page("service", service)
    as_it_was = {"id": target.pk, "service": service.pk, "url": target.url, "weight": "1", "state": "active"}
    form = service_form(service, (as_it_was,), retries="7", _seen=seen(client, where))
    changes.set_target_state(target, "draining", actor="olga", source="api")
    refused = client.post(where, form)
    (told,) = errors(refused)["__all__"]
    assert told.startswith("olga changed it since you opened this page")
    assert page("revision", Revision.objects.first()) in told
    service.refresh_from_db(), target.refresh_from_db()
    assert (service.retries, target.state) == (2, "draining")
    again = re.search(r'name="_seen" value="([^"]+)"', refused.content.decode())
    assert again
    assert client.post(where, form | {"_seen": again[1]}).status_code == 302
    service.refresh_from_db(), target.refresh_from_db()
    assert (service.retries, target.state) == (7, "active")


def test_form__something_else_changed_meanwhile__saved(made: dict[str, Any]) -> None:
    client, route = client_of(roles.ADMIN), made["route"]
    form = route_form(route, cost="3", _seen=seen(client, page("route", route)))
    changes.set_target_state(made["target"], "off", actor="olga", source="api")
    changes.issue_key(made["consumer"], actor="olga", source="api")
    assert client.post(page("route", route), form | {"plan": made["plan"].pk}).status_code == 302


def test_turned__changed_between_the_look_and_the_write__the_change_stays(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    route, client = made["route"], client_of(roles.OPERATOR)

    def slow(*rows: Any) -> None:  # names that take their time, while somebody else is quick
        Route.objects.filter(pk=route.pk).update(cost=9)

    monkeypatch.setattr(changes, "look_up_names", slow)
    client.post(page("route"), {"action": "disable_selected", "_selected_action": [route.pk]})
    route.refresh_from_db()
    assert (route.cost, route.enabled) == (9, False)
