"""The admin's lists of users and roles, and the pages of the databases, which stand on no model."""

from . import users  # noqa: F401  (registers itself)
