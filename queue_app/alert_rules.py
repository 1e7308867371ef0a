"""The alerts' rules: made, changed and deleted; the one place that changes what an operator decides about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction

from foundation import audit

from . import alerts, queues
from .models import AlertRule

EDITABLE = (
    "condition", "queue", "threshold", "window_s", "at_least", "for_s", "clear_s", "repeat_s", "enabled",
)  # fmt: skip


class BadRule(ValueError):
    """errors: what is wrong, by field."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {told}" for field, told in errors.items()))


class Gone(ValueError):
    """The rule was deleted meanwhile."""


def create(name: str, *, actor: Any, source: str, **fields: Any) -> AlertRule:
    """A rule with these EDITABLE fields, of those left out the model's defaults. Raises BadRule."""
    fields, trace = _parted(fields, actor, source)
    row = examine(name, **fields)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            audit.record(
                action="alert_rule.create", target=row, after=_standing(row, ("name", *EDITABLE)), **trace
            )
    except IntegrityError as error:
        if not AlertRule.objects.filter(name=name).exists():
            raise
        raise BadRule({"name": f"there is a rule {name!r} already"}) from error
    return row


def examine(name: str, **fields: Any) -> AlertRule:
    """What `create` would make of these, not stored. Raises BadRule."""
    row = AlertRule(name=name, **fields)
    _check(row)
    return row


def change(rule: AlertRule, *, actor: Any, source: str, **fields: Any) -> AlertRule:
    """Change EDITABLE fields. What fires by it is looked at anew. Raises BadRule, or Gone."""
    changes, trace = _parted(fields, actor, source)
    with transaction.atomic():
        row = _locked(rule)
        before = _standing(row, changes)
        for field, value in changes.items():
            setattr(row, field, value)
        _check(row)
        new = {key: value for key, value in _standing(row, changes).items() if value != before[key]}
        if new:
            row.save(update_fields=[*new])
            was = {key: before[key] for key in new}
            audit.record(action="alert_rule.change", target=row, before=was, after=new, **trace)
    return row


def delete(rule: AlertRule, *, actor: Any, source: str, **trace: Any) -> None:
    """What fires by it is resolved at the next look; its history stays. Raises Gone."""
    with transaction.atomic():
        row = _locked(rule)
        before = _standing(row, ("name", *EDITABLE))
        audit.record(
            actor=actor, action="alert_rule.delete", target=row, before=before, source=source, **trace
        )
        row.delete()


def _parted(fields: dict[str, Any], actor: Any, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rule's fields, and who does it."""
    trace: dict[str, Any] = {key: fields.pop(key) for key in ("request_id", "ip") if key in fields}
    unknown = set(fields) - set(EDITABLE)
    if unknown:
        raise TypeError(f"a rule has no {', '.join(sorted(unknown))}")
    return fields, {"actor": actor, "source": source, **trace}


def _check(row: AlertRule) -> None:
    found = alerts.problems({"name": row.name, **_standing(row, EDITABLE)})
    if not isinstance(row.enabled, bool):
        found["enabled"] = "is neither true nor false"
    if row.queue and "queue" not in found:
        try:
            queues.find(row.queue)
        except ValueError as error:
            found["queue"] = str(error)
    if found:
        raise BadRule(found)


def _locked(rule: AlertRule) -> AlertRule:
    row = AlertRule.objects.select_for_update().filter(pk=rule.pk).first()
    if row is None:
        raise Gone(f"the rule {rule.name!r} is gone")
    return row


def _standing(row: AlertRule, fields: Any) -> dict[str, Any]:
    return {field: getattr(row, field) for field in fields}
