"""What Kong's plugins become on a route of ours. A plugin that kept somebody out and has no counterpart here closes
the route until somebody has looked at it: an import never opens what was closed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import edits, exact_json, json_paths, templates
from .imported import Findings

Route = dict[str, Any]

# They ask who is calling.
_OTHER_SIGN_INS = frozenset(
    {
        "basic-auth", "hmac-auth", "header-cert-auth", "jwt-signer", "key-auth-enc", "ldap-auth", "ldap-auth-advanced",
        "mtls-auth", "oauth2", "oauth2-introspection", "openid-connect", "saml", "session", "vault-auth",
    }
)  # fmt: skip
# They keep nobody out.
_HARMLESS = frozenset(
    {
        "ai-proxy", "aws-lambda", "azure-functions", "correlation-id", "cors", "datadog", "file-log", "grpc-gateway",
        "grpc-web", "http-log", "jq", "kafka-log", "loggly", "opentelemetry", "prometheus", "proxy-cache",
        "proxy-cache-advanced", "request-size-limiting", "request-transformer-advanced", "response-ratelimiting",
        "response-transformer-advanced", "statsd", "statsd-advanced", "syslog", "tcp-log", "udp-log", "zipkin",
    }
)  # fmt: skip
_OURS = {
    "prometheus": "the gateway has figures of its own at /gateway/metrics",
    "correlation-id": "the gateway gives every request an X-Request-Id",
}
_BODY_PLUGINS = {"request-transformer": ("request", "body"), "response-transformer": ("response", "json")}
_EXPRESSION = re.compile(r"\$\(((?:[^()]|\([^()]*\))*)\)?")
_LOOKUP = re.compile(
    r"""(headers|query_params|uri_captures)(?:\.([A-Za-z0-9_-]+)|\[(?:"([^"]+)"|'([^']+)'|(\d+))\])"""
)
_SOURCES = {"headers": "header", "query_params": "query", "uri_captures": "path"}


def apply(route: Route, name: str, config: Mapping[str, Any], at: str, found: Findings) -> None:
    """Carry one plugin of Kong over to a route of our document."""
    known = _KNOWN.get(name)
    if known is not None:
        known(route, config, at, found)
    elif name in _OTHER_SIGN_INS:
        route["auth_required"] = True
        found.note(at, f"{name} is not carried over; the route now asks for an API key or a token")
    elif name in _HARMLESS:
        found.note(at, f"{name} is not carried over" + (f": {_OURS[name]}" if name in _OURS else ""))
    else:
        _close(route, at, found, f"{name} is not carried over, and it may have kept requests out")


def may_keep_out(name: str) -> bool:
    """Whether requests may have been refused by a plugin that has no counterpart here."""
    return name not in _KNOWN and name not in _OTHER_SIGN_INS and name not in _HARMLESS


def limits(config: Mapping[str, Any], at: str, found: Findings) -> dict[str, Any]:
    """Our limits for a `rate-limiting` plugin; empty when it has none that we can keep."""
    made: dict[str, Any] = {}
    second, minute, hour = (config.get(key) for key in ("second", "minute", "hour"))
    if isinstance(minute, int):
        made["requests_per_minute"] = minute
    if isinstance(hour, int):
        made["requests_per_hour"] = hour
    if isinstance(second, int):
        made["requests_per_minute"] = min(second * 60, made.get("requests_per_minute", second * 60))
        made["burst_limit"] = second
        found.note(f"{at}.second", f"became {second * 60} a minute, {second} of them at once")
    for key in ("day", "month", "year"):
        if config.get(key) is not None:
            found.note(f"{at}.{key}", "not carried over: limits here are per minute and per hour")
    counted = {"credential": "key", "ip": "ip"}.get(str(config.get("limit_by", "consumer")))
    if counted:
        made["counted_by"] = counted
    elif config.get("limit_by", "consumer") != "consumer":
        found.note(f"{at}.limit_by", "not carried over: the limit is counted by caller")
    if isinstance(config.get("fault_tolerant"), bool):
        made["on_store_down"] = "allow" if config["fault_tolerant"] else "deny"
    used = {
        "second",
        "minute",
        "hour",
        "day",
        "month",
        "year",
        "limit_by",
        "fault_tolerant",
        "policy",
        "sync_rate",
    }
    silent = {key for key in config if key.startswith("redis")} | {
        "hide_client_headers",
        "path",
        "header_name",
    }
    found.leftover(config, used | silent, at)
    return made if {"requests_per_minute", "requests_per_hour"} & set(made) else {}


def _close(route: Route, at: str, found: Findings, why: str) -> None:
    route["enabled"] = False
    found.note(at, f"{why}; route {route['name']} is off until you turn it on")


