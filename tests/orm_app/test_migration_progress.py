from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from rich.console import Console

from .migrating import Package, alias_of

pytestmark = pytest.mark.django_db(transaction=True)

FILL = 'def fill(apps, editor):\n    Thing = apps.get_model("migrated", "Thing")\n    Thing.objects.using(editor.connection.alias).bulk_create([Thing() for _ in range(1200)])\n'


@pytest.fixture
def alias(tmp_path, monkeypatch, settings, django_db_blocker):
    package = Package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.orm_app.migrated_app"]
    settings.MIGRATION_MODULES = {"migrated": package.name}
    thing = 'migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True)), ("n", models.IntegerField(default=1))])'
    package.write(
        "0001_initial", f"{thing}, migrations.RunPython(fill, migrations.RunPython.noop)", head=FILL
    )
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{tmp_path}/m.sqlite3") as alias:
        yield alias


def test_watch__on_a_terminal__operations_rows_and_time(alias, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150)
    monkeypatch.setattr("orm_app.management.commands.migrate._terminal", lambda stream: console)
    call_command("migrate", "migrated", database=alias, stdout=io.StringIO())
    assert "Applied migrated.0001_initial (2 operations, 1,200 rows, " in screen.getvalue()
    call_command("migrate", "migrated", "zero", database=alias, stdout=io.StringIO())
    assert "Unapplied migrated.0001_initial" in screen.getvalue()


def test_watch__not_a_terminal__the_lines_of_django(alias):
    out = io.StringIO()
    call_command("migrate", "migrated", database=alias, stdout=out, no_color=True)
    assert "Applying migrated.0001_initial... OK" in out.getvalue()
