"""Handlers annotated with a pydantic model: checked at enqueue, and called with an instance. Pydantic is optional:
nothing here imports it, a model is known by its methods."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from .payloads import BadPayload


def models_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The function's parameters that are annotated with a model, by name."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = _resolved(parameter.annotation, function)
        if isinstance(annotation, type) and hasattr(annotation, "model_validate_json"):
            found[name] = annotation
    return found


def is_instance(payload: object) -> bool:
    """Whether this is an instance of a model."""
    return hasattr(type(payload), "model_dump_json")


def text_of(instance: Any) -> str:
    """An instance as JSON text that gives an equal one again. Raises BadPayload.

    A SecretStr, for one, is written as asterisks: the handler would get those.
    """
    text: str = instance.model_dump_json()
    if build(type(instance), text) != instance:
        raise BadPayload(f"this {type(instance).__name__} does not survive the way through JSON: give a dict")
    return text


def build(model: Any, text: str, at: str = "") -> Any:
    """The instance that `text` describes. Raises BadPayload with the path of each wrong field, `at` before it."""
    try:
        return model.model_validate_json(text)
    except ValueError as error:
        raise BadPayload(f"not a {model.__name__}: {_told(error, at)}") from error


def rebuild(model: Any, value: Any, at: str = "") -> Any:
    """As `build`, of what was read from JSON: by its text again, because a strict model takes a date only from there."""
    return build(model, json.dumps(value, default=str), at)  # str: of the dates in a Celery task's argument


def _told(error: Any, at: str) -> str:
    if not hasattr(error, "errors"):
        return type(error).__name__
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    paths = (".".join(map(str, ([at] if at else []) + [*entry["loc"]])) or "payload" for entry in wrong)
    return "; ".join(f"{path}: {entry['msg']}" for path, entry in zip(paths, wrong, strict=True))


def _resolved(annotation: Any, function: Callable[..., Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(function, "__globals__", {}))  # noqa: S307  (the handler's own source)
    except (NameError, AttributeError, TypeError, SyntaxError):  # imported for type checkers only
        return None
