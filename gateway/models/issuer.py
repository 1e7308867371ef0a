"""Token issuers, and tokens that were taken back: one by one, or all that a subject had."""

from __future__ import annotations

from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from gateway import secret_box, tokens
from gateway.reading import LARGEST

from . import checks

_LONGEST_LEEWAY_S = 3600.0  # RFC 7519 section 4.1.4 speaks of a few minutes; more accepts what is long over
MOST_ENABLED = tokens.MAX_ISSUERS - 1  # one place is the site's own, which has no row


class JwtIssuer(models.Model):
    """Somebody whose tokens are accepted. secret: encrypted (secret_box.py), for HS algorithms; else a public key or
    the URL of a key set."""

    name = models.CharField(max_length=100, unique=True, validators=[checks.name])
    algorithm = models.CharField(max_length=5, default="HS256", choices=[(a, a) for a in tokens.ALGORITHMS])
    secret = models.TextField(blank=True, editable=False)
    public_key = models.TextField(blank=True, help_text="PEM. Empty for HS algorithms and with a JWKS URL.")
    jwks_url = models.CharField(
        "JWKS URL", max_length=500, blank=True, help_text="Where its key set is published."
    )
    issuer = models.CharField(max_length=255, blank=True, help_text="Required `iss`. Empty: not looked at.")
    audience = models.CharField(max_length=255, blank=True, help_text="Required `aud`. Empty: not looked at.")
    leeway_s = models.FloatField(
        "leeway",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0), MaxValueValidator(_LONGEST_LEEWAY_S)],
        help_text="Seconds between its clock and ours. Empty: as the settings say.",
    )
    roles_claim = models.CharField(max_length=100, default="roles")
    scopes_claim = models.CharField(max_length=100, default="scope")
    expiry_s = models.PositiveIntegerField(
        "lifetime",
        default=3600,
        validators=[MinValueValidator(1), MaxValueValidator(LARGEST)],
        help_text="Seconds, of the tokens that we sign.",
    )
    # True for at most one row and NULL for all others: every database lets a unique column hold many NULLs.
    signs = models.BooleanField(
        null=True, blank=True, default=None, unique=True, help_text="The token endpoint signs with it."
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("name",)
        verbose_name = "token issuer"
        constraints = (
            models.CheckConstraint(
                condition=Q(algorithm__in=tokens.ALGORITHMS), name="gateway_issuer_algorithm_known"
            ),
            models.CheckConstraint(
                condition=Q(signs__isnull=True) | Q(signs=True), name="gateway_issuer_signs_or_null"
            ),
            models.CheckConstraint(
                condition=Q(signs__isnull=True) | Q(algorithm__startswith="HS"),
                name="gateway_issuer_signs_with_secret",
            ),
            models.CheckConstraint(
                condition=Q(leeway_s__isnull=True) | Q(leeway_s__gte=0), name="gateway_issuer_leeway_positive"
            ),
            models.CheckConstraint(
                condition=Q(jwks_url="") | Q(public_key=""), name="gateway_issuer_one_source_of_keys"
            ),
        )

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """secret: None where it is not said, and so not looked at."""
        if self.algorithm in tokens.HMAC_HASHES:
            self._check_symmetric()
        else:
            self._check_public()

    def _check_symmetric(self) -> None:
        for field in ("public_key", "jwks_url"):
            if getattr(self, field):
                raise ValidationError({field: f"Goes with no {self.algorithm}."})
        # Not of the field `secret`: no form has that one.
        if self.secret == "":
            raise ValidationError(f"{self.algorithm} needs a secret.")
        if self.secret and self.enabled:
            checks.sealed(self.secret)

    def _check_public(self) -> None:
        if bool(self.public_key) == bool(self.jwks_url):
            told = f"{self.algorithm} needs a public key or a JWKS URL, and not both."
            raise ValidationError({"public_key": told})
        found = {"public_key": (lambda pem: checks.public_key(self.algorithm, pem), self.public_key)}
        checks.run(found | ({"jwks_url": (checks.key_set, self.jwks_url)} if self.enabled else {}))

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        super().validate_constraints(exclude)
        others = JwtIssuer.objects.filter(enabled=True).exclude(pk=self.pk)
        if self.enabled and others.count() >= MOST_ENABLED:
            raise ValidationError(f"At most {MOST_ENABLED} issuers can be enabled.")

    def key(self) -> bytes:
        """What tokens are checked with; empty where a JWKS URL says it. Raises secret_box.Sealed when SECRET_KEY is no
        longer the one it was sealed by."""
        if self.algorithm in tokens.HMAC_HASHES:
            return secret_box.open_(self.secret).encode()
        return self.public_key.encode()


class KnownIssuer(models.Model):
    """What an issuer was before it was changed or deleted (kin.Known), so that what was taken back of it is refused under
    another name too. No key, and of a secret a HMAC."""

    name = models.CharField(max_length=100, db_index=True)
    mark = models.CharField(max_length=600)
    issuer = models.CharField(max_length=255)
    signed = models.BooleanField()

    def __str__(self) -> str:
        return self.name


class RevokedToken(models.Model):
    """A token that is refused before it expires, by its jti, its digest (revoked.py), or either. issuer: a name and no
    key, as the site's own issuer has no row; the one that it had then (known_issuers.py)."""

    issuer = models.CharField(max_length=100)
    jti = models.CharField("token id", max_length=255, blank=True)
    digest = models.CharField(max_length=64, blank=True, db_index=True)
    expires_at = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-pk",)
        indexes = (
            models.Index(fields=("issuer", "jti"), name="gateway_revoked_jti"),
            models.Index(fields=("jti",), name="gateway_revoked_any_jti"),
        )
        constraints = (
            models.CheckConstraint(
                condition=~Q(jti="") | ~Q(digest=""), name="gateway_revoked_names_a_token"
            ),
        )

    def __str__(self) -> str:
        return f"{self.issuer} {self.jti or self.digest[:12]}"


class TokenCut(models.Model):
    """The tokens of a subject that are refused whenever they expire: all that were issued up to a moment. expires_at: when
    the last of them is over. Not unique: some databases do not tell subjects by their capitals (cuts.py does)."""

    issuer = models.CharField(max_length=100)
    subject = models.CharField(max_length=255, help_text="`sub`; of our own tokens the user's id.")
    issued_until = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ("-pk",)
        verbose_name, verbose_name_plural = "subject that is cut off", "subjects cut off"
        indexes = (
            models.Index(fields=("issuer", "subject"), name="gateway_cut_subject"),
            models.Index(fields=("subject",), name="gateway_cut_any_subject"),
        )

    def __str__(self) -> str:
        return f"{self.issuer} {self.subject}"
