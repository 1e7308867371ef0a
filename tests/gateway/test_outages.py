"""What of the configuration cannot be used is out of service; the rest serves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.test import Client as DjangoClient
from django.test import override_settings
from structlog.testing import capture_logs

from brain_project import health
from gateway import changes, soundness, tester, tokens
from gateway.conf import conf
from gateway.holder import Holder
from gateway.models import JwtIssuer, Route, Transform

from .client import Answer, Client, request
from .documents import put
from .odd_upstream import running
from .test_command import ROOT, edge, run

KEY = "a-key-of-more-than-twenty-characters"
SECRET = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
PLUGIN = "a_teams_guards.Guard"


class Guard:
    """Turns everybody away."""

    def on_request(self, request: Any) -> Any: ...


@pytest.fixture
def plugin(gateway_conf: Any) -> Iterator[Any]:
    """A plugin that is in the settings, until the test says otherwise: plugin(PLUGINS=())."""
    module = ModuleType("a_teams_guards")
    module.Guard = Guard  # type: ignore[attr-defined]
    sys.modules["a_teams_guards"] = module
    gateway_conf(PLUGINS=(PLUGIN,))
    yield gateway_conf
    sys.modules.pop("a_teams_guards", None)


def document(target: str = "127.0.0.1:1", plugin: str = PLUGIN) -> str:
    return f"""
authentication: {{jwt_secret: "{SECRET}", api_keys: {{robot: {{key: "{KEY}", roles: [operator]}}}}}}
issuers:
  partner: {{algorithm: HS256, secret: "{OTHER}", issuer: partner}}
services: {{one: {{targets: ["http://{target}"]}}}}
routes:
  - {{path: /guarded, service: one, auth_required: false, transforms: [{{name: guard, plugin: "{plugin}", on_failure: refuse}}]}}
  - {{path: /svc, service: one}}
