"""The names a query may use: checked where they are written, and an unknown one is answered with the near ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import BaseExpression
from django.db.models.query import QuerySet

# Names may come from a request's parameters: what is remembered has a bound.
_MOST_REMEMBERED = 4096
_good: set[tuple[type[models.Model], str]] = set()


class UnknownField(FieldError):
    """The model has no such field, relation, annotation or lookup. The message names the near ones."""


def check(queryset: QuerySet, name: str) -> str:
    """`name` as Django writes it (`author.name` → `author__name`). Raises UnknownField."""
    path = name.replace(".", LOOKUP_SEP)
    if type(queryset.query.group_by) is tuple:
        _check_of_group(queryset, path)
    key = (queryset.model, path)
    if key in _good:
        return path
    if path.split(LOOKUP_SEP, 1)[0] in queryset.query.annotations:
        return path
    _walk(queryset.model, path)
    if len(_good) >= _MOST_REMEMBERED:
        _good.clear()
    _good.add(key)
    return path


def check_all(queryset: QuerySet, names: Iterable[str]) -> list[str]:
    return [check(queryset, name) for name in names]


def selected(queryset: QuerySet) -> list[str]:
    """What `only` left, in the model's order, and the annotations; [] when it left everything."""
    names, is_deferred = queryset.query.deferred_loading
    if is_deferred:
        return []
    places = {field.name: place for place, field in enumerate(queryset.model._meta.concrete_fields)}
    own = sorted(names, key=lambda name: (places.get(name, len(places)), name))
    return [*own, *queryset.query.annotation_select]


def related(model: type[models.Model], path: str) -> tuple[str, bool]:
    """A path of relations as Django's prefetch_related (there are many) or select_related wants it, and which.

    Both the name of the attribute (`articles`) and that of queries (`article`) are understood. Raises UnknownField.
    """
    attributes, names, has_many = [], [], False
    for part in path.replace(".", LOOKUP_SEP).split(LOOKUP_SEP):
        relations = {
            name: field for field in model._meta.get_fields() if field.is_relation for name in _both(field)
        }
        if part not in relations:
            if part in _names(model):
                raise UnknownField(f"{part!r} is a column of {model.__name__}: it is read anyway")
            raise _unknown(model, path, part, sorted(relations))
        field = relations[part]
        attributes.append(_both(field)[0])
        names.append(_both(field)[1])
        has_many = has_many or bool(field.many_to_many or field.one_to_many)
        model = field.related_model
    return LOOKUP_SEP.join(attributes if has_many else names), has_many


def _both(field: Any) -> tuple[str, str]:
    """(attribute of an instance, name in a query)."""
    if field.auto_created and not field.concrete:
        return field.get_accessor_name() or field.name, field.name
    return field.name, field.name


def _walk(model: type[models.Model], path: str) -> None:
    at: type[models.Model] | None = model
    field: models.Field | None = None
    parts = path.split(LOOKUP_SEP)
    for place, part in enumerate(parts):
        if at is not None:
            found = _field(at, part)
            if found is not None:
                field, at = found, found.related_model if found.is_relation else None
                continue
        if field is None:
            raise _unknown(model, path, part, sorted(_names(at or model)))
        return _check_lookups(model, path, field, parts[place:], at)
    return None


def _check_of_group(queryset: QuerySet, path: str) -> None:
    """Another column would not speak of the groups: a condition on it leaves rows out before they are counted, and an
    order by it makes a group of each of its values, both without a word. Raises UnknownField."""
    query = queryset.query
    known = [*query.values_select, *query.annotations]
    names = {name for known_one in known for name in _both_names(queryset.model, known_one)}
    if any(path == name or path.startswith(name + LOOKUP_SEP) for name in names):
        return
    if queryset.model._meta.pk.name in names:  # each row is a group
        return
    raise UnknownField(
        f"a group has no {path!r} (a condition on rows comes before group_by): {near_text(path, known)}"
    )


def _both_names(model: type[models.Model], name: str) -> set[str]:
    """`author` and `author_id` are the same column, `pk` and `id` too."""
    field = model._meta.pk if name == "pk" else _field(model, name)
    return {name} if field is None else {name, field.name, getattr(field, "attname", name)}


def _field(model: type[models.Model], name: str) -> models.Field | None:
    if name == "pk":
        return model._meta.pk
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        # A reverse relation is queried by its query name, which related_name may differ from.
        return next((field for field in model._meta.fields_map.values() if field.name == name), None)


def _check_lookups(
    model: type[models.Model],
    path: str,
    field: models.Field,
    rest: list[str],
    at: type[models.Model] | None,
) -> None:
    if len(rest) > 2:  # transforms of transforms (dates, JSON keys): Django's to judge
        return
    target = getattr(field, "target_field", field) if at is not None else field
    last, *_ = rest
    if len(rest) == 2 or target.get_lookup(last) or target.get_transform(last):
        return
    if at is not None and field.get_lookup(last):
        return
    near = sorted(set(target.get_lookups()) - _PRIVATE)
    raise _unknown(model, path, last, [*(_names(at) if at is not None else ()), *near])


_PRIVATE = {"brain_like", "brain_ilike"}


def _names(model: type[models.Model]) -> list[str]:
    names = {field.name for field in model._meta.get_fields()}
    names |= {field.attname for field in model._meta.concrete_fields}
    return sorted(names | {"pk"})


def _unknown(model: type[models.Model], path: str, part: str, known: list[str]) -> UnknownField:
    whole = f" (in {path!r})" if part != path else ""
    return UnknownField(f"{model.__name__} has no {part!r}{whole}: {near_text(part, known)}")


def near_text(word: str, known: Iterable[str]) -> str:
    """`did you mean 'a' or 'b'?`, or all there is when nothing is near."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"there is {', '.join(names[:40])}"


def is_expression(value: object) -> bool:
    return isinstance(value, BaseExpression) or hasattr(value, "resolve_expression")
