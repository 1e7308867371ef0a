"""The platform's settings for this service: its own URLs, and only the apps and middleware that it needs."""

from __future__ import annotations

from brain_project.settings import *  # noqa: F403

ROOT_URLCONF = "examples.tasks_service.urls"
# Without the admin, the gateway and the API framework an instance is half the size.
INSTALLED_APPS = [
    "brain_project.apps.BrainProjectConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_structlog",
    "foundation.apps.FoundationConfig",
    "orm_app.apps.OrmAppConfig",
    "cache_app.apps.CacheAppConfig",
    "queue_app.apps.QueueAppConfig",
    "examples.tasks_service.apps.TasksServiceConfig",
]
MIDDLEWARE = [
    "foundation.request_id.RequestIdMiddleware",
    "django.middleware.common.CommonMiddleware",  # Content-Length
    "django_structlog.middlewares.RequestMiddleware",
    "foundation.problems.ProblemMiddleware",
]
