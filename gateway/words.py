"""How the document's keys and the models' fields are called: one table for reading and for writing a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from . import routing, tokens
from .balancer import STRATEGIES

TARGET_STATES = ("active", "draining", "off")


@dataclass(frozen=True, slots=True)
class Word:
    """field: of the model. kind: the name of a method of reading.Reader. choices: for "choice" alone."""

    field: str
    kind: str = "text"
    choices: tuple[str, ...] = ()


Words: TypeAlias = "Mapping[str, Word | Words]"


def _choice(field: str, *choices: str) -> Word:
    return Word(field, "choice", choices)


SERVICE: Words = {
    "strategy": _choice("strategy", *STRATEGIES),
    "hash_on": Word("hash_on"),
    "connect_timeout": Word("connect_timeout_s", "number"),
    "response_timeout": Word("response_timeout_s", "number"),
    "idle_timeout": Word("idle_timeout_s", "number"),
    "total_timeout": Word("total_timeout_s", "number"),
    "breaker": {
        "window": Word("breaker_window_s", "number"),
        "volume": Word("breaker_volume", "count"),
        "failure_ratio": Word("breaker_failure_ratio", "number"),
        "slow": Word("breaker_slow_s", "number"),
        "slow_ratio": Word("breaker_slow_ratio", "number"),
        "open": Word("breaker_open_s", "number"),
        "open_max": Word("breaker_open_max_s", "number"),
        "probes": Word("breaker_probes", "count"),
    },
    "retry": {
        "retries": Word("retries", "count"),
        "budget_ratio": Word("retry_budget_ratio", "number"),
        "budget_min": Word("retry_budget_min", "count"),
    },
    "health": {
        "enabled": Word("health_enabled", "flag"),
        "path": Word("health_path"),
        "statuses": Word("health_statuses"),
        "interval": Word("health_interval_s", "number"),
        "timeout": Word("health_timeout_s", "number"),
        "healthy_after": Word("healthy_after", "count"),
        "unhealthy_after": Word("unhealthy_after", "count"),
        "eject_after": Word("eject_after", "count"),
        "eject": Word("eject_s", "number"),
        "eject_most_percent": Word("eject_most_percent", "count"),
        "slow_start": Word("slow_start_s", "number"),
    },
    "tls": {"ca": Word("tls_ca"), "server_name": Word("tls_server_name")},
    "fallback": {
        "status": Word("fallback_status", "count"),
        "type": Word("fallback_type"),
        "body": Word("fallback_body"),
        "stale": Word("stale_s", "number"),
    },
}
TARGET: Words = {
    "url": Word("url"),
    "weight": Word("weight", "count"),
    "state": _choice("state", *TARGET_STATES),
}
ROUTE: Words = {
    "name": Word("name"),
    "hosts": Word("hosts", "words"),
    "path": Word("path"),
    "path_kind": _choice("path_kind", *routing.KINDS),
    "methods": Word("methods", "words"),
    "headers": Word("headers", "texts"),
    "service": Word("service"),
    "plan": Word("plan"),
    "auth_required": Word("auth_required", "flag"),
    "roles": Word("roles", "words"),
    "scopes": Word("scopes", "words"),
    "cost": Word("cost", "count"),
    "timeout": Word("timeout_s", "number"),
    "strip_prefix": Word("strip_prefix", "flag"),
    "host_header": _choice("host_header", "target", "preserve"),
    "hide_credentials": Word("hide_credentials", "flag"),
    "enabled": Word("enabled", "flag"),
}
TRANSFORM: Words = {
    "name": Word("name"),
    "position": Word("position", "count"),
    "request": Word("request", "mapping"),
    "response": Word("response", "mapping"),
    "plugin": Word("plugin"),
    "settings": Word("settings", "mapping"),
    "on_failure": _choice("on_failure", "continue", "refuse"),
    "enabled": Word("enabled", "flag"),
}
PLAN: Words = {
    "requests_per_minute": Word("requests_per_minute", "count"),
    "requests_per_hour": Word("requests_per_hour", "count"),
    "burst_limit": Word("burst_limit", "count"),
    "counted_by": _choice("counted_by", "caller", "key", "ip"),
    "exact": Word("exact", "flag"),
    "on_store_down": _choice("on_store_down", "", "local", "allow", "deny"),
}
# What the customer's document says of the one issuer that signs.
SIGNER: Words = {
    "jwt_algorithm": _choice("algorithm", *tokens.HMAC_HASHES),
    "jwt_expiry": Word("expiry_s", "count"),
    "jwt_issuer": Word("issuer"),
    "jwt_audience": Word("audience"),
}
ISSUER: Words = {
    "algorithm": _choice("algorithm", *tokens.ALGORITHMS),
    "public_key": Word("public_key"),
    "jwks_url": Word("jwks_url"),
    "issuer": Word("issuer"),
    "audience": Word("audience"),
    "leeway": Word("leeway_s", "number"),
    "roles_claim": Word("roles_claim"),
    "scopes_claim": Word("scopes_claim"),
    "expiry": Word("expiry_s", "count"),
    "signs": Word("signs", "flag"),
    "enabled": Word("enabled", "flag"),
}
CONSUMER: Words = {
    "roles": Word("roles", "words"),
    "scopes": Word("scopes", "words"),
    "plan": Word("plan"),
    "enabled": Word("enabled", "flag"),
}
KEY: Words = {
    "sha256": Word("digest"),
    "prefix": Word("prefix"),
    "scopes": Word("scopes", "words"),
    "expires": Word("expires_at", "time"),
}