"""


def loaded() -> Holder:
    holder = Holder()
    assert holder.refresh()
    return holder


@pytest.mark.django_db
@pytest.mark.parametrize("cause", ["taken out of the settings", "not to be imported", "refuses its settings"])
def test_compile__plugin_is_gone__its_route_alone_is_out_of_service(cause: str, plugin: Any) -> None:
    put(document())
    changes.bump()
    if cause == "taken out of the settings":
        plugin(PLUGINS=())
    elif cause == "not to be imported":
        sys.modules["a_teams_guards"] = None  # type: ignore[assignment]  (what makes an import fail)
    else:
        Transform.objects.update(settings={"size": 1})
    with capture_logs() as said:
        found = loaded().snapshot
    assert [(one.kind, one.name, one.code) for one in found.outages] == [
        ("route", "/guarded", "plugin_unusable")
    ]
    assert {route.name: route.outage is None for route in found.routes} == {"/guarded": False, "/svc": True}
    (line,) = [line for line in said if line["event"] == "out_of_service"]
    assert (line["log_level"], line["name"], line["code"]) == ("error", "/guarded", "plugin_unusable")
    told = tester.explain(found, "GET", "/guarded")
    assert (told.status, PLUGIN.partition(".")[0] in told.verdict) == (503, True)


@pytest.mark.django_db
def test_holder__still_out_of_service__told_once_and_its_end_too(plugin: Any, gateway_conf: Any) -> None:
    put(document())
    plugin(PLUGINS=())
    holder = loaded()
    with capture_logs() as said:
        changes.bump()
        assert holder.refresh()
        plugin(PLUGINS=(PLUGIN,))
        changes.bump()
        assert holder.refresh()
    events = [line["event"] for line in said]
    assert (events.count("out_of_service"), events.count("in_service_again")) == (0, 1)
    assert holder.snapshot.outages == ()
    assert all(route.outage is None for route in holder.snapshot.routes)


@pytest.mark.django_db
def test_compile__service_and_transform_of_another_shape__their_routes_alone_are_out_of_service() -> None:
    put(document(plugin="") + "  - {path: /edited, service: one, transforms: [{name: edit, request: {}}]}\n")
    put("services: {two: {targets: []}}\nroutes: [{path: /two, service: two}]")
    Transform.objects.filter(name="edit").update(request={"headers": 7})
    Route.objects.get(path="/two").service.__class__.objects.filter(name="two").update(hash_on="moon")
    found = loaded().snapshot
    assert [(one.kind, one.name, one.code) for one in found.outages] == [
        ("service", "two", "service_unusable"),
        ("route", "/edited", "transform_unusable"),
        ("route", "/two", "service_unusable"),
    ]
    assert len(found.routes) == 4


@pytest.mark.django_db
@pytest.mark.parametrize("signs", [True, False])
def test_compile__secret_under_another_key__that_issuer_alone_accepts_nothing(signs: bool) -> None:
    put(document(plugin=""))
    name = "default" if signs else "partner"
    break_secret(name)
    found = loaded().snapshot
    assert [(one.kind, one.name, one.code) for one in found.outages] == [("issuer", name, "secret_sealed")]
    # The site's own secret stands in for a signing issuer that is not there, but not for one that cannot be opened.
    assert [issuer.name for issuer in found.issuers] == ["partner" if signs else "default"]
    wall = datetime.now(UTC).timestamp()
    by = {"default": token(SECRET, "brain"), "partner": token(OTHER, "partner")}
    accepted = {who: found.identities.identify(told, None, wall) is not None for who, told in by.items()}
    assert accepted == {"default": not signs, "partner": signs}


def break_secret(name: str) -> None:
    with override_settings(SECRET_KEY="another-secret-key-of-forty-characters!!"):
        row = JwtIssuer.objects.get(name=name)
        changes.set_secret(row, SECRET)
    JwtIssuer.objects.filter(name=name).update(secret=row.secret)
    changes.bump()


def token(secret: str, issuer: str) -> bytes:
    end = datetime.now(UTC) + timedelta(minutes=5)
    claims = {"sub": "7", "exp": end.timestamp(), "roles": ["operator"], "iss": issuer}
    return b"Bearer " + tokens.sign(claims, "HS256", secret.encode()).encode()


@pytest.mark.django_db
def test_api__signing_secret_cannot_be_opened__no_token_and_none_accepted_but_no_500() -> None:
    put(document(plugin=""))
    get_user_model().objects.create_user("ann", "ann@example.com", password="a-long-password")
    client = DjangoClient()
    signed = {"username": "ann", "password": "a-long-password"}
    good = client.post("/api/v1/gateway/token", signed, content_type="application/json").json()
    break_secret("default")
    answer = client.post("/api/v1/gateway/token", signed, content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert answer.json()["detail"] == "Tokens cannot be signed at the moment."
    headers = {"Authorization": f"Bearer {good['access']}"}
    refused = client.get("/api/v1/gateway/status", headers=headers)
    stranger = client.get("/api/v1/gateway/status", headers={"Authorization": "Bearer a.b.c"})
    assert refused.status_code == stranger.status_code == 401
    assert refused.json()["detail"] == stranger.json()["detail"]


@pytest.mark.django_db
def test_changes__that_bring_such_an_error__refused_and_others_are_not(plugin: Any) -> None:
    put(document())
    plugin(PLUGINS=())
    broken = Transform.objects.get()
    broken.position = 7
    with pytest.raises(ValidationError, match="PLUGINS"):
        changes.save(broken, actor=None, source="cli")
    fresh = Transform(name="new", route=Route.objects.get(path="/svc"), plugin=PLUGIN)
    with pytest.raises(ValidationError, match="PLUGINS"):
        changes.save(fresh, actor=None, source="cli")
    route = Route.objects.get(path="/guarded")
    route.timeout_s = 7.0
    changes.save(route, actor=None, source="cli")
    broken.enabled = False
    changes.save(broken, actor=None, source="cli")
    assert loaded().snapshot.outages == ()


@pytest.mark.django_db
def test_soundness__something_out_of_service__degraded_for_readiness_admin_and_api(
    plugin: Any, admin_client: DjangoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(document())
    assert soundness.check().state == "ok"
    plugin(PLUGINS=())
    assert soundness.check().state == "degraded"
    monkeypatch.setattr(health, "_seen", (float("-inf"), []))
    ready = admin_client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["gateway"]["state"]) == (200, "degraded")
    page = admin_client.get("/admin/gateway/revision/").content.decode()
    assert ("plugin_unusable" in page, "route /guarded" in page) == (True, True)
    changes.bump()
    status = admin_client.get("/api/v1/gateway/status").json()
    assert [one["code"] for one in status["out_of_service"]] == ["plugin_unusable"]
    assert conf().PLUGINS == ()


@pytest.mark.django_db
def test_soundness__nothing_can_be_used__says_why() -> None:
    put(document(plugin=""))
    Route.objects.filter(path="/svc").update(path="/{", path_kind="template")
    changes.bump()
    found = soundness.check()
    assert (found.state, "nothing can be used" in found.detail) == ("degraded", True)


def ask(port: int, path: str, *headers: str, key: str | None = None) -> Answer:
    with Client(port) as client:
        found = client.send(request(path, "Connection: close", *headers, key=key)).answer()
    assert found is not None
    return found


def test_edge__starts_anew_with_a_plugin_gone_and_a_key_rotated_wrongly__serves_the_rest(
    data_dir: dict[str, str], tmp_path: Path
) -> None:
    """The real edge, which has no snapshot of its own when it starts."""
    with running() as (odd,):
        file = tmp_path / "gateway.yaml"
        file.write_text(document(odd.name, plugin=""))
        assert run("apply", str(file), **data_dir).returncode == 0
        write = "from gateway.models import Transform; from gateway import changes; " + (
            f"Transform.objects.update(plugin={PLUGIN!r}); changes.bump()"
        )
        subprocess.run(
            [sys.executable, "manage.py", "shell", "--verbosity=0", "-c", write],
            cwd=ROOT, env=os.environ | data_dir, check=True, capture_output=True, timeout=180,
        )  # fmt: skip
        rotated = data_dir | {"BRAIN_SECRET_KEY": "another-secret-key-of-more-than-fifty-characters-1234567"}
        with edge(rotated) as (process, port):
            refused = ask(port, "/guarded/x", key=KEY)
            assert (refused.status, refused.headers["x-brain-error"]) == (503, "plugin_unusable")
            assert refused.headers["content-type"] == "application/problem+json"
            assert "a_teams_guards" not in refused.body.decode()
            assert ask(port, "/svc/x", key=KEY).status == 200
            for secret, issuer in ((SECRET, "brain"), (OTHER, "partner")):
                bearer = f"Authorization: {token(secret, issuer).decode()}"
                unknown = ask(port, "/svc/x", bearer)
                assert (unknown.status, unknown.headers["x-brain-error"]) == (401, "credentials_invalid")
            health = ask(port, "/gateway/health")
            assert (health.status, health.json()["status"]) == (200, "degraded")
            assert {one["code"] for one in health.json()["out_of_service"]} == {
                "plugin_unusable",
                "secret_sealed",
            }
            figures = ask(port, "/gateway/metrics").body.decode()
            assert 'brain_gateway_out_of_service{kind="route"} 1' in figures
            assert 'brain_gateway_out_of_service{kind="issuer"} 2' in figures
            assert 'brain_gateway_out_of_service{kind="service"} 0' in figures
        told = run("status", "--json", **rotated)
        assert told.returncode == 3
        assert len(orjson.loads(told.stdout)["out_of_service"]) == 3
