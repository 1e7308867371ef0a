#!/usr/bin/env python
"""Django's command line. Commands that need Redis start the embedded Valkey first when REDIS_URL is unset."""

from __future__ import annotations

import os
import sys

NEEDS_REDIS = {
    "runserver",
    "gateway",
    "queue",
    "cache",
    "doctor",
}  # `up` starts it itself, to show its progress


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "brain_project.settings")
    _take_data_dir(sys.argv[1:])
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        from django.conf import settings

        settings.INSTALLED_APPS  # noqa: B018  (loads the settings: a wrong variable is one line, not a traceback)
    except ImproperlyConfigured as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    if len(sys.argv) > 1 and sys.argv[1] in NEEDS_REDIS and not {"-h", "--help"} & set(sys.argv):
        from brain_project import embedded

        embedded.ensure()
    execute_from_command_line(sys.argv)


def _take_data_dir(arguments: list[str]) -> None:
    """`--data-dir` of up, down and status counts before the settings are read."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--data-dir":
            value = value if equals else "".join(arguments[index + 1 : index + 2])
            if value:
                os.environ["BRAIN_DATA_DIR"] = os.path.abspath(os.path.expanduser(value))


if __name__ == "__main__":
    main()
