"""Documents that several test modules apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway import config

# The customer's document, word for word.
SEED = """\
authentication:
  jwt_secret: "your-secret-key"
  jwt_algorithm: "HS256"
  jwt_expiry: 3600
  api_key_header: "X-API-Key"
  api_keys:
    demo-key: "demo-secret"

routes:
  - path: "/api/v1/tasks"
    target_url: "http://localhost:8001"
    methods: ["GET", "POST", "PUT", "DELETE"]
    rate_limit:
      requests_per_minute: 60
      requests_per_hour: 1000
      burst_limit: 10
    auth_required: true
    timeout: 30
"""
EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway.yaml"


class Deep:
    """A plugin."""

    def __init__(self, depth: list[float | None]) -> None:
        self.depth = depth

    def on_error(self, request: Any, failure: Any) -> None:
        """Says nothing to it."""


# Every key of the format once, none with its default.
FULL = """\
authentication:
  jwt_secret: "0123456789abcdef0123456789abcdef"
  jwt_algorithm: HS512
  jwt_expiry: 600
  jwt_issuer: us
  jwt_audience: them
  api_key_header: X-Key
  api_keys:
    robot:
      key: "a-key-of-more-than-twenty-characters"
      roles: [viewer]
      scopes: [read, write]
      plan: gold
      enabled: false
    other:
      key_sha256:
        - "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        - {sha256: "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", prefix: abc12345, scopes: [read], expires: 2100-01-31}
issuers:
  partner:
    algorithm: ES256
    jwks_url: "https://93.184.216.34/keys"
    issuer: them
    audience: us
    leeway: 5
    roles_claim: groups
    scopes_claim: scp
    expiry: 60
    enabled: false
  second:
    secret: "fedcba9876543210fedcba9876543210"
plans:
  gold: {requests_per_minute: 600, requests_per_hour: 10000, burst_limit: 50, counted_by: key, exact: true, on_store_down: deny}
services:
  tasks:
    strategy: consistent_hash
    hash_on: "header:X-User"
    connect_timeout: 1
    response_timeout: 2.5
    idle_timeout: 3
    total_timeout: 4
    breaker: {window: 20, volume: 5, failure_ratio: 0.25, slow: 0.5, slow_ratio: 0.75, open: 2, open_max: 30, probes: 2}
    retry: {retries: 1, budget_ratio: 0.1, budget_min: 0}
    health: {enabled: false, path: /healthz, statuses: "200", interval: 1, timeout: 0.5, healthy_after: 1, unhealthy_after: 2, eject_after: 0, eject: 10, eject_most_percent: 20, slow_start: 15}
    tls:
      ca: |
        -----BEGIN CERTIFICATE-----
        MIIBKTCB0KADAgECAgEBMAoGCCqGSM49BAMCMBMxETAPBgNVBAMMCG9kZC50ZXN0
        MCAXDTI2MDEwMTAwMDAwMFoYDzIxMDAwMTAxMDAwMDAwWjATMREwDwYDVQQDDAhv
        ZGQudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKX/rdb/FNC8PKZsVUSD
        sO5X/JG8qgboGjtB82ahN72exD4hKcZqed3soHmwGLY9kYCmpwACitsVx+EBWKPN
        c2OjEzARMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAOqhDIfm
        MCqJtRgsIs04/YS6+7UYrOR+2HKYLrC4dLUmAiAjA4vixdETm4CTnsOmumlPvJeR
        cf0ha2CqcZXycD2gLQ==
        -----END CERTIFICATE-----
      server_name: tasks.internal
    fallback: {status: 200, type: text/plain, body: "later", stale: 60}
    targets:
      - "https://93.184.216.34"
      - {url: "unix:/run/tasks.sock", weight: 3, state: draining}
    transforms:
      - {name: stamp, response: {headers: {set: {X-Stamp: "1"}}}}
routes:
  - name: tasks
    hosts: [api.example.com, "*.example.org"]
    path: /tasks/{id}
    path_kind: template
    methods: [get, POST]
    headers: {X-Version: "2"}
    service: tasks
    plan: gold
    auth_required: false
    roles: [operator]
    scopes: [read]
    cost: 2
    timeout: 7.5
    strip_prefix: true
    host_header: preserve
    hide_credentials: false
    enabled: false
    transforms:
      - {name: a, request: {path: {add_prefix: /x}}, plugin: tests.gateway.documents.Deep, settings: {depth: [1, 2.5, null]}, on_failure: refuse, enabled: false}
      - {name: b, position: 7}
  - path: "/tasks"
    target_url: "http://127.0.0.1:9000"
    rate_limit: {requests_per_hour: 5}
"""


def put(text: str, *, prune: bool = False) -> list[config.Change]:
    return config.apply(config.load(text), prune=prune, actor="tester", source="cli")
