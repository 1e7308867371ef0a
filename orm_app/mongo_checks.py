"""System check: keys fit the database that an app is mapped to. MongoDB numbers no rows, and SQL has no ObjectId."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, register
from django.db import models, router

from . import mongo

_NUMBERED = ("AutoField", "BigAutoField", "SmallAutoField")
_OBJECT_IDS = ("ObjectIdAutoField", "ObjectIdField")
_SEE = "See docs/checks.md#orm_app-{}."


@register("orm_app")
def keys_fit(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    configs = apps.get_app_configs() if app_configs is None else app_configs
    return misplaced(model for config in configs for model in config.get_models())


def misplaced(found: Iterable[type[models.Model]]) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    for model in found:
        alias = router.db_for_write(model)
        kinds = {field.name: field.get_internal_type() for field in model._meta.local_concrete_fields}
        if mongo.is_on(alias):
            wrong = [name for name, kind in kinds.items() if kind in _NUMBERED]
            messages += [_numbered(model, name, alias) for name in wrong]
        else:
            wrong = [name for name, kind in kinds.items() if kind in _OBJECT_IDS]
            messages += [_object_id(model, name, alias) for name in wrong]
    return messages


def _numbered(model: type[models.Model], name: str, alias: str) -> CheckMessage:
    return Error(
        f"{model._meta.label}.{name} is numbered by the database, which {alias!r}, a MongoDB, does not do.",
        hint=f'Declare it as Field("OBJECTID", primary_key=True), or set default_auto_field = "{mongo.AUTO_FIELD}" in the '
        f"AppConfig of {model._meta.app_label}. {_SEE.format('e020')}",
        id="orm_app.E020",
    )


def _object_id(model: type[models.Model], name: str, alias: str) -> CheckMessage:
    return Error(
        f"{model._meta.label}.{name} is an ObjectId, and {alias!r} is no MongoDB.",
        hint=f'Map the app to one: BRAIN["DATABASE"]["APPS"] = {{"{model._meta.app_label}": "mongodb"}}. '
        f"{_SEE.format('e021')}",
        id="orm_app.E021",
    )
