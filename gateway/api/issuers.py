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
        for name, value in {**values, "signs": True if signs else None}.items():
            setattr(row, name, value)
        changes.look_up_names(row)
        with changes.change(
            **audit.by(self.context["request"], "api")
        ) as writing:  # one, to be taken back as one
            for other in JwtIssuer.objects.filter(signs=True).exclude(pk=row.pk) if signs else ():
                other.signs = None
                writing.save(other)
            writing.save(row)
        return row

    def _present(self) -> dict[str, Any]:
        """What fields have that are left out."""
        if self.instance is None:
            return {"algorithm": "HS256"}
        if self.partial:
            return {name: getattr(self.instance, name) for name in self.Meta.fields if name != "has_secret"}
        return {"algorithm": "HS256", "secret": self.instance.secret}


def _check_keys(values: dict[str, Any]) -> None:
    """What the row itself cannot say of a field: it has no secret in clear. values: of the whole row."""
    algorithm = values["algorithm"]
    if algorithm in tokens.HMAC_HASHES:
        if not any(values.get(name) for name in ("secret", "public_key", "jwks_url")):
            raise ValidationError({"secret": [f"is needed for {algorithm}"]})
    elif values.get("signs"):
        raise ValidationError({"signs": ["needs an HS algorithm"]})


class IssuerList(RowList):
    """GET: the issuers whose tokens are accepted. POST: a new one."""

    queryset = JwtIssuer.objects.all()
    serializer_class = IssuerSerializer
    filters = {**lists.NAMED, "enabled": lists.flag("enabled", "Whether its tokens are accepted.")}


class IssuerDetail(NamedDetail):
    """A token issuer."""

    queryset = JwtIssuer.objects.all()
    serializer_class = IssuerSerializer
