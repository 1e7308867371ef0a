from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIRequestFactory, force_authenticate

from cache_app.api import StatusView


@pytest.mark.django_db
def test_status__viewer__sees_server_and_functions(django_user_model: Any) -> None:
    request = APIRequestFactory().get("/api/v1/cache/status")
    force_authenticate(request, django_user_model.objects.create_superuser("root", "root@example.com", "x"))
    answer = StatusView.as_view()(request)
    assert answer.status_code == 200
    assert {"server", "keys", "functions"} <= set(answer.data)


@pytest.mark.django_db
@pytest.mark.usefixtures("redis_down")
def test_status__redis_gone__is_503(django_user_model: Any) -> None:
    request = APIRequestFactory().get("/api/v1/cache/status")
    force_authenticate(request, django_user_model.objects.create_superuser("root", "root@example.com", "x"))
    assert StatusView.as_view()(request).status_code == 503
