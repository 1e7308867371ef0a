"""`python -m examples.four_engines URL…`: the program on each of the databases, and whether they print the same.

The tables are made and removed again; the database has to be there (MongoDB makes it).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from urllib.parse import urlsplit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.four_engines", description=__doc__)
    parser.add_argument(
        "urls", nargs="+", metavar="URL", help="sqlite://, postgres://, mysql:// or mongodb://"
    )
    urls: list[str] = parser.parse_args().urls
    if len(urls) == 1:
        return run(urls[0])
    return compared({url: _of_its_own(url) for url in urls})


def run(url: str) -> int:
    """The exit code: 1 when the database is away, refuses us, or is none that is known; stderr has one line that says why."""
    os.environ["DATABASE_URLS"] = f"shop={url}"  # noqa: TID251  (where the site's settings look)
    os.environ["DJANGO_SETTINGS_MODULE"] = "examples.four_engines.settings"  # noqa: TID251
    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.db import Error

    try:
        django.setup()
        from . import program

        program.run(print)
    except (Error, ImproperlyConfigured) as error:
        told = str(error).strip() or str(error.__cause__)  # MongoDB's: Django's name, and the driver's words
        print(f"error: {_engine(url)}: {told.splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


def compared(outputs: dict[str, str | None]) -> int:
    """Prints what the first says, and who says the same. None: it could not be asked, and has said why."""
    if None in outputs.values():
        print("not compared:", *(_engine(url) for url, output in outputs.items() if output is None))
        return 1
    (first, expected), *others = outputs.items()
    print(f"{_engine(first)}:\n{expected}")
    for url, output in others:
        print(f"{_engine(url)}: the same" if output == expected else f"{_engine(url)}:\n{output}")
    return int(any(output != expected for output in outputs.values()))


def _of_its_own(url: str) -> str | None:
    """A process of its own: a model's key is of one kind."""
    command = [sys.executable, "-m", "examples.four_engines", url]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return None if done.returncode else done.stdout


def _engine(url: str) -> str:
    return urlsplit(url).scheme


if __name__ == "__main__":
    sys.exit(main())
