"""Results that end when rows change: saving, deleting and relating rows raises the tags of their models on commit.

row saved → noted with its transaction → committed → tags raised in the store → the entries under them are over

`model:app.label` stands for all rows of a model, `model:app.label:pk` for one. What goes past save() and delete()
(update(), bulk_create(), raw SQL, another program) says so itself: `invalidate_model`. Only models that something
depends on are watched, because a listener makes Django fetch rows that it would otherwise delete unseen; a process
that writes a model has to know of it, by importing what depends on it or by BRAIN["CACHE"]["MODEL_TAGS"].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import structlog
from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connections, router, transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save

from . import backends, late
from .conf import conf

log = structlog.get_logger(__name__)
Tags = set[tuple[str | None, str]]  # (alias, tag)

_watched: defaultdict[str, set[str | None]] = defaultdict(
    set
)  # label → the aliases whose entries depend on it
_lines: dict[type[Model], tuple[str, ...]] = {}
_CHANGE = "_cache_app_change"  # attribute of a database connection


def watch(model: type[Model] | str, alias: str | None = None) -> str:
    """The tag of all rows of the model, which is raised from now on. Raises LookupError for an unknown "app.Model"."""
    label = _label(model)
    if alias not in _watched[label]:
        _watched[label].add(alias)
        if apps.models_ready:
            _listen(label)
    return f"model:{label}"


def model_tag(model: type[Model] | str, pk: Any = None, *, alias: str | None = None) -> str:
    """For tags=: of one row, or of all of them. alias: of the cache that it is used with."""
    tag = watch(model, alias)
    return tag if pk is None else f"{tag}:{pk}"


def invalidate_model(model: type[Model] | str, pk: Any = None, *, using: str | None = None) -> None:
    """End what depends on the model (pk: on this row, or on all rows) when the transaction commits, or now without one.

    For what Django sends no signal for. using: alias of the database; default: where the model is written.
    """
    found = apps.get_model(model) if isinstance(model, str) else model
    changed = _tags(found, [] if pk is None else [pk])
    if not changed:  # only other processes depend on it
        changed = {(None, f"model:{label}") for label in _relatives(found)}
        changed |= {(None, f"{tag}:{pk}") for _, tag in changed if pk is not None}
    _note(changed, using or router.db_for_write(found))


ainvalidate_model = sync_to_async(invalidate_model)


def connect() -> None:
    """Listen for what depends on models so far. Called when the models are there."""
    for label in conf().MODEL_TAGS:
        watch(label)
    for label in list(_watched):
        _listen(label)


def is_changed_here(tags: Collection[str]) -> bool:
    """Whether an open transaction of this thread has changed what the tags stand for.

    Then a result is this transaction's own business: the stored one is old to it, and nobody else may see its own.
    """
    return any(
        not change.tags_alone().isdisjoint(tags)
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
        for change in _open_changes(connection)
    )


# --- what changed ----------------------------------------------------------------------------------------------------


class _Change:
    """What a transaction has changed; called when it has committed.

    It also keeps what a savepoint inside has rolled back: raising a tag for nothing costs one load.
    """

    def __init__(self) -> None:
        self.tags: Tags = set()
        self.is_done = False
        self._hooks: Any = None

    def __call__(self) -> None:
        if self.is_done:
            return
        self.is_done = True
        by_alias: defaultdict[str | None, set[str]] = defaultdict(set)
        for alias, tag in self.tags:
            by_alias[alias].add(tag)
        for alias, tags in by_alias.items():
            late.raise_tags(backends.backend(alias), tags)

    def tags_alone(self) -> set[str]:
        return {tag for _, tag in self.tags}

    def kept_by(self, connection: Any) -> None:
        self._hooks = connection.run_on_commit

    def is_kept_by(self, connection: Any) -> bool:
        """Whether the commit will call it, whatever it notes from here on.

        Django makes a new list of hooks whenever some are dropped, be it by a rollback or by that of a savepoint.
        """
        return not self.is_done and self._hooks is connection.run_on_commit


def _note(changed: Tags, using: str) -> None:
    """Once per transaction, however many rows it changes."""
    if not changed:
        return
    connection = connections[using]
    change = getattr(connection, _CHANGE, None)
    if change is not None and change.is_kept_by(connection):
        change.tags |= changed
        return
    change = _Change()
    change.tags |= changed
    if not connection.in_atomic_block and not connection.get_autocommit():
        change()  # somebody commits by hand and nobody will tell when: before is better than never
        return
    transaction.on_commit(change, using=using, robust=True)
    change.kept_by(connection)
    setattr(connection, _CHANGE, change)


def _open_changes(connection: Any) -> Iterator[_Change]:
    for hook in connection.run_on_commit:
        if isinstance(hook[1], _Change) and not hook[1].is_done:
            yield hook[1]


def _tags(model: type[Model], pks: Iterable[Any]) -> Tags:
    pks = list(pks)
    return {
        (alias, tag)
        for label in _relatives(model)
        for alias in _watched.get(label, ())
        for tag in (f"model:{label}", *(f"model:{label}:{pk}" for pk in pks))
    }


# --- Django's signals ------------------------------------------------------------------------------------------------


def _saved_or_deleted(*, sender: type[Model], instance: Model, using: str, **_: Any) -> None:
    _note(_tags(sender, [instance.pk]), using)


def _related(
    *, action: str, instance: Model, model: type[Model], pk_set: set[Any] | None, using: str, **_: Any
) -> None:
    """Both sides. After clear() Django does not say whom it was about: of them only the model's own tag is raised."""
    if action.startswith("post_"):
        _note(_tags(type(instance), [instance.pk]) | _tags(model, pk_set or ()), using)


def _listen(label: str) -> None:
    apps.get_model(label)  # LookupError, rather than a result that never ends
    for model in apps.get_models(include_auto_created=True):
        if label in _relatives(model):
            post_save.connect(_saved_or_deleted, sender=model, dispatch_uid=_CHANGE)
            post_delete.connect(_saved_or_deleted, sender=model, dispatch_uid=_CHANGE)
        for field in model._meta.local_many_to_many:
            sides = {*_relatives(model), *_relatives(field.remote_field.model)}
            if label in sides:
                m2m_changed.connect(_related, sender=field.remote_field.through, dispatch_uid=_CHANGE)


def _label(model: type[Model] | str) -> str:
    return model.lower() if isinstance(model, str) else model._meta.label_lower


def _relatives(model: type[Model]) -> tuple[str, ...]:
    """Labels of the models whose rows change with one of this: proxies, and what inherits from it or it from."""
    found = _lines.get(model)
    if found is None:
        found = _lines[model] = _line(model)
    return found


def _line(model: type[Model]) -> tuple[str, ...]:
    concrete = model._meta.concrete_model or model
    line = {concrete, *concrete._meta.get_parent_list()}
    line |= {other for other in apps.get_models() if concrete in other._meta.get_parent_list()}
    return tuple(
        sorted(
            {
                other._meta.label_lower
                for other in (*apps.get_models(include_auto_created=True), concrete)
                if other._meta.concrete_model in line
            }
        )
    )
