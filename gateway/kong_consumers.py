"""Kong's consumers → API keys with their plans and scopes, and issuers of their JWT secrets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from . import kong_plugins, tokens
from .imported import Findings, name_of
from .kong_attachments import Attachments
from .kong_services import META

_REFERENCE = re.compile(r"\$\{\{|\{vault:")
_MOST_ISSUERS = tokens.MAX_ISSUERS - 1  # one place is the site's own


class Consumers:
    """Collects the keys, plans and issuers; `at` is always the place in Kong's file."""

    def __init__(self, found: Findings, attachments: Attachments) -> None:
        self.found = found
        self.keys: dict[str, dict[str, Any]] = {}
        self.plans: dict[str, dict[str, Any]] = {}
        self.issuers: dict[str, dict[str, Any]] = {}
        self._attachments = attachments
        self._groups: dict[str, list[str]] = {}
        self._shut: set[str] = set()  # consumers, and groups of them, that a lost plugin may have kept out
        self._shut_groups: set[str] = set()

    def read_groups(self, top: dict[str, Any]) -> None:
        """Whose members are off, as a plugin of the group may have kept them out."""
        for at, group in self.found.mappings(top.get("consumer_groups"), "consumer_groups"):
            plugins = self.found.mappings(group.get("plugins"), f"{at}.plugins")
            if any(
                plugin.get("enabled") is not False and kong_plugins.may_keep_out(str(plugin.get("name")))
                for _, plugin in plugins
            ):
                members = self.found.mappings(group.get("consumers"), f"{at}.consumers")
                self._shut |= {str(one.get("username") or one.get("custom_id")) for _, one in members}
                self._shut_groups.add(str(group.get("name")))

    def read(self, at: str, values: dict[str, Any]) -> None:
        found = self.found
        name = str(values.get("username") or values.get("custom_id") or "")
        if not name:
            found.wrong(at, "a consumer has a username or a custom_id")
        digests = [
            digest
            for place, credential in found.mappings(
                values.get("keyauth_credentials"), f"{at}.keyauth_credentials"
            )
            if (digest := self._digest(place, credential.get("key")))
        ]
        self.keys[name] = {"key_sha256": digests} if digests else {}
        self._groups[name] = [
            str(acl.get("group"))
            for _, acl in found.mappings(values.get("acls"), f"{at}.acls")
            if acl.get("group")
        ]
        for place, secret in found.mappings(values.get("jwt_secrets"), f"{at}.jwt_secrets"):
            self._issuer(place, secret, name)
        self._attachments.add_of(at, values, ("consumer", name))
        self._consumer_plan(name)
        groups = {str(group.get("name")) for _, group in found.mappings(values.get("groups"), f"{at}.groups")}
        if name in self._shut or groups & self._shut_groups:
            self.keys[name]["enabled"] = False
            found.note(
                at, f"what may have kept {name} out is not carried over; it is off until you turn it on"
            )
        known = {"username", "keyauth_credentials", "jwt_secrets", "acls", "plugins"}
        found.leftover(values, (known if values.get("username") else known | {"custom_id"}) | META, at)

    def give_scopes(self, allowed: Sequence[Sequence[str]]) -> None:
        """allowed: the groups that routes ask for any one of."""
        for name, groups in self._groups.items():
            scopes = set(groups) | {kong_plugins.any_of(any_) for any_ in allowed if set(any_) & set(groups)}
            if scopes:
                self.keys[name]["scopes"] = sorted(kong_plugins.any_of([scope]) for scope in scopes)

    def _digest(self, at: str, key: object) -> str:
        if not isinstance(key, str) or not key or _REFERENCE.search(key):
            self.found.note(f"{at}.key", "not carried over: the file does not hold the key itself")
            return ""
        return hashlib.sha256(key.encode()).hexdigest()

    def _issuer(self, at: str, values: dict[str, Any], consumer: str) -> None:
        algorithm = str(values.get("algorithm", "HS256"))
        issuer = values.get("key")
        material = values.get("secret" if algorithm.startswith("HS") else "rsa_public_key")
        if not issuer or not material or _REFERENCE.search(str(material)):
            self.found.note(
                at, "not carried over: the file does not hold both its key (iss) and its secret or public key"
            )
            return
        held = "secret" if algorithm.startswith("HS") else "public_key"
        made: dict[str, Any] = {"algorithm": algorithm, "issuer": str(issuer), held: str(material)}
        try:
            tokens.Issuer("", algorithm, str(material).encode()).check()
        except ValueError as error:
            self.found.note(at, f"not carried over: {error}")
            return
        if len(self.issuers) >= _MOST_ISSUERS:
            made["enabled"] = False
            self.found.note(at, f"is off: at most {_MOST_ISSUERS} issuers can be on")
        self.issuers[name_of(consumer, self.issuers, "issuer")] = made
        text = "became an issuer: its tokens are known by their sub, and carry roles and scopes themselves"
        self.found.note(at, text + ("; the secret stands in the file" if held == "secret" else ""))
        self.found.leftover(values, {"key", "algorithm", "secret", "rsa_public_key"} | META, at)

    def _consumer_plan(self, name: str) -> None:
        for plugin, (at, config) in self._attachments.of(("consumer", name)).items():
            made = kong_plugins.limits(config, at, self.found) if plugin == "rate-limiting" else {}
            if made:
                plan = name_of(f"consumer-{name}", self.plans, "plan")
                self.plans[plan], self.keys[name]["plan"] = made, plan
                self.found.note(at, "became the consumer's plan, which counts beside the limits of routes")
            elif plugin != "rate-limiting":
                self.found.note(at, f"{plugin} of a consumer is not carried over")
                if kong_plugins.may_keep_out(plugin):
                    self._shut.add(name)
