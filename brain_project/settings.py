"""Django's settings. The only reader of the environment (through env.py); docs/settings.md lists the variables.

Unset URLs mean the embedded default: SQLite and Valkey under the data directory, made on first use in development.
"""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from orm_app.databases import BadURL

from . import broker, data_dir, databases
from .admin_menu import favicon, navigation, stylesheet
from .env import BadVariable, Env
from .logs import logging_config

env = Env()
BASE_DIR = Path(__file__).resolve().parent.parent
_LOCAL_HOSTS = ["localhost", ".localhost", "127.0.0.1", "[::1]"]

try:
    BRAIN_ENV = env.choice("BRAIN_ENV", "development", ("development", "production"))
    PRODUCTION = BRAIN_ENV == "production"
    DEBUG = env.flag("BRAIN_DEBUG", default=False)
    LOG_JSON = env.flag("BRAIN_LOG_JSON", default=PRODUCTION)
    LOG_LEVEL = env.choice("BRAIN_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
    BRAIN_DATA_DIR = Path(env.text("BRAIN_DATA_DIR", str(BASE_DIR / ".brain"))).expanduser().resolve()
    DATABASE_URL = env.text("DATABASE_URL")
    _database_urls = env.named_urls("DATABASE_URLS")
    _replica_urls = env.named_urls("DATABASE_REPLICA_URLS")
    _database_apps = env.pairs("DATABASE_APPS")
    # Uvicorn and gunicorn take their number of processes from WEB_CONCURRENCY.
    _database_processes = env.count("DATABASE_PROCESSES", env.count("WEB_CONCURRENCY", 1))
    REDIS_URL = env.text("REDIS_URL")
    BROKER_URL = env.text("BROKER_URL")
    _backup_dir = env.text("BRAIN_BACKUP_DIR", str(BRAIN_DATA_DIR / "backups"))
    DEMO = env.flag("BRAIN_DEMO", default=not DATABASE_URL and not PRODUCTION)
    SECRET_KEY = env.text("BRAIN_SECRET_KEY")
    JWT_SECRET = env.text("BRAIN_JWT_SECRET")
    ALLOWED_HOSTS = env.names("BRAIN_ALLOWED_HOSTS", [] if PRODUCTION else _LOCAL_HOSTS)
    CSRF_TRUSTED_ORIGINS = env.names("BRAIN_CSRF_TRUSTED_ORIGINS", [])
    SECURE_SSL_REDIRECT = env.flag("BRAIN_SSL_REDIRECT", default=PRODUCTION)
    # An edge that starts while the database is down starts from this copy; in production somebody says where it is kept.
    _snapshot = env.text(
        "BRAIN_GATEWAY_SNAPSHOT", "" if PRODUCTION else str(BRAIN_DATA_DIR / "gateway-snapshot.json")
    )
    EMAIL_HOST = env.text("BRAIN_SMTP_HOST", "127.0.0.1")
    EMAIL_PORT = env.count("BRAIN_SMTP_PORT", 1025)
    EMAIL_HOST_USER = env.text("BRAIN_SMTP_USER")
    EMAIL_HOST_PASSWORD = env.text("BRAIN_SMTP_PASSWORD")
    _smtp_tls = env.choice("BRAIN_SMTP_TLS", "none", ("none", "starttls", "implicit"))
    _queue = {
        "VERSION": env.text("BRAIN_VERSION"),
        "ALERT_WEBHOOKS": tuple(env.names("BRAIN_ALERT_WEBHOOKS", [])),
        "ALERT_SECRET": env.text("BRAIN_ALERT_SECRET"),
        "ALERT_MAIL": tuple(env.names("BRAIN_ALERT_MAIL", [])),
    }
except BadVariable as error:
    raise ImproperlyConfigured(str(error)) from error

# --- secrets and the embedded default -------------------------------------------------------------------------------
EMBEDDED_DATABASE = not DATABASE_URL
EMBEDDED_REDIS = not REDIS_URL
if not PRODUCTION:
    data_dir.make(BRAIN_DATA_DIR)
    SECRET_KEY = SECRET_KEY or data_dir.secret(BRAIN_DATA_DIR / "secret_key")
    JWT_SECRET = JWT_SECRET or data_dir.secret(BRAIN_DATA_DIR / "jwt_secret")
else:
    data_dir.refuse_missing(
        BRAIN_SECRET_KEY=SECRET_KEY,
        BRAIN_JWT_SECRET=JWT_SECRET,
        DATABASE_URL=DATABASE_URL,
        REDIS_URL=REDIS_URL,
    )
try:
    DATABASES = databases.configured(
        DATABASE_URL or f"sqlite:///{BRAIN_DATA_DIR / 'db.sqlite3'}", _database_urls, _replica_urls
    )
except BadURL as error:
    raise ImproperlyConfigured(str(error)) from error
DATABASE_ROUTERS = ["orm_app.router.Router"]
VALKEY_SOCKET = data_dir.socket_path(BRAIN_DATA_DIR)
if EMBEDDED_REDIS:
    REDIS_URL = f"unix://{VALKEY_SOCKET}?db=0"
try:
    # Redis and Valkey through the queue's own transport, which loses no message; stock-redis://… keeps Kombu's.
    BROKER_URL = broker.url(BROKER_URL or REDIS_URL)
except ValueError as error:
    raise ImproperlyConfigured(f"BROKER_URL: {error}") from error

# --- Django ----------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "brain_project.apps.BrainProjectConfig",
    "unfold",
    "unfold.contrib.filters",
    "brain_project.admin_site.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "django_structlog",
    "foundation.apps.FoundationConfig",
    "orm_app.apps.OrmAppConfig",
    "orm_app.sql_app.apps.SQLMigrationsConfig",
    "cache_app.apps.CacheAppConfig",
    "queue_app.apps.QueueAppConfig",
    "gateway.apps.GatewayConfig",
]
if importlib.util.find_spec("django_tasks"):  # on Django 5.2; requirements-tasks.txt
    INSTALLED_APPS.append("django_tasks")
