"""The site's doors: admin, API, health and metrics; what is left goes through the gateway's DRF door."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from gateway.views import ProxyView

from . import login, overview, views

admin.autodiscover()

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/"), name="index"),
    path("admin/overview/", admin.site.admin_view(overview.fragment), name="admin-overview"),
    path("admin/login/", login.login),
    path("admin/password_change/", admin.site.admin_view(login.change_password, cacheable=True)),
    path("admin/cache/", include("cache_app.admin.urls")),
    path("admin/database/", include("orm_app.admin.urls")),
    path("admin/", admin.site.urls),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.metrics, name="metrics"),
    path("api/v1/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/v1/gateway/", include("gateway.urls")),
    path("api/v1/queue/", include("queue_app.urls")),
    path("api/v1/cache/", include("cache_app.urls")),
    path("api/v1/database/", include("orm_app.urls")),
    re_path(r"^(?P<path>.*)$", ProxyView.as_view(), name="proxy"),
]

handler400 = "foundation.problems.handler400"
handler403 = "foundation.problems.handler403"
handler404 = "foundation.problems.handler404"
handler500 = "foundation.problems.handler500"
