"""The page that `up` prints when the platform is ready: URLs, the login and commands to copy, all of which work."""

from __future__ import annotations

from json import dumps
from typing import Any

READY = "Brain Platform is ready"


def page(state: dict[str, Any], *, seconds: float, note: str = "") -> str:
    """The text for up.json's `state`. seconds: from the start of `up` to ready."""
    site, edge = state["site"], state["edge"]
    lines = [f"{READY} ({seconds:.1f} s). Ctrl-C stops it.", ""]
    lines += [f"  Admin    {site}/admin/", f"  API      {site}/api/v1/", f"  Edge     {edge}"]
    lines += [
        f"  Health   {edge}/gateway/health   {site}/readyz",
        f"  Metrics  {edge}/gateway/metrics   {site}/metrics",
    ]
    admin = state["admin"]
    if admin:
        lines += [
            "",
            f"  Log in as {admin['username']} with {admin['password'] or 'the password that you set'}",
        ]
    if note:
        lines += ["", f"  {note}"]
    if state["api_key"]:
        lines += ["", "Try it:", *(f"  {command}" for command in commands(state))]
    return "\n".join(lines)


def commands(state: dict[str, Any]) -> list[str]:
    """The demo's commands; every one is a line for a POSIX shell."""
    edge, key = state["edge"], f"-H 'X-API-Key: {state['api_key']}'"
    typed = "-H 'Content-Type: application/json'"
    task = '{"title": "Try the platform", "assignee_email": "%s"}'
    lines = [
        f"curl -i {key} {edge}/api/v1/tasks",
        f"curl -i {key} {typed} -d '{task % 'you@example.com'}' {edge}/api/v1/tasks",
        f"curl -i {key} {typed} -d '{task % 'poison@example.com'}' {edge}/api/v1/tasks",
        f"curl -i {key} {state['site']}/api/v1/stats",
        f"curl -i {edge}/api/v1/tasks",
        f"curl -s {edge}/gateway/health",
        f"curl -s {edge}/gateway/metrics",
    ]
    admin = state["admin"]
    if admin and admin["password"]:
        login = dumps({"username": admin["username"], "password": admin["password"]})
        take = r"""sed 's/.*"access": *"\([^"]*\)".*/\1/'"""
        lines.append(f"TOKEN=$(curl -s {typed} -d '{login}' {state['token_url']} | {take})")
        lines.append(f'curl -i -H "Authorization: Bearer $TOKEN" {edge}/api/v1/stats')
    return lines
