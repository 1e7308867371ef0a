"""`python -m benchmarks.configure brain URL… | usual`: tables, tasks and, on our side, the gateway's configuration."""

from __future__ import annotations

import os
import sys

import yaml

TASKS = 5000
LIMIT = 10_000_000  # per minute: counted for every request, never reached


def main() -> None:
    side, *targets = sys.argv[1:]
    os.environ["DJANGO_SETTINGS_MODULE"] = (
        "brain_project.settings" if side == "brain" else "benchmarks.usual.settings"
    )
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", run_syncdb=side == "usual", verbosity=0)
    if side == "brain":
        _brain(targets)
    else:
        from benchmarks.usual.models import Task

        _fill(Task)


def _brain(targets: list[str]) -> None:
    from brain_project.demo import EXAMPLE, UPSTREAM
    from examples.tasks_service import demo
    from examples.tasks_service.models import Task
    from gateway import config

    demo.seed()
    _fill(Task)
    document = yaml.safe_load(EXAMPLE.read_text())
    for route in document["routes"]:
        route["rate_limit"] = {
            "requests_per_minute": LIMIT,
            "requests_per_hour": LIMIT * 60,
            "burst_limit": LIMIT,
        }
    loaded = config.load(yaml.safe_dump(document))
    config.apply(config.with_targets(loaded, UPSTREAM, targets), actor="benchmark", source="cli")
    print(next(iter(loaded.api_keys.values())))


def _fill(model: type) -> None:
    rows = (
        model(title=f"Task {n}", assignee_email=f"person{n % 97}@example.com", done=n % 3 == 0)
        for n in range(TASKS)
    )
    model.objects.bulk_create(rows, batch_size=500)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
