"""The environment, read in one place and by name: a wrong value says which variable and what it should look like."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_BETWEEN_URLS = re.compile(r",\s*(?=(?:\w+=)?[A-Za-z][\w+.-]*://)")
_NAMED_URL = re.compile(r"(?:(?P<name>\w+)=)?(?P<url>[A-Za-z][\w+.-]*://\S*)")
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class BadVariable(ValueError):
    """An environment variable holds a value that cannot be used. The message names it and the fix."""


class Env:
    """Typed access to one mapping of environment variables; an empty value counts as unset."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables

    def text(self, name: str, default: str = "") -> str:
        return self._variables.get(name, "").strip() or default

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name).lower()
        if not value:
            return default
        if value not in _TRUE | _FALSE:
            raise BadVariable(f"{name}={value!r} is neither yes nor no: write {name}=1 or {name}=0.")
        return value in _TRUE

    def count(self, name: str, default: int) -> int:
        value = self.text(name)
        if not value:
            return default
        if not value.isascii() or not value.isdigit() or int(value) < 1:
            raise BadVariable(f"{name}={value!r} is not a whole number from 1.")
        return int(value)

    def names(self, name: str, default: list[str]) -> list[str]:
        value = self.text(name)
        return [part.strip() for part in value.split(",") if part.strip()] if value else default

    def pairs(self, name: str) -> dict[str, str]:
        """`billing=orders,wiki=docs`."""
        found = {}
        for part in self.names(name, []):
            key, equals, value = part.partition("=")
            if not equals or not key.strip() or not value.strip():
                raise BadVariable(f"{name}: {part!r} is no pair: write {name}=name=value,other=value.")
            found[key.strip()] = value.strip()
        return found

    def named_urls(self, name: str) -> list[tuple[str, str]]:
        """`postgres://…,orders=postgres://…` → ("", URL), ("orders", URL). A comma within a URL does not end it."""
        found = []
        for part in _BETWEEN_URLS.split(self.text(name)):
            named = _NAMED_URL.fullmatch(part.strip().rstrip(","))
            if named:
                found.append((named["name"] or "", named["url"]))
            elif part.strip():  # not shown: it may hold a password
                raise BadVariable(f"{name} is no list of URLs: write {name}=scheme://…,name=scheme://….")
        return found

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise BadVariable(f"{name}={value!r} is not known: use one of {', '.join(choices)}.")
        return value
