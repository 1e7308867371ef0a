"""The gateway: a DRF view that checks a key and a rate and calls the service with `requests`."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

import requests
from django.conf import settings
from django.http import HttpResponse
from django.urls import re_path
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView

targets = itertools.cycle(settings.TARGETS)
session = requests.Session()  # kept open; many such views open a connection for every call
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))


class Consumer:
    pk = 1
    is_authenticated = True


class KeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[Any, None]:
        if not secrets.compare_digest(request.headers.get("X-API-Key", ""), settings.API_KEY):
            raise AuthenticationFailed
        return Consumer(), None


class ProxyView(APIView):
    authentication_classes = (KeyAuthentication,)
    throttle_classes = (UserRateThrottle,)

    def dispatch_upstream(self, request: Request, path: str) -> HttpResponse:
        answer = session.request(
            request.method,
            f"{next(targets)}/{path}",
            params=request.query_params,
            data=request.body,
            headers={"Content-Type": request.content_type or "application/json"},
            timeout=30,
        )
        return HttpResponse(
            answer.content, status=answer.status_code, content_type=answer.headers["Content-Type"]
        )

    get = post = put = delete = dispatch_upstream


urlpatterns = [re_path(r"^(?P<path>.*)$", ProxyView.as_view())]
