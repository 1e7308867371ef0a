"""What could not be loaded is refused when it is saved: in the field's words, through every door."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from foundation import roles, url_guard
from gateway import changes, config, history, lookups, secret_box, trial
from gateway.breaker import CLOSED, Breaker
from gateway.errors import InvalidDocument, RollbackRefused
from gateway.living import policy
from gateway.models import JwtIssuer, Route, Service, Target, Transform
from gateway.rows import Rows
from tests.foundation.people import client_of

from . import api_rows as rows
from .api_rows import TRACE, problem, send
from .client import eventually
from .documents import put

pytestmark = pytest.mark.django_db

DEEP = "tests.gateway.documents.Deep"
NOT_PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
# noun of the API, field, value, what is said, and where the document has it
WRONG: list[tuple[str, str, Any, str, str]] = [
    ("services", "tls_ca", NOT_PEM, "not certificates in PEM", "services.billing.tls.ca"),
    ("services", "tls_ca", "\u202e", "PEM is ASCII", "services.billing.tls.ca"),
    ("services", "tls_server_name", "a b", "A host name", "services.billing.tls.server_name"),
    ("services", "health_path", "/x HTTP/1.1\r\nHost: evil", "A path such as /healthz", "services.billing.health.path"),
    ("services", "health_statuses", "400-200", "not a status or a range", "services.billing.health.statuses"),
    ("services", "fallback_type", "a/b\r\nX: 1", "Visible ASCII", "services.billing.fallback.type"),
    ("services", "hash_on", "moon", "Write ip, header:NAME", "services.billing.hash_on"),
    ("targets", "url", "HTTP://127.0.0.1:9001", "write 'HTTP' in lower case", "services.billing.targets[0]"),
    ("routes", "path", "/a(", "not a pattern that RE2 takes", "routes[0].path"),
    ("transforms", "request", {"haeders": {}}, "did you mean 'headers'", "transforms[0].request"),
    ("transforms", "response", {"status": {"map": {"404": 204}}}, "status", "transforms[0].response"),
    ("transforms", "request", {"query": {"set": {"a": "{path.no}"}}}, "has no {no}", "transforms[0].request"),
    ("transforms", "plugin", "os.system", "is not in BRAIN['GATEWAY']['PLUGINS']", "transforms[0].plugin"),
    ("transforms", "settings", {"deep": 1}, "does not take them", "transforms[0].settings"),
]  # fmt: skip


@pytest.fixture
def stored() -> dict[str, Any]:
    """A row of each noun."""
    billing = rows.service()
    route = rows.route(billing, path="/a", path_kind="regex")
    return {
        "services": billing,
        "targets": rows.target(billing),
        "routes": route,
        "transforms": rows.transform(route, plugin=DEEP, settings={"depth": []}),
    }


def in_yaml(noun: str, field: str, value: Any) -> str:
    given = {(noun, field): value}

    def of(noun: str, field: str, usual: Any) -> Any:
        return given.get((noun, field), usual)

    transform = {
        "request": of("transforms", "request", {}), "response": of("transforms", "response", {}),
        "plugin": of("transforms", "plugin", DEEP), "settings": of("transforms", "settings", {"depth": []}),
    }  # fmt: skip
    service = {
        "targets": [of("targets", "url", "http://127.0.0.1:9001")], "hash_on": of("services", "hash_on", ""),
        "tls": {"ca": of("services", "tls_ca", ""), "server_name": of("services", "tls_server_name", "")},
        "health": {"path": of("services", "health_path", ""), "statuses": of("services", "health_statuses", "200")},
        "fallback": {"type": of("services", "fallback_type", "a/b")},
    }  # fmt: skip
    route = {
        "name": "/invoices", "path": of("routes", "path", "/a"), "path_kind": "regex", "service": "billing",
        "transforms": [transform],
    }  # fmt: skip
    return json.dumps({"services": {"billing": service}, "routes": [route]})


@pytest.mark.parametrize(("noun", "field", "value", "told", "at"), WRONG)
def test_wrong_value__row_api_and_yaml__refused_at_its_field(
    stored: dict[str, Any], noun: str, field: str, value: Any, told: str, at: str
) -> None:
    version = history.newest()
    row = stored[noun]
    answer = send(client_of(roles.ADMIN), "PATCH", f"{noun}/{row.pk}", {field: value})
    (error,) = problem(answer, 400)["errors"][:1]
    assert (error["pointer"].split("/")[1], told in str(error)) == (field, True), error
    with pytest.raises(InvalidDocument) as refused:
        config.load(in_yaml(noun, field, value))
    assert any(at in one and told in one for one in refused.value.problems), refused.value.problems
    setattr(row, field, value)
    with pytest.raises(ValidationError) as caught:
        changes.save(row, **TRACE)
    assert field in caught.value.message_dict
    assert history.newest() == version


@pytest.mark.parametrize(
    "value",
    [str(2**63), "1e400", r'"\u0000"', r'"\ud800"', '{"\\u0000": 1}', "[" * 40 + "]" * 40],
    ids=["65 bits", "infinity", "NUL", "surrogate", "key", "deep"],
)
def test_json__what_a_database_or_a_copy_cannot_hold__refused_at_its_field(
    stored: dict[str, Any], value: str
) -> None:
    where = f"{rows.BASE}/transforms/{stored['transforms'].pk}"
    body = f'{{"plugin": "", "settings": {{"a": {value}}}}}'
    answer = client_of(roles.ADMIN).patch(where, body, content_type="application/json")
    (error,) = problem(answer, 400)["errors"]
    assert error["pointer"].split("/")[1] == "settings"


def test_document__the_same_with_good_values__loads() -> None:
    assert put(in_yaml("", "", None))


def test_route__path_that_loses_a_placeholder_of_its_transformations__refused_through_every_door() -> None:
    route = rows.route(rows.service(), path="/a/{id}", path_kind="template")
    rows.transform(route, request={"headers": {"set": {"X-Id": "{path.id}"}}})
    answer = send(client_of(roles.ADMIN), "PATCH", f"routes/{route.pk}", {"path": "/a/{name}"})
    (error,) = problem(answer, 400)["errors"]
    assert error["pointer"] == "/path"
    assert "transform stamp: request.headers.set.X-Id: the route's path has no {id}" in str(error)
    document = config.export().replace("/a/{id}", "/a/{name}")
    with pytest.raises(InvalidDocument, match=r"routes\[0\].transforms\[0\].request: .*has no {id}"):
        config.load(document)
    route.path = "/a/{id}/more"
    changes.save(route, **TRACE)


def test_change__what_only_the_whole_shows__refused_at_its_end_and_nothing_is_stored() -> None:
    route = rows.route(rows.service(), path="/a/{id}", path_kind="template")
    transform = rows.transform(route, request={"headers": {"set": {"X-Id": "{path.id}"}}})
    version = history.newest()
    with (
        pytest.raises(ValidationError, match="transform stamp: .*has no {id}"),
        changes.change(**TRACE) as writing,
    ):
        # As apply and rollback write: each entry was looked at by itself.
        writing.put("route", route.name, {"path": "/b"})
    assert history.newest() == version
    assert Route.objects.get(pk=route.pk).path == "/a/{id}"
    with changes.change(**TRACE) as writing:
        writing.put("route", route.name, {"path": "/b"})
        writing.put("transform", transform.name, {"request": {}})
    assert history.newest() == version + 1


def test_change__request_costs_more_than_its_plan_ever_holds__refused_on_either_side() -> None:
    plan = rows.plan("p", requests_per_minute=60, requests_per_hour=1000, burst_limit=10)
    route = rows.route(rows.service(), plan=plan, cost=10)
    route.cost = 11
    with pytest.raises(ValidationError, match="costs 11, its plan p never holds more than 10") as caught:
        changes.save(route, **TRACE)
    assert list(caught.value.message_dict) == ["cost"]
    with (
        pytest.raises(ValidationError, match="costs 10, its plan p never holds more than 9"),
        changes.change(**TRACE) as writing,
    ):
        writing.put("plan", "p", {"burst_limit": 9})
    with changes.change(**TRACE) as writing:  # both at once, in whichever order
        writing.put("plan", "p", {"burst_limit": 5})
        writing.put("route", route.name, {"cost": 5})
    assert Route.objects.get(pk=route.pk).cost == 5


def test_trial__what_no_process_could_load__refused_with_the_name_of_it() -> None:
    service = rows.service()
    made = [
        config.Change(
            "service", "billing", None, {**_fields("service", "billing"), "tls_ca": "", "strategy": "best"}
        ),
    ]
    with pytest.raises(ValidationError, match="could not load this: service billing: "):
        trial.check(made, Rows())
    made = [
        config.Change("service", "billing", None, {**_fields("service", service.name), "hash_on": "moon"})
    ]
    with pytest.raises(ValidationError, match="service billing: 'moon' is not ip"):
        trial.check(made, Rows())
    trial.check([], Rows())


def _fields(kind: str, name: str) -> Any:
    return config.current()[kind, name]


def test_rollback__to_what_today_s_settings_refuse__refused_by_name(
    gateway_conf: Callable[..., None],
) -> None:
    gateway_conf(PLUGINS=(DEEP,))
    route = rows.route(rows.service())
    transform = rows.transform(route, plugin=DEEP, settings={"depth": []})
    then = history.newest()
    changes.delete(transform, **TRACE)
    gateway_conf(PLUGINS=())
    with pytest.raises(
        RollbackRefused, match=r"transform stamp: .*is not in BRAIN\['GATEWAY'\]\['PLUGINS'\]"
    ):
        history.rollback(then, **TRACE)
    assert not Transform.objects.exists()


# --- issuers ---------------------------------------------------------------------------------------------------------
PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    ("fields", "at", "told"),
    [
        ({"algorithm": "RS256", "public_key": PEM}, "public_key", "RS256 needs an RSA public key"),
        ({"algorithm": "EdDSA", "public_key": "no key"}, "public_key", "needs a public key in PEM form"),
        ({"algorithm": "EdDSA"}, "public_key", "needs a public key or a JWKS URL"),
        (
            {"algorithm": "EdDSA", "public_key": PEM, "jwks_url": "https://1.1.1.1/k"},
            "public_key",
            "and not both",
        ),
        ({"algorithm": "EdDSA", "jwks_url": "http://1.1.1.1/k"}, "jwks_url", "keys come over https"),
        ({"algorithm": "EdDSA", "jwks_url": "https://169.254.169.254/k"}, "jwks_url", "link-local"),
        ({"algorithm": "HS256", "secret": "", "public_key": PEM}, "public_key", "Goes with no HS256"),
        ({"algorithm": "HS256", "secret": ""}, "__all__", "HS256 needs a secret"),
        ({"algorithm": "HS256", "secret": "not sealed"}, "__all__", "cannot be opened"),
    ],
)
def test_issuer__keys_that_do_not_fit__refused_at_their_field(
    fields: dict[str, Any], at: str, told: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        changes.save(JwtIssuer(name="partner", **fields), **TRACE)
    assert told in caught.value.message_dict[at][0]


def test_issuer__good_keys__saved() -> None:
    changes.save(JwtIssuer(name="a", algorithm="EdDSA", public_key=PEM), **TRACE)
    changes.save(JwtIssuer(name="b", algorithm="EdDSA", jwks_url="https://1.1.1.1/k"), **TRACE)
    changes.save(JwtIssuer(name="c", algorithm="EdDSA", jwks_url="http://no-such-name.invalid/k"), **TRACE)


def test_issuer__weak_secret__refused_in_production_only(settings: Any) -> None:
    row = JwtIssuer(name="weak", secret=secret_box.seal("secret"))
    changes.save(row, **TRACE)
    settings.PRODUCTION = True
    row.audience = "us"
    with pytest.raises(ValidationError, match="a secret that everybody knows"):
        changes.save(row, **TRACE)


def test_issuer__one_too_many__refused_by_row_and_by_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.models.issuer.MOST_ENABLED", 2)
    monkeypatch.setattr("gateway.trial.MOST_ENABLED", 2)
    for name in "ab":
        rows.issuer(name)
    with pytest.raises(ValidationError, match="At most 2 issuers"):
        rows.issuer("c")
    rows.issuer("c", enabled=False)
    secret = "0123456789abcdef0123456789abcdef"
    with pytest.raises(InvalidDocument, match="At most 2 issuers"):
        put(f"issuers: {{d: {{secret: {secret}}}}}")
    assert JwtIssuer.objects.count() == 3


# --- what can still be turned off ------------------------------------------------------------------------------------
def test_turn_off__what_the_settings_came_to_refuse__goes_and_on_again_does_not(
    gateway_conf: Callable[..., None], settings: Any
) -> None:
    gateway_conf(PLUGINS=(DEEP,), UNIX_SOCKET_DIRS=("/run",))
    service = rows.service()
    transform = rows.transform(rows.route(service), plugin=DEEP, settings={"depth": []})
    target = rows.target(service, "unix:/run/x.sock")
    issuer = rows.issuer()
    gateway_conf(PLUGINS=(), UNIX_SOCKET_DIRS=())
    settings.SECRET_KEY = "another"
    changes.set_target_state(target, "off", **TRACE)
    transform.enabled = issuer.enabled = False
    changes.save(transform, **TRACE)
    changes.save(issuer, **TRACE)
    with pytest.raises(ValidationError, match="UNIX_SOCKET_DIRS"):
        changes.set_target_state(target, "active", **TRACE)
    transform.enabled = True
    with pytest.raises(ValidationError, match="PLUGINS"):
        changes.save(transform, **TRACE)


def test_service__breaker_ratio_of_0__can_be_loaded_and_never_opens_for_failures() -> None:
    service = rows.service(breaker_failure_ratio=0, breaker_slow_ratio=0, breaker_volume=1)
    breaker = Breaker(policy(_fields("service", service.name)))
    for _ in range(50):
        breaker.failed(breaker.epoch, 1.0)
    assert breaker.state == CLOSED


# --- names -----------------------------------------------------------------------------------------------------------
class Slow:
    """A resolver that answers when it is told to, or when so many wait for it at a time."""

    def __init__(self, at_once: int) -> None:
        self.answers, self.asked, self._at_once, self._now = threading.Event(), 0, at_once, 0
        self._guard = threading.Lock()

    def __call__(self, host: str, port: int) -> list[str]:
        with self._guard:
            self.asked += 1
            self._now += 1
            if self._now >= self._at_once:
                self.answers.set()
        assert self.answers.wait(30), "they come one after the other"
        with self._guard:
            self._now -= 1
        if host.startswith("no"):
            raise url_guard.Unresolved(f"{host} does not resolve")
        return ["10.0.0.1"]


def urls(count: int, name: str = "no") -> list[str]:
    return [f"http://{name}{i}.test:80" for i in range(count)]


def test_ahead__a_hundred_names_that_do_not_answer__together_and_remembered() -> None:
    slow = Slow(at_once=11)
    found = lookups.Lookups(slow)
    others = ["unix:/run/x", "http://10.0.0.1:80", "http://[::1]:80", "nonsense"]
    found.ahead([*urls(100), *urls(100), *others], within_s=60.0)
    assert (slow.asked, slow.answers.is_set()) == (100, True)
    assert found.addresses("no7.test", 80) == ()
    assert slow.asked == 100


def test_ahead__names_that_hang__given_up_after_the_time_for_all_and_not_waited_for_again() -> None:
    slow = Slow(at_once=41)  # than there are: it hangs until it is told
    found = lookups.Lookups(slow)
    found.ahead(urls(40, "yes"), within_s=0.05)
    assert found.addresses("yes1.test", 80) == ()
    slow.answers.set()
    assert eventually(lambda: found.addresses("yes1.test", 80) == ("10.0.0.1",))  # its thread came back
    assert eventually(lambda: slow.asked == 40)  # each once


def test_addresses__after_a_while__looked_up_again() -> None:
    now = 0.0
    slow = Slow(at_once=1)
    found = lookups.Lookups(slow, lambda: now)
    assert found.addresses("YES.test", 80) == found.addresses("yes.test", 80) == ("10.0.0.1",)
    now = lookups.REMEMBERED_S + 1
    found.addresses("yes.test", 80)
    assert slow.asked == 2


def test_save_and_rollback__names__looked_up_before_the_configuration_is_locked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locked: list[bool] = []
    real, is_locked = changes._locked, False

    def lock() -> Any:
        nonlocal is_locked
        is_locked = True
        return real()

    def resolve(host: str, port: int) -> list[str]:
        locked.append(is_locked)
        raise url_guard.Unresolved(host)

    @contextlib.contextmanager
    def told() -> Iterator[None]:
        nonlocal is_locked
        is_locked = True
        yield

    monkeypatch.setattr(changes, "_locked", lock)
    monkeypatch.setattr("gateway.api.rows.told", told)  # then the API locks
    found = lookups.Lookups(resolve)
    monkeypatch.setattr(lookups, "ahead", found.ahead)
    monkeypatch.setattr(lookups, "addresses", found.addresses)
    service, client = Service.objects.create(name="s"), client_of(roles.ADMIN)
    changes.save(Target(service=service, url="http://one.test"), **TRACE)
    is_locked = False
    then = history.newest()
    changes.delete(Target.objects.get(), **TRACE)
    found._known.clear()
    is_locked = False
    history.rollback(then, **TRACE)
    is_locked = False
    answer = send(client, "POST", "services/s/targets", {"url": "http://two.test"})
    assert answer.status_code == 201, answer.content
    is_locked = False
    put('services: {t: {targets: ["http://three.test"]}}')
    is_locked = False
    page = reverse("admin:gateway_target_add")
    form = {"service": service.pk, "url": "http://four.test", "weight": "1", "state": "active"}
    assert client.post(page, form).status_code == 302
    found._known.clear()
    is_locked = False
    changes.set_target_state(Target.objects.get(url="http://four.test"), "draining", **TRACE)
    assert locked == [False] * 6


def test_target__name_that_resolves_to_what_is_forbidden__refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = lookups.Lookups(lambda host, port: ["169.254.169.254"])
    monkeypatch.setattr(lookups, "ahead", found.ahead)
    monkeypatch.setattr(lookups, "addresses", found.addresses)
    with pytest.raises(ValidationError, match=r"169\.254\.169\.254 is a link-local"):
        changes.save(Target(service=rows.service(), url="http://one.test"), **TRACE)
