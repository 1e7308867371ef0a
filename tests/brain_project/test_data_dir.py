from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from brain_project import data_dir


def test_make__new_directory__is_for_its_owner_alone(tmp_path: Path):
    data_dir.make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_make__path_is_a_file__names_the_directory_and_the_fix(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ImproperlyConfigured, match="fix its permissions or set BRAIN_DATA_DIR"):
        data_dir.make(tmp_path / "file")


def test_secret__many_first_callers__agree_on_one_private_file(tmp_path: Path):
    path, found = tmp_path / "secret_key", []
    threads = [threading.Thread(target=lambda: found.append(data_dir.secret(path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert len(found[0]) >= 50
    assert path.stat().st_mode & 0o777 == 0o600
    assert [child.name for child in tmp_path.iterdir()] == ["secret_key"]


def test_refuse_missing__unset_and_weak_values__are_named():
    with pytest.raises(ImproperlyConfigured, match="BRAIN_JWT_SECRET, REDIS_URL"):
        data_dir.refuse_missing(BRAIN_SECRET_KEY="s" * 50, BRAIN_JWT_SECRET="", REDIS_URL="")
    with pytest.raises(ImproperlyConfigured, match="BRAIN_JWT_SECRET is too weak"):
        data_dir.refuse_missing(BRAIN_SECRET_KEY="s" * 50, BRAIN_JWT_SECRET="your-secret-key")


def test_socket_path__deep_directory__falls_back_to_a_short_one(tmp_path: Path):
    assert data_dir.socket_path(tmp_path) == tmp_path / "valkey" / "valkey.sock"
    deep = tmp_path / ("d" * 120)
    short = data_dir.socket_path(deep)
    assert len(str(short)) < 104
    assert short != data_dir.socket_path(tmp_path / ("e" * 120))
