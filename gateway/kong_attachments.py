"""Kong's plugins by what they belong to: a service, a route, a consumer, or everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import kong_plugins
from .imported import Findings
from .kong_services import META

Owner = tuple[str, str]  # a kind and a name; ("", "") is everything
Plugins = dict[str, tuple[str, dict[str, Any]]]  # name → its place and its config


class Attachments:
    def __init__(self, found: Findings) -> None:
        self.found = found
        self._plugins: dict[Owner, Plugins] = {}

    def add(self, at: str, values: dict[str, Any], owner: Owner | None) -> None:
        name = str(values.get("name", ""))
        known = {"name", "config", "enabled", "service", "route", "consumer", "protocols", "instance_name"}
        if values.get("enabled") is False:
            self.found.note(at, f"{name} is not carried over: it is not enabled")
        elif owner is None:
            self.found.note(at, f"{name} is not carried over: it belongs to more than one thing at once")
            if kong_plugins.may_keep_out(name):  # of one of them, it closes that for all
                wider = "route" if values.get("route") else "service"
                self._plugins.setdefault((wider, reference(values[wider])), {})[name] = (at, {})
        else:
            config = self.found.mapping(values.get("config"), f"{at}.config")
            self._plugins.setdefault(owner, {})[name] = (f"{at}.config" if config else at, config)
        self.found.leftover(values, known | META, at)

    def add_of(self, at: str, values: dict[str, Any], owner: Owner) -> None:
        for place, plugin in self.found.mappings(values.get("plugins"), f"{at}.plugins"):
            self.add(place, plugin, owner)

    def of(self, owner: Owner) -> Plugins:
        return self._plugins.get(owner, {})

    def share(self, owner: Owner, name: str) -> None:
        """What belongs to the one of the same kind that has this name belongs to `owner` too."""
        self._plugins.setdefault(owner, {}).update(self.of((owner[0], name)))

    def on_route(self, name: str, service: str) -> Plugins:
        """The most specific one of each plugin counts, as in Kong."""
        chosen: Plugins = {}
        for owner in (("", ""), ("service", service), ("route", name)):
            chosen |= self.of(owner)
        return chosen


def owner_of(plugin: Mapping[str, Any]) -> Owner | None:
    """What a plugin at the top belongs to: ("", "") is everything, None more than one thing."""
    owners = [
        (kind, reference(plugin[kind])) for kind in ("service", "route", "consumer") if plugin.get(kind)
    ]
    return None if len(owners) > 1 else owners[0] if owners else ("", "")


def reference(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("name") or value.get("username") or value.get("id") or "")
    return str(value or "")
