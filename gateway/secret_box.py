"""The gateway's secrets at rest."""

from __future__ import annotations

from foundation.secret_box import Sealed, SecretBox

__all__ = ["Sealed", "open_", "seal"]

_box = SecretBox("gateway")
seal, open_ = _box.seal, _box.open