TASKS = {"default": {"BACKEND": "queue_app.django_tasks.LedgerBackend", "QUEUES": []}}
if DEMO:
    INSTALLED_APPS.append("examples.tasks_service.apps.TasksServiceConfig")
MIDDLEWARE = [
    "foundation.request_id.RequestIdMiddleware",  # first: every answer and every log line carries the id
    "brain_project.proxied.ProxiedMiddleware",  # what is not ours needs nothing of the following
    "orm_app.middleware.UnitOfWorkMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",  # the admin's files without DEBUG and without a second server
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "foundation.problems.ProblemMiddleware",
]
ROOT_URLCONF = "brain_project.urls"
WSGI_APPLICATION = "brain_project.wsgi.application"
ASGI_APPLICATION = "brain_project.asgi.application"
APPEND_SLASH = False  # the proxy door is the last pattern: a redirect would guess about somebody else's paths
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "brain_project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_USER_MODEL = "orm_app.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
FORMAT_MODULE_PATH = "brain_project.formats"  # DATETIME_FORMAT itself would lose against the locale's
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
EMAIL_USE_TLS, EMAIL_USE_SSL = _smtp_tls == "starttls", _smtp_tls == "implicit"
EMAIL_TIMEOUT = 10  # Django's own is none: a server that hangs would hold whoever sends for ever
DEFAULT_FROM_EMAIL = env.text("BRAIN_MAIL_FROM", "brain@localhost")

# --- security ----------------------------------------------------------------------------------------------------------
# Whoever probes and scrapes talks to the process itself, where nobody speaks TLS.
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^metrics$"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env.flag("BRAIN_BEHIND_TLS_PROXY", default=False) else None
)
X_FRAME_OPTIONS = "DENY"

