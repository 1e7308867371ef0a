"""An OpenAPI 3 description → our document: paths become routes, operations their methods, servers one service.

Operations of a path that ask for different credentials become routes of their own. What the description says beyond
that (schemas, responses, examples) is not the gateway's business; what it says about access and is lost is a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from . import routing
from .imported import Findings, Imported, finish, name_of, parse

_OPERATIONS = ("get", "put", "post", "delete", "options", "head", "patch")
_PARAMETER = re.compile(r"\{([^{}/]+)\}")
_NOT_NAME = re.compile(r"[^A-Za-z0-9_]")
_VARIABLE = re.compile(r"\{([^{}]+)\}")
_SCHEMES = {"http", "https"}

Security = tuple[bool, tuple[str, ...]]  # whether somebody has to sign in, and the scopes that are asked for


def read(text: str, *, target_url: str = "") -> Imported:
    """target_url: the service's target where the description names no server with a host. Raises InvalidDocument."""
    parsed, found = parse(text)
    if isinstance(parsed, dict) and "swagger" in parsed:
        found.wrong("swagger", f"{parsed['swagger']} is not OpenAPI 3; convert the description first")
    elif not isinstance(parsed, dict) or not str(parsed.get("openapi", "")).startswith("3."):
        found.wrong("openapi", "is missing or not 3.x: this is no OpenAPI 3 description")
    else:
        reader = _Reader(found)
        reader.document(found.mapping(parsed, ""), target_url)
        return finish(reader.made, found)
    return finish({}, found)


