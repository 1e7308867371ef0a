"""The site's settings without the access log, which is off on all sides; everything else is the default."""

from __future__ import annotations

from brain_project.settings import *  # noqa: F403
from brain_project.settings import BRAIN

BRAIN["GATEWAY"] = BRAIN.get("GATEWAY", {}) | {"ACCESS_LOG": False}