def _key_auth(route: Route, config: Mapping[str, Any], at: str, found: Findings) -> None:
    _sign_in(route, config, at, found)
    route["hide_credentials"] = bool(config.get("hide_credentials"))
    if config.get("key_in_body"):
        found.note(f"{at}.key_in_body", "not carried over: keys are read from a header only")
    if config.get("key_in_query", True):
        found.note(at, "keys in the query are not carried over: they are read from a header only")
    known = {"anonymous", "hide_credentials", "key_in_body", "key_in_query", "key_in_header", "key_names"}
    found.leftover(config, known | {"run_on_preflight"}, at)


def _jwt(route: Route, config: Mapping[str, Any], at: str, found: Findings) -> None:
    _sign_in(route, config, at, found)
    if config.get("key_claim_name", "iss") != "iss":
        found.note(f"{at}.key_claim_name", "not carried over: issuers are told apart by iss")
    if config.get("secret_is_base64"):
        found.note(f"{at}.secret_is_base64", "not carried over: decode the issuers' secrets")
    if config.get("header_names", ["authorization"]) not in (["authorization"], ["Authorization"]):
        found.note(f"{at}.header_names", "not carried over: tokens are read from Authorization")
    found.note(at, "tokens in the query and in cookies are not read; exp is always required")
    known = {
        "anonymous",
        "key_claim_name",
        "secret_is_base64",
        "header_names",
        "claims_to_verify",
        "run_on_preflight",
    }
    found.leftover(config, known | {"uri_param_names", "cookie_names"}, at)


def _sign_in(route: Route, config: Mapping[str, Any], at: str, found: Findings) -> None:
    if config.get("anonymous"):
        found.note(
            f"{at}.anonymous", "the route is open to callers without credentials; those with bad ones too"
        )
        return
    if route.get("auth_required"):
        found.note(
            at, "Kong asked for the credentials of every plugin; here either an API key or a token will do"
        )
    route["auth_required"] = True


def _acl(route: Route, config: Mapping[str, Any], at: str, found: Findings) -> None:
    allow, deny = (
        config.get(new) or config.get(old) for new, old in (("allow", "whitelist"), ("deny", "blacklist"))
    )
    if deny:
        _close(route, at, found, "acl with denied groups is not carried over")
    if allow:
        groups = found.words(allow, f"{at}.allow")
        route["scopes"] = [any_of(groups)]
        route["auth_required"] = True
        found.note(at, f"the allowed groups became the scope {any_of(groups)}; tokens have to carry it too")
    found.leftover(config, {"allow", "whitelist", "deny", "blacklist", "hide_groups_header"}, at)


def any_of(groups: Sequence[str]) -> str:
    """The scope that members of any of these groups get: a route asks for all of its scopes, Kong's acl for any group."""
    return "-or-".join(re.sub(r"[^!#-\[\]-~]", "-", group) for group in sorted(groups))


def _rate_limiting(route: Route, config: Mapping[str, Any], at: str, found: Findings) -> None:
    made = limits(config, at, found)
    if made:
        route["rate_limit"] = made


def _rate_limiting_advanced(route: Route, config: Mapping[str, Any], at: str, found: Findings) -> None:
    windows = {60: "minute", 3600: "hour"}
    limit, window = (found.items(config.get(key), f"{at}.{key}") for key in ("limit", "window_size"))
    made: dict[str, Any] = {}
    for (place, count), (_, size_s) in zip(limit, window, strict=False):
        if size_s in windows and isinstance(count, int):
            made[windows[size_s]] = count
        else:
            found.note(
                place, f"{count} in {size_s} s is not carried over: limits here are per minute and per hour"
            )
    found.leftover(
        config, {"limit", "window_size", "sync_rate", "strategy", "identifier", "redis", "namespace"}, at
    )
    _rate_limiting(route, made, at, found)


def _transformer(plugin: str) -> Callable[[Route, Mapping[str, Any], str, Findings], None]:
    phase, body = _BODY_PLUGINS[plugin]
    sections = {"headers": "headers", "querystring": "query", body: "body"}

    def carry(route: Route, config: Mapping[str, Any], at: str, found: Findings) -> None:
        spec: dict[str, Any] = {}
        for verb in ("remove", "rename", "replace", "add", "append"):
            given = found.mapping(config.get(verb), f"{at}.{verb}")
            for key, section in sections.items():
                types = found.words(given.get(f"{key}_types"), f"{at}.{verb}.{key}_types")
                for i, (place, text) in enumerate(found.items(given.get(key), f"{at}.{verb}.{key}")):
                    kind = types[i] if i < len(types) else ("" if phase == "request" else "literal")
                    _carry_entry(spec, phase, section, verb, str(text), kind, place, found)
            found.leftover(given, {*sections, f"{body}_types", "uri"}, f"{at}.{verb}")
        uri = found.mapping(config.get("replace"), at).get("uri")
        if uri:
            _carry_uri(spec, route, str(uri), f"{at}.replace.uri", found)
        found.leftover(config, {"remove", "rename", "replace", "add", "append"}, at)
        if spec:
            route.setdefault("transforms", []).append({"name": f"{route['name']}-{plugin}", phase: spec})

    return carry


