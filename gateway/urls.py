"""Mounted by the site at /api/v1/gateway/."""

from __future__ import annotations

from django.urls import path

from . import api

urlpatterns = [
    path("token", api.TokenView.as_view(), name="gateway-token"),
    path("token/refresh", api.RefreshView.as_view(), name="gateway-token-refresh"),
    path("routes", api.RouteList.as_view(), name="gateway-routes"),
    path("routes/<int:pk>", api.RouteDetail.as_view(), name="gateway-route"),
    path("status", api.StatusView.as_view(), name="gateway-status"),
]
