"""`python -m benchmarks.usual --ports 0,0,0`: the process model of examples.tasks_service for this side's Django."""

from __future__ import annotations

import argparse
import os

from examples.tasks_service.instances import Instances, bind

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", default="0")
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.usual.settings"
    from django.core.asgi import get_asgi_application

    sockets = bind("127.0.0.1", [int(port) for port in options.ports.split(",")])
    Instances(get_asgi_application(), sockets, "usual").run()
