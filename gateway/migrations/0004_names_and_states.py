from typing import Any

from django.db import migrations
from django.db.models import F


def fill(apps: Any, schema_editor: Any) -> None:
    alias = schema_editor.connection.alias
    apps.get_model("gateway", "Route").objects.using(alias).update(name=F("path"))
    apps.get_model("gateway", "Target").objects.using(alias).filter(enabled=False).update(state="off")


def empty(apps: Any, schema_editor: Any) -> None:
    alias = schema_editor.connection.alias
    apps.get_model("gateway", "Target").objects.using(alias).exclude(state="active").update(enabled=False)


class Migration(migrations.Migration):
    """Routes were known by their paths; a target was enabled or not."""

    dependencies = [("gateway", "0003_full_model")]

    operations = [migrations.RunPython(fill, empty)]
