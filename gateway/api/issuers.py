"""/api/v1/gateway/issuers. A secret goes in and never comes out."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from foundation import audit
from gateway import changes, document, tokens
from gateway.models import JwtIssuer

from . import lists
from .rows import NamedDetail, RowList, RowSerializer


class IssuerSerializer(RowSerializer):
    secret = serializers.CharField(
        write_only=True,
        required=False,
        trim_whitespace=False,
        help_text="For HS algorithms. Kept encrypted and never shown; left out, it stays as it is.",
    )
    has_secret = serializers.SerializerMethodField()
    signs = serializers.BooleanField(
        required=False, help_text="The token endpoint signs with it; one issuer does, so it takes it over."
    )

    class Meta:
        model = JwtIssuer
        fields = [
            "id", "name", "algorithm", "secret", "has_secret", "public_key", "jwks_url", "issuer", "audience", "leeway_s",
            "roles_claim", "scopes_claim", "expiry_s", "signs", "enabled",
        ]  # fmt: skip
        kept = ["secret", "signs"]

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return {**super().to_representation(instance), "signs": bool(instance.signs)}

    def get_has_secret(self, issuer: JwtIssuer) -> bool:
        return bool(issuer.secret)

    def validate_secret(self, secret: str) -> str:
        if weak := document.weakness(secret):
            raise ValidationError(f"is {weak}")
        return secret

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        _check_keys({**self._present(), **attrs})
        return attrs

    def written(self, row: Any, values: dict[str, Any]) -> Any:
        if secret := values.pop("secret", ""):
            changes.set_secret(row, secret)
        signs = values.pop("signs", row.signs if self.partial else False)
        if signs:
            self._take_over(row)
        return super().written(row, {**values, "signs": True if signs else None})

    def _take_over(self, row: JwtIssuer) -> None:
        for other in JwtIssuer.objects.filter(signs=True).exclude(pk=row.pk):
            other.signs = None
            changes.save(other, **audit.by(self.context["request"], "api"))

    def _present(self) -> dict[str, Any]:
        """What fields have that are left out."""
        if self.instance is None:
            return {"algorithm": "HS256"}
        if self.partial:
            return {name: getattr(self.instance, name) for name in self.Meta.fields if name != "has_secret"}
        return {"algorithm": "HS256", "secret": self.instance.secret}


def _check_keys(values: dict[str, Any]) -> None:
    """values: of the whole row. Raises ValidationError."""
    algorithm = values["algorithm"]
    if algorithm in tokens.HMAC_HASHES:
        given = [name for name in ("public_key", "jwks_url") if values.get(name)]
        if given:
            raise ValidationError({given[0]: [f"goes with no {algorithm}"]})
        if not values.get("secret"):
            raise ValidationError({"secret": [f"is needed for {algorithm}"]})
        return
    if values.get("signs"):
        raise ValidationError({"signs": ["needs an HS algorithm"]})
    if bool(values.get("public_key")) == bool(values.get("jwks_url")):
        raise ValidationError({"public_key": [f"{algorithm} needs a public key or a JWKS URL, and not both"]})
    if values.get("public_key"):
        try:
            tokens.Verifier([tokens.Issuer("given", algorithm, values["public_key"].encode())])
        except ValueError as error:
            raise ValidationError({"public_key": [str(error)]}) from error


class IssuerList(RowList):
    """GET: the issuers whose tokens are accepted. POST: a new one."""

    queryset = JwtIssuer.objects.all()
    serializer_class = IssuerSerializer
    filters = {**lists.NAMED, "enabled": lists.flag("enabled", "Whether its tokens are accepted.")}


class IssuerDetail(NamedDetail):
    """A token issuer."""

    queryset = JwtIssuer.objects.all()
    serializer_class = IssuerSerializer
