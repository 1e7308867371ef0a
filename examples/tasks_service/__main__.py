"""`python -m examples.tasks_service --ports 8001,8002,8003`: one process per port (0 = a free one)."""

from __future__ import annotations

import argparse
import os
import sys

from .instances import Application, Instances, bind


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.tasks_service", description=__doc__)
    parser.add_argument(
        "--ports", type=_ports, default=[8001, 8002, 8003], help="comma-separated; 0 = a free one"
    )
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    try:
        sockets = bind(options.host, options.ports)
    except OSError as error:
        print(f"error: cannot listen on {options.host} {options.ports}: {error.strerror}", file=sys.stderr)
        return 1
    Instances(_application(), sockets, "tasks").run()
    return 0


def _ports(text: str) -> list[int]:
    ports = [int(part) for part in text.split(",")]
    if not all(0 <= port < 65_536 for port in ports):
        raise ValueError(text)
    return ports


def _application() -> Application:
    """The service with everything it imports loaded, and no connection open."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "examples.tasks_service.settings"  # noqa: TID251  (ours, not the site's)
    from django.core.asgi import get_asgi_application
    from django.db import connections

    application = get_asgi_application()
    from django.urls import resolve

    resolve("/healthz")  # imports the URLconf and the views now, and not once in every instance
    connections.close_all()
    return application


if __name__ == "__main__":
    sys.exit(main())
