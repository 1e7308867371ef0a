"""The admin's sidebar: one group for each system, in the order of the platform's arrow. Settings name it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

GROUPS = [
    (
        "Gateway",
        [
            ("Traffic", "monitoring", "gateway_traffic"),
            ("Routes", "alt_route", "gateway_route"),
            ("Test a request", "science", "gateway_tester"),
            ("Services", "dns", "gateway_service"),
            ("Targets", "lan", "gateway_target"),
            ("Transforms", "transform", "gateway_transform"),
            ("Plans", "speed", "gateway_plan"),
            ("Consumers", "badge", "gateway_consumer"),
            ("API keys", "key", "gateway_apikey"),
            ("Token issuers", "verified_user", "gateway_jwtissuer"),
            ("Revoked tokens", "block", "gateway_revokedtoken"),
            ("Subjects cut off", "content_cut", "gateway_tokencut"),
            ("History", "history", "gateway_revision"),
            ("Settings", "tune", "gateway_configuration"),
        ],
    ),
    (
        "Queue",
        [
            ("Statistics", "monitoring", "queue_app_rollup"),
            ("Jobs", "work", "queue_app_job"),
            ("Dead letters", "heart_broken", "queue_app_desk"),
            ("Bulk actions", "checklist", "queue_app_bulkaction"),
            ("Queues", "stacks", "queue_app_queue"),
            ("Tenants", "groups", "queue_app_tenant"),
            ("Schedules", "schedule", "queue_app_schedule"),
            ("Workflows", "account_tree", "queue_app_workflow"),
            ("Workers", "memory", "queue_app_worker"),
            ("Alerts", "notifications_active", "queue_app_alert"),
        ],
    ),
    (
        "Cache",
        [
            ("Cache statistics", "monitoring", "cache-admin:statistics"),
            ("Keys", "data_object", "cache-admin:keys"),
            ("Invalidate", "delete_sweep", "cache-admin:ending"),
            ("Memory", "memory_alt", "cache-admin:memory"),
            ("Slow operations", "hourglass_bottom", "cache-admin:slow"),
        ],
    ),
    (
        "Database",
        [
            ("Databases", "database", "database-admin:overview"),
            ("Health", "ecg_heart", "database-admin:health"),
            ("Pools", "lan", "database-admin:pools"),
            ("Locks", "lock", "database-admin:locks"),
            ("Slow queries", "hourglass_bottom", "database-admin:slow"),
            ("Migrations", "moving", "database-admin:migrations"),
            ("Backups", "backup", "database-admin:backups"),
        ],
    ),
    (
        "People",
        [
            ("Users", "person", "orm_app_user"),
            ("Roles", "group", "auth_group"),
            ("Audit log", "history", "foundation_auditentry"),
        ],
    ),
]


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Unfold's sidebar: every entry leads to a list that the reader's role may see."""
    overview = {"title": "Overview", "icon": "dashboard", "link": reverse("admin:index")}
    found: list[dict[str, Any]] = [{"items": [overview]}]
    for title, items in GROUPS:
        links = [{"title": label, "icon": icon, "link": _address(name)} for label, icon, name in items]
        found.append({"title": title, "separator": True, "items": links})
    _mark_active(request.path, [item for group in found for item in group["items"]])
    return found


def _address(name: str) -> str:
    """Of a model's list, or of a page that stands on no model: such a name has its namespace with it."""
    return reverse(name if ":" in name else f"admin:{name}_changelist")


def _mark_active(path: str, items: list[dict[str, Any]]) -> None:
    """The entry that leads nearest to the page. Unfold marks all that its address begins with."""
    home = items[0]["link"]
    above = [item["link"] for item in items if path.startswith(item["link"]) and item["link"] != home]
    nearest = max(above, key=len, default=home if path == home else None)
    for item in items:
        item["active"] = item["link"] == nearest


def stylesheet(request: HttpRequest) -> str:
    return static("brain/admin.css")


def favicon(request: HttpRequest) -> str:
    return static("brain/favicon.svg")
