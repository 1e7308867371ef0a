"""Three roles, ranked: a viewer sees, an operator acts, an admin configures. Groups of these names carry them.

Admin pages, DRF permissions and the `roles` of a token all ask `of` and `allows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.permissions import SAFE_METHODS, BasePermission

if TYPE_CHECKING:  # rest_framework.views imports this module by the settings' DEFAULT_PERMISSION_CLASSES
    from rest_framework.request import Request
    from rest_framework.views import APIView

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
RANKED = (VIEWER, OPERATOR, ADMIN)  # each includes the ones before it


def of(user: Any) -> frozenset[str]:
    """The roles somebody holds: group names of a user, or `roles` of a principal that has no row (a foreign token).

    A superuser is an admin; an inactive or anonymous user holds none. Kept on the instance, as Django keeps permissions.
    """
    if user is None or not getattr(user, "is_active", False):
        return frozenset()
    if getattr(user, "is_superuser", False):
        return frozenset({ADMIN})
    if not hasattr(user, "groups"):
        return frozenset(getattr(user, "roles", ())) & frozenset(RANKED)
    if not hasattr(user, "_roles"):
        user._roles = frozenset(user.groups.filter(name__in=RANKED).values_list("name", flat=True))
    held: frozenset[str] = user._roles
    return held


def allows(user: Any, role: str) -> bool:
    """Whether `user` holds `role` or a higher one. ValueError for a role that does not exist."""
    sufficient = RANKED[RANKED.index(_known(role)) :]
    return not of(user).isdisjoint(sufficient)


def grant(user: Any, role: str) -> None:
    """Put `user` into the group of `role`."""
    from django.contrib.auth.models import Group

    user.groups.add(Group.objects.get_or_create(name=_known(role))[0])
    user.__dict__.pop("_roles", None)


def _known(role: str) -> str:
    if role not in RANKED:
        raise ValueError(f"{role!r} is not a role: use one of {', '.join(RANKED)}")
    return role


class RolePermission(BasePermission):
    """Reading needs viewer, everything else operator; a view says otherwise by method:

    `required_role = {"DELETE": roles.ADMIN}`, or one role for all of its methods: `required_role = roles.ADMIN`.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        return allows(request.user, required(request.method or "", view))


def required(method: str, view: APIView) -> str:
    """The role that RolePermission asks for."""
    declared: str | dict[str, str] = getattr(view, "required_role", {})
    if isinstance(declared, str):
        return declared
    return declared.get(method, VIEWER if method in SAFE_METHODS else OPERATOR)