def _carry_entry(
    spec: dict[str, Any], phase: str, section: str, verb: str, text: str, kind: str, at: str, found: Findings
) -> None:
    """One `name:value` of Kong's. kind: of a JSON value in a response; "" is a template, as in a request."""
    name, _, value = text.partition(":")
    key = json_paths.escaped(name) if section == "body" else name
    if verb == "remove":
        _merge(spec, phase, section, verb, [key], at, found)
        if value:
            found.note(at, "is removed whatever its value is")
        return
    made: Any = value
    if verb == "rename":
        made = json_paths.escaped(value) if section == "body" else value
    elif kind in ("number", "boolean"):
        made = _typed(value, at, found)
    else:
        made = templates.escaped(value) if kind else _template(value, at, found)
    if made is not None:
        _merge(spec, phase, section, verb, {key: made}, at, found)


def _merge(
    spec: dict[str, Any], phase: str, section: str, verb: str, piece: Any, at: str, found: Findings
) -> None:
    wrong = edits.problems({section: {verb: piece}}, phase)
    if wrong:
        found.note(at, f"not carried over: {wrong[0]}")
        return
    verbs = spec.setdefault(section, {})
    verbs[verb] = verbs.get(verb, []) + piece if verb == "remove" else verbs.get(verb, {}) | piece


def _typed(value: str, at: str, found: Findings) -> Any:
    try:
        parsed = exact_json.loads(value.encode())
    except ValueError:
        parsed = None
    if not isinstance(parsed, bool | int | float):
        found.note(at, f"{value!r} is not carried over: no number, true or false")
        return None
    return parsed


def _template(text: str, at: str, found: Findings) -> str | None:
    """Kong's $(headers["x"]) in our spelling, None for an expression that has none."""
    made, end = "", 0
    for expression in _EXPRESSION.finditer(text):
        lookup = _LOOKUP.fullmatch(expression[1].strip())
        if lookup is None or lookup[1] == "uri_captures":
            found.note(at, f"{expression[0]} is not carried over: no placeholder stands for it")
            return None
        name = next(part for part in lookup.groups()[1:] if part is not None)
        made += templates.escaped(text[end : expression.start()]) + f"{{{_SOURCES[lookup[1]]}.{name}}}"
        end = expression.end()
    return made + templates.escaped(text[end:])


def _carry_uri(spec: dict[str, Any], route: Route, text: str, at: str, found: Findings) -> None:
    """Another path. Captures are those of the route's own pattern, so the pattern is matched again."""
    captures = [m for m in map(_LOOKUP.fullmatch, (e.strip() for e in _EXPRESSION.findall(text))) if m]
    if any(capture[1] == "uri_captures" for capture in captures) and route["path_kind"] == "regex":
        pattern = route["path"] if route["path"].endswith(".*") else f"{route['path']}.*"
        plain = _EXPRESSION.sub(lambda e: _as_group(e[1]), text)
        piece: dict[str, Any] = {"replace": {"pattern": pattern, "with": plain}}
    else:
        template = _template(text, at, found)
        if template is None:
            return
        piece = {"template": template}
    wrong = edits.problems({"path": piece}, "request")
    if wrong:
        found.note(at, f"not carried over: {wrong[0]}")
        return
    spec["path"] = piece
    # It stands for the whole path: nothing is cut off or put in front any more.
    route.pop("strip_prefix", None)
    route["transforms"] = [t for t in route.get("transforms", ()) if set(t.get("request", ())) != {"path"}]


def _as_group(expression: str) -> str:
    lookup = _LOOKUP.fullmatch(expression.strip())
    if lookup is None:
        return f"$({expression})"
    name = next(part for part in lookup.groups()[1:] if part is not None)
    return f"{{{name}}}" if lookup[1] == "uri_captures" else f"{{{_SOURCES[lookup[1]]}.{name}}}"


_KNOWN: dict[str, Callable[[Route, Mapping[str, Any], str, Findings], None]] = {
    "key-auth": _key_auth,
    "jwt": _jwt,
    "acl": _acl,
    "rate-limiting": _rate_limiting,
    "rate-limiting-advanced": _rate_limiting_advanced,
    "request-transformer": _transformer("request-transformer"),
    "response-transformer": _transformer("response-transformer"),
}
