"""Django's settings of the usual side: defaults wherever there are defaults."""

from __future__ import annotations

import os

SECRET_KEY = "a benchmark on loopback"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "benchmarks.usual"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = f"benchmarks.usual.{os.environ.get('USUAL_ROLE', 'service')}"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["USUAL_DATABASE"],
        "OPTIONS": {"timeout": 20},  # with the default of 5 s "database is locked" ends the benchmark
    }
}
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": os.environ["USUAL_REDIS_URL"]}}
CELERY_BROKER_URL = os.environ["USUAL_REDIS_URL"]
CELERY_TASK_IGNORE_RESULT = True
EMAIL_HOST, EMAIL_PORT = "127.0.0.1", int(os.environ["USUAL_SMTP_PORT"])
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_THROTTLE_RATES": {"user": "10000000/min"},  # checked for every request, never reached
    "UNAUTHENTICATED_USER": None,
}
API_KEY = os.environ["USUAL_API_KEY"]
TARGETS = os.environ.get("USUAL_TARGETS", "").split(",")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
