"""A peer's own environment, made on demand: <peers>/<peer>/requirements.txt → .brain/bench/<peer>/, stamped by hash."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .processes import ROOT

HOME = ROOT / ".brain" / "bench"
_STAMP = ".brain-stamp"
_INSTALL_TIMEOUT_S = 600


class Unavailable(Exception):
    """A side cannot take part. The message is the reason for the reader of the table."""


def runtime(peer: str, peers: Path) -> str:
    """The interpreter of this peer's environment (`python` or `node`), after installing what is missing.

    peers: the folder with the peers' requirements, one folder a peer.
    """
    folder = HOME / peer
    package = peers / peer / "package.json"
    if package.exists():
        node, npm = _tool("node"), _tool("npm")
        _kept_in_step(folder, package, lambda: _npm(npm, package, folder))
        return node
    python = folder / "bin" / "python"
    requirements = peers / peer / "requirements.txt"
    _kept_in_step(folder, requirements, lambda: _pip(folder, requirements))
    return str(python)


def _kept_in_step(folder: Path, pinned: Path, install: Callable[[], None]) -> None:
    stamp, wanted = folder / _STAMP, hashlib.sha256(pinned.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    print(f"installing {folder.name} …", file=sys.stderr)
    install()
    stamp.write_text(wanted)


def _pip(folder: Path, requirements: Path) -> None:
    if shutil.which("uv"):
        _run("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        _run(
            "uv", "pip", "install", "--quiet", "--python", str(folder / "bin/python"), "-r", str(requirements)
        )
        return
    _run(sys.executable, "-m", "venv", str(folder))
    pip = (str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "-r", str(requirements))


def _npm(npm: str, package: Path, folder: Path) -> None:
    shutil.copy(package, folder)
    _run(npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise Unavailable(f"{name} is not there")
    return found


def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{Path(command[0]).name} did not end within {_INSTALL_TIMEOUT_S} s") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise Unavailable(f"could not be installed: {last}")
