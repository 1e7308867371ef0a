"""kong.yml, in decK's format, → our document. Never silently: what has no counterpart here is a note with its line.

services, upstreams → services      routes → routes, one for each path      plugins → see kong_plugins
consumers → authentication.api_keys, keys as their SHA-256      jwt_secrets → issuers
"""

from __future__ import annotations

from typing import Any

from . import kong_services
from .imported import Findings, Imported, finish, parse
from .kong_attachments import Attachments, owner_of, reference
from .kong_consumers import Consumers
from .kong_paths import Paths
from .kong_routes import Routes
from .kong_services import META, Services

VERSIONS = ("1.1", "2.1", "3.0")

_SECTIONS = frozenset(
    ("_format_version", "_transform", "services", "routes", "upstreams", "consumers", "plugins")
)


def read(text: str) -> Imported:
    """Raises InvalidDocument for what is no such file, naming each key and its line."""
    parsed, found = parse(text)
    made: dict[str, Any] = {}
    if not isinstance(parsed, dict) or "_format_version" not in parsed:
        found.wrong(
            "_format_version", "is missing: this is no declarative configuration of Kong (deck gateway dump)"
        )
    elif str(parsed["_format_version"]) not in VERSIONS:
        found.wrong("_format_version", f"{parsed['_format_version']!r} is not one of {', '.join(VERSIONS)}")
    else:
        made = _document(found.mapping(parsed, ""), found)
    return finish(made, found)


def _document(top: dict[str, Any], found: Findings) -> dict[str, Any]:
    upstreams = {
        str(upstream.get("name")): (at, upstream)
        for at, upstream in found.mappings(top.get("upstreams"), "upstreams")
    }
    attachments = Attachments(found)
    for at, plugin in found.mappings(top.get("plugins"), "plugins"):
        attachments.add(at, plugin, owner_of(plugin))
    consumers = Consumers(found, attachments)
    consumers.read_groups(top)
    for at, consumer in found.mappings(top.get("consumers"), "consumers"):
        consumers.read(at, consumer)
    services = Services(found, upstreams)
    routes = Routes(found, services, attachments, Paths(found, is_old=float(top["_format_version"]) < 3))
    for at, service in found.mappings(top.get("services"), "services"):
        name = services.read(at, service)
        if name:
            attachments.add_of(at, service, ("service", name))
            attachments.share(("service", name), kong_services.name_in(service))
        for place, route in found.mappings(service.get("routes"), f"{at}.routes"):
            routes.read(place, route, name)
    for at, route in found.mappings(top.get("routes"), "routes"):
        routes.read(at, route, reference(route.get("service")))
    consumers.give_scopes(routes.allowed)
    found.leftover(top, _SECTIONS | META, "")
    if routes.made:
        found.note("routes", "Kong's /api also serves /apix; here a path ends where a segment ends")
    authentication: dict[str, Any] = {"api_key_header": routes.key_headers[0]} if routes.key_headers else {}
    if consumers.keys:
        authentication["api_keys"] = consumers.keys
    return {
        "authentication": authentication,
        "issuers": consumers.issuers,
        "plans": consumers.plans,
        "services": services.made,
        "routes": routes.made,
    }
