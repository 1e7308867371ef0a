"""Tasks in modules that nobody has imported yet: found by their dotted names, if an installed app has the module."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from django.apps import apps

from queue_app import registry

APP = "tests.queue_app.jobs_app"
NAME = f"{APP}.slow_module.answer"


@pytest.fixture
def _app(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the app were installed, and its module not imported."""
    monkeypatch.setattr(
        apps, "get_containing_app_config", lambda name: name if name.startswith(f"{APP}.") else None
    )
    yield
    registry._tasks.pop(NAME, None)
    sys.modules.pop(f"{APP}.slow_module", None)


@pytest.mark.usefixtures("_app")
def test_find__two_threads_at_once__both_wait_for_the_import() -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(registry.find(NAME))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [registry.known(NAME)] * 4


@pytest.mark.usefixtures("_app")
@pytest.mark.parametrize(
    "name", [f"{APP}.slow_module.other", f"{APP}.nowhere.task", f"{APP}.broken_module.task"]
)
def test_find__no_such_task_module_or_a_broken_one__is_unknown(name: str) -> None:
    with pytest.raises(registry.UnknownTask):
        registry.find(name)


def test_find__module_of_no_installed_app__is_not_imported() -> None:
    with pytest.raises(registry.UnknownTask):
        registry.find("this.nothing")
    assert "this" not in sys.modules  # it would print a poem
