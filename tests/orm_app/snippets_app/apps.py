from __future__ import annotations

from django.apps import AppConfig


class SnippetsAppConfig(AppConfig):
    name = "tests.orm_app.snippets_app"
    label = "snippets_app"
