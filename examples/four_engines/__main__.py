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
        run(urls[0])
        return 0
    return compared({url: _of_its_own(url) for url in urls})


def run(url: str) -> None:
    os.environ["DATABASE_URLS"] = f"shop={url}"  # noqa: TID251  (where the site's settings look)
    os.environ["DJANGO_SETTINGS_MODULE"] = "examples.four_engines.settings"  # noqa: TID251
    import django

    django.setup()
    from . import program

    program.run(print)


def compared(outputs: dict[str, str]) -> int:
    """Prints what the first says, and who says the same."""
    (first, expected), *others = outputs.items()
    print(f"{_engine(first)}:\n{expected}")
    for url, output in others:
        print(f"{_engine(url)}: the same" if output == expected else f"{_engine(url)}:\n{output}")
    return int(any(output != expected for output in outputs.values()))


def _of_its_own(url: str) -> str:
    """A process of its own: a model's key is of one kind."""
    command = [sys.executable, "-m", "examples.four_engines", url]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _engine(url: str) -> str:
    return urlsplit(url).scheme


if __name__ == "__main__":
    sys.exit(main())
