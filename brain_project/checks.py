"""System checks of the site: what settings.BRAIN got wrong, each with an id, a hint and the docs' anchor."""

from __future__ import annotations

from typing import Any

from django.core.checks import Error, register

from . import conf

_IDS = {"key": "brain.E001", "type": "brain.E002", "range": "brain.E003"}


@register("brain")
def settings_are_known(app_configs: Any, **kwargs: Any) -> list[Error]:
    return [
        Error(
            problem.message,
            hint=f"{problem.hint} See docs/checks.md#{_anchor(problem.kind)}.",
            id=_IDS[problem.kind],
        )
        for problem in conf.bind()
    ]


def _anchor(kind: str) -> str:
    return _IDS[kind].replace(".", "-").lower()
