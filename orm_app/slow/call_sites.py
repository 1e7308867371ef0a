"""Which line of the project sent a statement: frames → `shop/views.py:42 in checkout`, or the line of a template.

The innermost frame of the project; where there is none (the platform's own work) the innermost of the platform. What
an await runs in a thread has no caller in its stack: then the task that waits for the thread is asked.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import sysconfig
from types import FrameType
from typing import Any, NamedTuple

import asgiref.sync
import django
import django.template.base

from orm_app.conf import conf


class Site(NamedTuple):
    """function: "" for a line of a template, whose file is its name."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        if not self.function:
            return f"template {self.file}:{self.line}"
        return f"{_shown(self.file)}:{self.line} in {self.function}"


UNKNOWN = Site("", 0, "")
IN_BATCHES = Site(
    "", -1, ""
)  # the same statement is sent several times on purpose: bulk_create, chunk, upsert
AWAITED = Site("", -2, "")  # the stack ends at the thread of an await: ask `of_waiting_task`
_LIBRARY, _PROJECT, _PLATFORM, _OURS, _TEMPLATE, _THREAD, _BATCHES, _MAY_BATCH = range(8)

_BASE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_HERE = os.path.join(_BASE, "orm_app") + os.sep
_DJANGO = os.path.dirname(django.__file__)
_LIBRARIES = tuple(
    {sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_SCRIPTS = sysconfig.get_path("scripts") + os.sep  # of an environment in the project's directory as well
_PASSED = (("foundation", "middleware.py"), ("brain_project", "proxied.py"))
_SPECIAL = {
    django.template.base.__file__: _TEMPLATE,
    asgiref.sync.__file__: _THREAD,
    os.path.join(_DJANGO, "db", "models", "query.py"): _MAY_BATCH,
    os.path.join(_DJANGO, "db", "models", "deletion.py"): _MAY_BATCH,
    os.path.join(_DJANGO, "db", "models", "sql", "subqueries.py"): _MAY_BATCH,
    # Every statement, or every request, passes there.
    **dict.fromkeys(
        (_HERE + name for name in ("router.py", "transaction_bounds.py", "middleware.py")), _LIBRARY
    ),
    **dict.fromkeys((os.path.join(_BASE, *path) for path in _PASSED), _LIBRARY),
    **dict.fromkeys((_HERE + name for name in ("streams.py", "pages.py", "inserts.py")), _BATCHES),
}
_BATCHING = {"_batched_insert", "bulk_update", "in_bulk", "delete_batch", "update_batch"}
_MOST_TASKS = 500  # that are looked at for one that waits
_kinds: dict[str, int] = {}


def of_stack(frame: FrameType | None, *, through_batches: bool = False) -> Site:
    """From `frame` outwards. UNKNOWN when only libraries are in it; IN_BATCHES, AWAITED where that is the answer."""
    template: Site | None = None
    platform = ours = UNKNOWN
    while frame is not None:
        code = frame.f_code
        kind = _kinds.get(code.co_filename)
        if kind is None:
            kind = _kinds[code.co_filename] = _kind(code.co_filename)
        if kind != _LIBRARY:
            if kind == _PROJECT:
                return template or Site(code.co_filename, frame.f_lineno, code.co_name)
            if kind == _BATCHES or (kind == _MAY_BATCH and code.co_name in _BATCHING):
                if not through_batches:
                    return IN_BATCHES
            elif kind == _TEMPLATE:
                if template is None and code.co_name == "render_annotated":
                    template = _template_line(frame)
            elif kind == _PLATFORM:
                if platform is UNKNOWN:
                    platform = Site(code.co_filename, frame.f_lineno, code.co_name)
            elif kind == _OURS:
                if ours is UNKNOWN:
                    ours = Site(code.co_filename, frame.f_lineno, code.co_name)
            elif kind == _THREAD and code.co_name == "thread_handler":
                return template or AWAITED
        frame = frame.f_back
    return template or (platform if platform is not UNKNOWN else ours)


def of_waiting_task(frame: FrameType | None) -> Site:
    """The line whose await runs this thread. Looks through the loop's tasks: for what is slow already."""
    while frame is not None and not (
        frame.f_code.co_name == "thread_handler" and frame.f_code.co_filename == asgiref.sync.__file__
    ):
        frame = frame.f_back
    if frame is None:
        return UNKNOWN
    given = frame.f_locals
    loop, marker = given.get("loop"), given.get("task_context")
    if loop is None or marker is None:
        return UNKNOWN
    for task in list(asyncio.all_tasks(loop))[:_MOST_TASKS]:
        frames = _frames(task.get_coro())
        if frames and frames[-1].f_locals.get("task_context") is marker:
            return _innermost(frames)
    return UNKNOWN


def _frames(coroutine: Any) -> list[FrameType]:
    """Of what awaits, and what it awaits; the innermost last."""
    found = []
    while coroutine is not None:
        if type(coroutine).__name__ == "coroutine_wrapper":  # of `__await__`, and nothing else tells whose
            coroutine = next(iter(gc.get_referents(coroutine)), None)
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            found.append(frame)
            if frame.f_code.co_name == "__call__" and frame.f_code.co_filename == asgiref.sync.__file__:
                return found
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return found


def _innermost(frames: list[FrameType]) -> Site:
    by_kind: dict[int, Site] = {}
    for frame in reversed(frames):
        name = frame.f_code.co_filename
        by_kind.setdefault(_kind(name), Site(name, frame.f_lineno, frame.f_code.co_name))
    return next((by_kind[kind] for kind in (_PROJECT, _PLATFORM, _OURS) if kind in by_kind), UNKNOWN)


def _template_line(frame: FrameType) -> Site | None:
    node = frame.f_locals.get("self")
    origin, token = getattr(node, "origin", None), getattr(node, "token", None)
    if origin is None or token is None:
        return None
    name = str(origin.name)
    if not name.startswith("<") and _kind(name) == _LIBRARY:  # a package's: whoever renders it is the caller
        return None
    return Site(str(origin.template_name or "<template>"), int(token.lineno or 0), "")


def _kind(file: str) -> int:
    if file in _SPECIAL:
        return _SPECIAL[file]
    if file.startswith(_HERE):
        return _OURS
    if (
        file.startswith(("<", _SCRIPTS))
        or f"{os.sep}site-packages{os.sep}" in file
        or f"{os.sep}dist-packages{os.sep}" in file
    ):
        return _LIBRARY
    if file.startswith(_BASE):
        package, _, rest = file[len(_BASE) :].partition(os.sep)
        is_platform = package in conf().CALL_SITE_SKIPS or (not rest and package == "manage.py")
        return _PLATFORM if is_platform else _PROJECT
    return _LIBRARY if file.startswith(_LIBRARIES) else _PROJECT


def _shown(file: str) -> str:
    """Never a path of this machine: from the project, from a directory that Python imports from, or its last two parts."""
    for base in (_BASE, *(path + os.sep for path in sys.path if path)):
        if file.startswith(base):
            return file[len(base) :].replace(os.sep, "/")
    return "/".join(file.split(os.sep)[-2:])