class _Reader:
    def __init__(self, found: Findings) -> None:
        self.found = found
        self.made: dict[str, Any] = {"authentication": {}, "services": {}, "routes": []}
        self.schemes: dict[str, dict[str, Any]] = {}
        self.names: set[str] = set()

    def document(self, top: dict[str, Any], target_url: str) -> None:
        found = self.found
        info = found.mapping(top.get("info"), "info")
        service = name_of(str(info.get("title", "")).lower(), (), "api")
        targets, base = self._servers(top, target_url)
        self.made["services"][service] = {"targets": targets}
        components = found.mapping(top.get("components"), "components")
        schemes = found.mapping(components.get("securitySchemes"), "components.securitySchemes")
        for name, scheme in schemes.items():
            self._scheme(name, found.mapping(scheme, f"components.securitySchemes.{name}"))
        for path, item in found.mapping(top.get("paths"), "paths").items():
            if path.startswith("x-"):
                continue
            self._path(path, found.mapping(item, f"paths.{path}"), top.get("security"), service, base)
        if not self.made["routes"]:
            found.wrong("paths", "is empty: there is nothing to make routes of")
        if top.get("webhooks"):
            found.note("webhooks", "not carried over: these are calls that the API makes")
        found.note("paths", "bodies, parameters and responses are not checked by the gateway")

    # --- servers ---

    def _servers(self, top: dict[str, Any], target_url: str) -> tuple[list[Any], str]:
        """The service's targets, and the path that all routes begin with. Only the first server is on: a description
        lists environments, and production must not share its requests with a sandbox."""
        found = self.found
        origins: dict[str, str] = {}
        base: str | None = None
        for at, server in found.mappings(top.get("servers"), "servers"):
            parts = urlsplit(self._filled_in(at, server))
            if base is None:
                base = parts.path.rstrip("/")
            if parts.scheme not in _SCHEMES or not parts.netloc or "@" in parts.netloc:
                found.note(f"{at}.url", f"{server.get('url')!r} names no host, so it is no target")
            elif parts.path.rstrip("/") != base:
                found.note(
                    f"{at}.url", "not carried over: it begins its paths in another way than the first server"
                )
            else:
                origins.setdefault(f"{parts.scheme}://{parts.netloc}", at)
        if target_url:
            return [target_url], base or ""
        if not origins:
            found.wrong("servers", "no server has a host: say which target serves it (target_url)")
        targets: list[Any] = []
        for origin, at in origins.items():
            if targets:
                found.note(at, f"{origin} is off: turn it on if it may share the first one's requests")
            targets.append({"url": origin, "state": "off"} if targets else origin)
        return targets, base or ""

    def _filled_in(self, at: str, server: dict[str, Any]) -> str:
        variables = self.found.mapping(server.get("variables"), f"{at}.variables")
        if variables:
            self.found.note(f"{at}.variables", "stand at their defaults")

        def default(match: re.Match[str]) -> str:
            variable = variables.get(match[1])
            return str(variable.get("default", "")) if isinstance(variable, dict) else match[0]

        return _VARIABLE.sub(default, str(server.get("url", "")))

    # --- security ---

    def _scheme(self, name: str, scheme: dict[str, Any]) -> None:
        at = f"components.securitySchemes.{name}"
        self.schemes[name] = scheme
        kind, where = scheme.get("type"), scheme.get("in")
        if kind == "apiKey" and where == "header":
            self._key_header(at, str(scheme.get("name", "X-API-Key")))
        elif kind == "apiKey":
            self.found.note(
                at, f"an API key in a {where} is not carried over: keys are read from a header only"
            )
        elif kind == "http" and str(scheme.get("scheme", "")).lower() != "bearer":
            self.found.note(
                at, f"{scheme.get('scheme')} is not carried over: an API key or a bearer token is asked for"
            )
        elif kind in ("oauth2", "openIdConnect"):
            self.found.note(
                at, "add the issuer of these tokens: the description does not say how they are checked"
            )
        elif kind not in ("http", "apiKey"):
            self.found.note(at, f"{kind} is not carried over: an API key or a bearer token is asked for")

    def _key_header(self, at: str, header: str) -> None:
        known = self.made["authentication"].setdefault("api_key_header", header)
        if known.lower() != header.lower():
            self.found.note(at, f"only {known} is read, not {header}")

    def _security(self, requirements: object, at: str) -> Security:
        """Any one of the requirements is enough for OpenAPI; a route of ours has one set of scopes."""
        alternatives = self.found.mappings(requirements, at)
        if not alternatives:
            return False, ()
        if any(not alternative for _, alternative in alternatives):
            self.found.note(at, "signing in is optional there; the route is open")
            return False, ()
        scopes = [
            tuple(
                sorted({s for name, asked in alternative.items() for s in self._scopes(name, asked, place)})
            )
            for place, alternative in alternatives
        ]
        if len(set(scopes)) > 1:
            self.found.note(at, "its alternatives ask for different scopes; all of them are asked for")
        return True, tuple(sorted({scope for asked in scopes for scope in asked}))

    def _scopes(self, name: str, asked: object, at: str) -> list[str]:
        if name not in self.schemes:
            self.found.wrong(at, f"{name!r} is not in components.securitySchemes")
        return self.found.words(asked, f"{at}.{name}")

    # --- paths ---

    def _path(self, path: str, item: dict[str, Any], security: object, service: str, base: str) -> None:
        at = f"paths.{path}"
        if "$ref" in item:
            self.found.note(f"{at}.$ref", "not carried over: references to path items are not followed")
        groups: dict[Security, list[str]] = {}
        for method in _OPERATIONS:
            if method in item:
                operation = self.found.mapping(item[method], f"{at}.{method}")
                own = "security" in operation
                place = f"{at}.{method}.security" if own else "security"
                groups.setdefault(
                    self._security(operation["security"] if own else security, place), []
                ).append(method)
                self._operation_notes(operation, f"{at}.{method}")
        if "trace" in item:
            self.found.note(f"{at}.trace", "not carried over: TRACE is not served")
        if item.get("servers"):
            self.found.note(
                f"{at}.servers", "not carried over: all routes go to the description's own servers"
            )
        where = self._where(base + path, at) if groups else {}
        for asked, methods in groups.items() if where else ():
            suffix = "" if len(groups) == 1 else ":" + "-".join(methods)
            self._route(f"{base}{path}{suffix}", where, asked, methods, service)

    def _operation_notes(self, operation: dict[str, Any], at: str) -> None:
        if operation.get("servers"):
            self.found.note(
                f"{at}.servers", "not carried over: all routes go to the description's own servers"
            )
        if operation.get("callbacks"):
            self.found.note(f"{at}.callbacks", "not carried over: these are calls that the API makes")

    def _route(
        self, name: str, where: Mapping[str, Any], asked: Security, methods: list[str], service: str
    ) -> None:
        name = name_of(name, self.names, "route")
        self.names.add(name)
        route = {"name": name, **where, "methods": [method.upper() for method in methods], "service": service}
        route["auth_required"] = asked[0]
        if asked[1]:
            route["scopes"] = list(asked[1])
        self.made["routes"].append(route)

    def _where(self, path: str, at: str) -> dict[str, Any]:
        """path and path_kind: exact, a template, or a pattern where a parameter is less than a segment."""
        if not path.startswith("/"):
            self.found.wrong(at, "a path starts with '/'")
            return {}
        path = path.rstrip("/") or "/"
        made = self._pathed(path, at)
        try:
            routing.check_path(made["path"], made["path_kind"])
        except ValueError as error:
            self.found.note(at, f"{path} is not carried over: {error}")
            return {}
        return made

    def _pathed(self, path: str, at: str) -> dict[str, Any]:
        if not _PARAMETER.search(path):
            return {"path": path, "path_kind": "exact"}
        segments = path[1:].split("/")
        if any("{" in segment and _PARAMETER.fullmatch(segment) is None for segment in segments):
            return {"path": _pattern_of(path), "path_kind": "regex"}
        return {
            "path": "".join(f"/{self._segment(segment, at)}" for segment in segments),
            "path_kind": "template",
        }

    def _segment(self, segment: str, at: str) -> str:
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            return segment
        name = _NOT_NAME.sub("_", parameter[1])
        name = name if name[0].isalpha() or name[0] == "_" else f"_{name}"
        if name != parameter[1]:
            self.found.note(at, f"{segment} is called {{{name}}} here")
        return f"{{{name}}}"


def _pattern_of(path: str) -> str:
    made, end = "", 0
    for parameter in _PARAMETER.finditer(path):
        made += _literal(path[end : parameter.start()]) + "[^/]+"
        end = parameter.end()
    return made + _literal(path[end:])


def _literal(text: str) -> str:
    return re.sub(r"([.+*?()\[\]{}|^$\\])", r"\\\1", text)
