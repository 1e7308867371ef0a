"""The site's settings for the drills' edges and for the drill itself: a copy of the snapshot on disk, no access log, and
what the drill wrote into gateway.json before it started them.
"""

from __future__ import annotations

import json

from brain_project.settings import *  # noqa: F403
from brain_project.settings import BRAIN, BRAIN_DATA_DIR, DATABASES

_file = BRAIN_DATA_DIR / "gateway.json"
BRAIN["GATEWAY"] = {
    "ACCESS_LOG": False,
    "SNAPSHOT_FILE": str(BRAIN_DATA_DIR / "snapshot.json"),
    **(json.loads(_file.read_text()) if _file.exists() else {}),
}
# The drill is one thread, and a pool would take a while to notice that the server has been away.
DATABASES["default"]["OPTIONS"].pop("pool", None)
