"""Requests for the gateway's routes leave the site's middleware aside; our own pages do not."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def test_proxied__unknown_path__answered_by_the_gateway_without_our_pages_headers(client: Client) -> None:
    answer = client.get("/nothing/of/ours")
    assert (answer.status_code, answer["X-Brain-Error"]) == (404, "route_not_found")
    assert answer["X-Request-Id"]
    assert not {"X-Frame-Options", "X-Content-Type-Options"} & set(answer.headers)


def test_proxied__our_own_page__has_them(client: Client) -> None:
    answer = client.get("/admin/login/")
    assert (answer.status_code, answer["X-Frame-Options"]) == (200, "DENY")


@pytest.mark.parametrize("path", ["/nothing/of/ours", "/admin/login/"])
def test_proxied__foreign_host__400_for_both(client: Client, path: str) -> None:
    assert client.get(path, headers={"Host": "evil.example"}).status_code == 400


def test_proxied__file_of_the_admin__served_by_whitenoise(client: Client) -> None:
    answer = client.get("/static/brain/admin.css")
    answer.close()
    assert (answer.status_code, answer["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert client.get("/static/brain/nothing.css")["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/metrics", 200), ("/admin/", 301)])
def test_redirect_to_https__probes_and_scrapes__are_answered(path: str, status: int, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get(path).status_code == status
