"""The gateway's admin pages, each of which registers itself. Every write goes through changes.py: validated, audited, a
revision."""

from __future__ import annotations

from . import consumers as consumers
from . import issuers as issuers
from . import keys as keys
from . import plans as plans
from . import revisions as revisions
from . import revoked_tokens as revoked_tokens
from . import routes as routes
from . import services as services
from . import settings as settings
from . import targets as targets
from . import token_cuts as token_cuts
from . import transforms as transforms
