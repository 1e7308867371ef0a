"""Django's settings of the usual side: defaults wherever there are defaults."""

from __future__ import annotations

import os

SECRET_KEY = "a benchmark on loopback"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "benchmarks.gateway.peers.usual.proxy"
WSGI_APPLICATION = "benchmarks.gateway.peers.usual.wsgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}  # never asked
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": os.environ["BENCH_REDIS_URL"]}}
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    # The throttle keeps the time of each request of the window, so a second's worth is the least it can carry.
    "DEFAULT_THROTTLE_RATES": {"user": f"{os.environ['BENCH_LIMIT']}/s"},
    "UNAUTHENTICATED_USER": None,
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": os.environ["BENCH_SECRET"],
    "ISSUER": os.environ["BENCH_ISSUER"],
}
TARGETS = os.environ["BENCH_TARGETS"].split(",")
ROUTES = int(os.environ["BENCH_ROUTES"])
ROLE = os.environ["BENCH_ROLE"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
