from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin import action as list_action
from django.contrib.admin.sites import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse
from unfold.decorators import action as unfold_action

from foundation import audit, roles
from foundation.admin import ReadOnlyModelAdmin, RoleModelAdmin
from foundation.models import AuditEntry
from orm_app.models import User

pytestmark = pytest.mark.django_db


class Editable(RoleModelAdmin):
    actions = ["retry"]
    actions_detail = ["restart"]

    @list_action
    def retry(self, request: HttpRequest, queryset: Any) -> None: ...

    @unfold_action(description="Restart")
    def restart(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponse("done")


class Written(ReadOnlyModelAdmin):
    actions = ["retry"]

    @list_action(permissions=["operate"])
    def retry(self, request: HttpRequest, queryset: Any) -> None: ...


def request_of(role: str | None) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = User.objects.create_user("ann", "ann@example.com", is_staff=True)
    if role:
        roles.grant(request.user, role)
    return request


def may(model_admin: RoleModelAdmin, request: HttpRequest) -> dict[str, bool]:
    verbs = ("module", "view", "change", "add", "delete", "operate")
    return {verb: getattr(model_admin, f"has_{verb}_permission")(request) for verb in verbs}


@pytest.mark.parametrize(
    ("role", "editable", "written"),
    [
        (None, set(), set()),
        ("viewer", {"module", "view"}, {"module", "view"}),
        ("operator", {"module", "view", "change", "operate"}, {"module", "view", "operate"}),
        (
            "admin",
            {"module", "view", "change", "operate", "add", "delete"},
            {"module", "view", "operate"},
        ),
    ],
)
def test_permissions__role_and_kind_of_page__as_in_the_matrix(role, editable, written):
    request = request_of(role)
    site = AdminSite()
    assert {
        verb for verb, is_allowed in may(Editable(AuditEntry, site), request).items() if is_allowed
    } == editable
    assert {
        verb for verb, is_allowed in may(Written(AuditEntry, site), request).items() if is_allowed
    } == written


@pytest.mark.parametrize(("role", "offered"), [("viewer", False), ("operator", True)])
def test_actions__role__only_operators_are_offered_and_run_them(role, offered):
    request = request_of(role)
    for page in (Editable(AuditEntry, AdminSite()), Written(AuditEntry, AdminSite())):
        assert ("retry" in page.get_actions(request)) is offered
    page = Editable(AuditEntry, AdminSite())
    assert bool(page.get_actions_detail(request, "1")) is offered
    run = page.get_unfold_action("restart").method
    if offered:
        assert run(request, object_id="1").content == b"done"
    else:
        with pytest.raises(PermissionDenied):
            run(request, object_id="1")


@pytest.fixture
def viewer() -> Client:
    client = Client()
    client.force_login(request_of(roles.VIEWER).user)
    return client


def test_audit_log__list__found_by_search_in_a_bounded_number_of_queries(
    viewer, django_assert_max_num_queries
):
    url = reverse("admin:foundation_auditentry_changelist")
    for number in range(30):
        audit.record(
            actor=f"bob{number}", action="job.replay", target=f"queue_app.Job:{number}", source="cli"
        )
    with django_assert_max_num_queries(10):
        page = viewer.get(url, {"q": "bob17", "source__exact": "cli"})
    assert page.status_code == 200
    assert b"queue_app.Job:17" in page.content
    assert b"queue_app.Job:16" not in page.content


def test_audit_log__one_entry__shown_and_never_a_form(viewer):
    entry = audit.record(
        actor="bob", action="route.change", target="gateway.Route:1", before={"path": "<b>"}, source="cli"
    )
    url = reverse("admin:foundation_auditentry_change", args=[entry.pk])
    page = viewer.get(url)
    assert page.status_code == 200
    assert b"&lt;b&gt;" in page.content
    assert viewer.post(url, {"actor": "eve"}).status_code == 403
    assert viewer.post(reverse("admin:foundation_auditentry_delete", args=[entry.pk])).status_code == 403
    assert viewer.get(reverse("admin:foundation_auditentry_add")).status_code == 403


def test_audit_log__no_role__no_entry():
    client = Client()
    client.force_login(request_of(None).user)
    assert client.get(reverse("admin:foundation_auditentry_changelist")).status_code == 403
