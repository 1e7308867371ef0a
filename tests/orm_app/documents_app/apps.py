from __future__ import annotations

from django.apps import AppConfig


class DocumentsAppConfig(AppConfig):
    name = "tests.orm_app.documents_app"
    label = "documents_app"
    default_auto_field = "django_mongodb_backend.fields.ObjectIdAutoField"
