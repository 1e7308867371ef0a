"""Plugins: a team's own class with hooks that the gateway calls.

    class Plugin:
        def __init__(self, **settings): ...                       # raises for settings that it does not take
        def on_request(self, request: Request) -> Reply | None: ...
        def on_response(self, request: Request, response: Response) -> None: ...
        def on_error(self, request: Request, failure: Failure) -> Reply | None: ...

Any one of the hooks will do. They see heads, never bodies; a Reply is what the client gets instead.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .heads import RequestHead as Request
from .heads import ResponseHead as Response

__all__ = ["HOOKS", "Failure", "Reply", "Request", "Response", "load", "problems", "usable"]

# What somebody else's code may raise: sys.exit() in it ends neither the edge nor the request.
FAULTS = (Exception, SystemExit, GeneratorExit)
HOOKS = {"on_request": 1, "on_response": 2, "on_error": 2}  # and how many arguments each gets


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the plugin's own. status: 200 to 599, but none that stands for "no body"."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """What the client is about to be told instead of a target's response. code: as in X-Brain-Error."""

    status: int
    code: str
    detail: str


def problems(path: str, settings: object, allowed: Collection[str]) -> list[str]:
    """Why a row that names this plugin cannot be saved. It is imported and made for that."""
    try:
        load(path, settings, allowed)
    except ValueError as error:
        return [str(error)]
    return []


def load(path: str, settings: object, allowed: Collection[str]) -> object:
    """A new plugin of the class at a dotted path. Raises ValueError with what is wrong.

    allowed: BRAIN["GATEWAY"]["PLUGINS"]. Whoever may edit rows may not thereby run any code that can be imported.
    """
    if path not in allowed:
        known = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"plugin: {path!r} is not in BRAIN['GATEWAY']['PLUGINS'] (there: {known})")
    found = usable(path)
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise ValueError(f"settings: is a mapping of names, not {settings!r:.60}")
    try:
        return found(**settings)
    except FAULTS as error:  # somebody else's constructor; what it says is for the admin
        raise ValueError(f"settings: {path} does not take them: {_told(error)}") from error


def usable(path: str) -> Any:
    """The class at a dotted path, imported and looked at, but not made. Raises ValueError."""
    found = _imported(path)
    _check_hooks(path, found)
    return found


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except FAULTS as error:  # somebody else's module
        raise ValueError(f"plugin: {module} cannot be imported: {_told(error)}") from error
    if not inspect.isclass(found):
        raise ValueError(f"plugin: {module} has no class {name}")
    return found


def _check_hooks(path: str, found: type) -> None:
    hooks = {name: getattr(found, name) for name in HOOKS if hasattr(found, name)}
    if not hooks:
        raise ValueError(f"plugin: {path} has none of the hooks {', '.join(HOOKS)}")
    for name, hook in hooks.items():
        if inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook):
            raise ValueError(
                f"plugin: {path}.{name} is async; hooks are plain functions (docs/gateway-transforms.md#plugins)"
            )
        try:
            inspect.signature(hook).bind(None, *[None] * HOOKS[name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"plugin: {path}.{name} takes other arguments: {error}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
