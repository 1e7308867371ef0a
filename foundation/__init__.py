"""What every room stands on: audit log, roles, problem+json, request ids, commands, settings, the URL guard.

Imports none of the other packages.
"""