# --- the libraries -------------------------------------------------------------------------------------------------------
CACHES = {
    "default": {
        "BACKEND": "cache_app.redis.BrainRedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "brain-cache",  # "brain:" is the gateway's: clearing the cache must not empty its limits
        "TIMEOUT": 300,
    },
    "tiered": {  # this process's memory in front of Redis
        "BACKEND": "cache_app.tiered.TieredCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "brain-tiered",
        "TIMEOUT": 300,
    },
    "memory": {"BACKEND": "cache_app.memory.MemoryCache", "KEY_PREFIX": "brain-cache", "TIMEOUT": 300},
    "files": {
        "BACKEND": "cache_app.file.FileCache",
        "LOCATION": str(BRAIN_DATA_DIR / "cache"),
        "KEY_PREFIX": "brain-cache",
        "TIMEOUT": 300,
    },
}
UNFOLD = {
    "SITE_TITLE": "Brain Platform",
    "SITE_HEADER": "Brain Platform",
    "SITE_SYMBOL": "hub",
    "SITE_URL": None,  # the site is the admin: "Return to site" would lead back to the login
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": favicon}],
    "LOGIN": {"form": "brain_project.login.CountedForm"},
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "brain_project.overview.dashboard",
    "STYLES": [stylesheet],
    "SIDEBAR": {"show_search": True, "navigation": navigation},
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "gateway.issuers.BearerAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["foundation.roles.RolePermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["foundation.api.JsonParser"],
    "EXCEPTION_HANDLER": "foundation.problems.exception_handler",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.CursorPagination",
    "PAGE_SIZE": 50,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "DEFAULT_SCHEMA_CLASS": "foundation.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Brain Platform",
    "DESCRIPTION": "Gateway, queue, cache and databases. Errors are application/problem+json (RFC 9457).",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["foundation.roles.RolePermission"],
    "PREPROCESSING_HOOKS": ["foundation.openapi.described"],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,  # a secret goes in and does not come out
    "ENUM_NAME_OVERRIDES": {
        "TargetState": "gateway.models.service.STATES",
        "KeyState": "gateway.api.keys.STATES",
        "JobState": "queue_app.states.State",
        "AlertState": "queue_app.alerts.State",
        "WorkflowKind": ["chain", "group", "batch"],
    },
    "ENUM_SUFFIX": "",
    "ENABLE_DJANGO_DEPLOY_CHECK": False,  # tests hold the schema; a server need not make it to start
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": JWT_SECRET,
    "ISSUER": "brain",
    "ACCESS_TOKEN_LIFETIME": timedelta(hours=1),
    "UPDATE_LAST_LOGIN": False,
}
RATELIMIT_USE_CACHE = "default"
SILENCED_SYSTEM_CHECKS = [
    "models.W037",  # MySQL has no partial indexes: the queue's migration gives it whole ones
    "django_ratelimit.W001",  # knows backends by their dotted name; ours is django-redis, a shared and atomic one
]
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True  # RequestIdMiddleware has vetted it
LOGGING = logging_config(json=LOG_JSON, level=LOG_LEVEL)

CELERY_BROKER_URL = BROKER_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = CELERY_EVENT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_BEAT_SCHEDULER = "queue_app.beat:Scheduler"  # fires what the workers fire, once
CELERY_TASK_ACKS_LATE = True  # at least once
CELERY_TASK_RETRY_ON_WORKER_LOST = True  # a child of the pool that died counts as a retry
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = broker.transport_options(BROKER_URL, env.text("BRAIN_SENTINEL_MASTER"))

# --- ours: one dict, a section an app; see each app's conf.py and docs/settings.md ---------------------------------------
BRAIN: dict[str, dict[str, object]] = {
    "FOUNDATION": {"ALLOW_PRIVATE_TARGETS": not PRODUCTION, "ALLOW_LOOPBACK_TARGETS": not PRODUCTION},
    "GATEWAY": {"SNAPSHOT_FILE": _snapshot},
    "CACHE": {},
    # `up` ends within 10 s; a supervisor in production gives a worker the default and 10 s more.
    "QUEUE": {**_queue, **({} if PRODUCTION else {"WARM_STOP_S": 4.0})},
    "DATABASE": {"APPS": _database_apps, "BACKUP_DIR": _backup_dir, "PROCESSES": _database_processes},
}
