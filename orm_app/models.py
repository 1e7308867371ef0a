"""The platform's users (AUTH_USER_MODEL), and the statements that were slow or repeated."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.db import models
from django.utils import timezone


class UserManager(BaseUserManager["User"]):
    def create_user(self, username: str, email: str, password: str | None = None, **fields: Any) -> User:
        """Without a password the user exists but cannot log in by one. Raises ValueError for an empty name or email."""
        if not username:
            raise ValueError("a user needs a username")
        if not email:
            raise ValueError("a user needs an email address")
        user = self.model(
            username=self.model.normalize_username(username), email=self.normalize_email(email), **fields
        )
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(
            username, email, password, **{"is_staff": True, "is_superuser": True} | fields
        )


class User(AbstractBaseUser, PermissionsMixin):
    """Somebody who logs in. What they may do comes from the groups viewer, operator and admin."""

    username = models.CharField(
        max_length=150,
        unique=True,
        validators=[UnicodeUsernameValidator()],
        error_messages={"unique": "A user with that username already exists."},
    )
    email = models.EmailField(
        "email address",
        unique=True,
        error_messages={"unique": "A user with that email address already exists."},
    )
    is_active = models.BooleanField(
        "active", default=True, help_text="Clear this instead of deleting a user."
    )
    is_staff = models.BooleanField(
        "staff", default=False, help_text="May log in to the admin, and see what the role allows."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = UserManager()

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["email"]

    class Meta:
        verbose_name = "user"
        ordering = ["username"]

    def __str__(self) -> str:
        return self.username

    def clean(self) -> None:
        super().clean()
        self.email = type(self).objects.normalize_email(self.email)


class SlowQuery(models.Model):
    """A slow statement, or one that a unit of work repeats (N+1), added up over all processes by `orm_app.slow`."""

    class Kind(models.TextChoices):
        SLOW = "slow", "slow"
        N_PLUS_ONE = "n_plus_one", "N+1"

    fingerprint = models.CharField(max_length=16, unique=True)  # of kind, alias, statement and call site
    kind = models.CharField(max_length=16, choices=Kind.choices)
    alias = models.CharField("database", max_length=100)
    sql = models.TextField("statement")  # normalised: it holds no value
    call_site = models.CharField(max_length=255, blank=True, default="")
    hint = models.CharField(max_length=500, blank=True, default="")
    count = models.BigIntegerField(default=0)  # of slow runs, or of units that repeated it
    statements = models.BigIntegerField(default=0)  # sent in them
    most = models.BigIntegerField("most in one unit", default=0)
    total_ms = models.FloatField(default=0.0)
    max_ms = models.FloatField(default=0.0)
    last_ms = models.FloatField(default=0.0)
    rows = models.BigIntegerField("rows of the last", null=True, default=None)
    in_transaction = models.BooleanField("last one in a transaction", default=False)
    error = models.CharField("error of the last", max_length=100, blank=True, default="")
    unit_kind = models.CharField(max_length=20, blank=True, default="")  # of the last: request, job, command
    unit_name = models.CharField(max_length=255, blank=True, default="")
    unit_id = models.CharField(max_length=64, blank=True, default="")
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField(db_index=True)
    plan = models.TextField(blank=True, default="")  # from when it was slow; without values
    plan_at = models.DateTimeField(null=True, default=None)

    class Meta:
        verbose_name = "slow query"
        verbose_name_plural = "slow queries"
        ordering = ["-total_ms"]

    def __str__(self) -> str:
        return f"{self.fingerprint} on {self.alias}"

    @property
    def mean_ms(self) -> float:
        return self.total_ms / self.count if self.count else 0.0
