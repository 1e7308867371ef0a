"""Mounted by the site at /api/v1/gateway/. `ref`: the id of a row or its name, which may hold slashes, so that what can
follow it comes first."""

from __future__ import annotations

from django.urls import path

from .api import (
    consumers,
    documents,
    issuers,
    keys,
    plans,
    revisions,
    revoked_tokens,
    routes,
    services,
    settings,
    status,
    targets,
    tester,
    token_cuts,
    tokens,
    traffic,
    transforms,
)

urlpatterns = [
    path("token", tokens.TokenView.as_view(), name="gateway-token"),
    path("token/refresh", tokens.RefreshView.as_view(), name="gateway-token-refresh"),
    path("services", services.ServiceList.as_view(), name="gateway-services"),
    path("services/<path:ref>/targets", targets.ServiceTargets.as_view(), name="gateway-service-targets"),
    path("services/<path:ref>", services.ServiceDetail.as_view(), name="gateway-service"),
    path("targets", targets.TargetList.as_view(), name="gateway-targets"),
    path("targets/<int:ref>", targets.TargetDetail.as_view(), name="gateway-target"),
    path("targets/<int:ref>/on", targets.TargetState.as_view(state="active"), name="gateway-target-on"),
    path("targets/<int:ref>/off", targets.TargetState.as_view(state="off"), name="gateway-target-off"),
    path(
        "targets/<int:ref>/drain", targets.TargetState.as_view(state="draining"), name="gateway-target-drain"
    ),
    path("routes", routes.RouteList.as_view(), name="gateway-routes"),
    path("routes/<path:ref>", routes.RouteDetail.as_view(), name="gateway-route"),
    path("transforms", transforms.TransformList.as_view(), name="gateway-transforms"),
    path("transforms/<path:ref>", transforms.TransformDetail.as_view(), name="gateway-transform"),
    path("plans", plans.PlanList.as_view(), name="gateway-plans"),
    path("plans/<path:ref>", plans.PlanDetail.as_view(), name="gateway-plan"),
    path("consumers", consumers.ConsumerList.as_view(), name="gateway-consumers"),
    path("consumers/<path:ref>/keys", keys.ConsumerKeys.as_view(), name="gateway-consumer-keys"),
    path("consumers/<path:ref>", consumers.ConsumerDetail.as_view(), name="gateway-consumer"),
    path("keys", keys.KeyList.as_view(), name="gateway-keys"),
    path("keys/<int:ref>", keys.KeyDetail.as_view(), name="gateway-apikey"),
    path("keys/<int:ref>/rotate", keys.KeyRotate.as_view(), name="gateway-apikey-rotate"),
    path("keys/<int:ref>/revoke", keys.KeyRevoke.as_view(), name="gateway-apikey-revoke"),
    path("issuers", issuers.IssuerList.as_view(), name="gateway-issuers"),
    path("issuers/<path:ref>", issuers.IssuerDetail.as_view(), name="gateway-jwtissuer"),
    path("revoked-tokens", revoked_tokens.RevokedTokenList.as_view(), name="gateway-revokedtokens"),
    path(
        "revoked-tokens/<int:ref>", revoked_tokens.RevokedTokenDetail.as_view(), name="gateway-revokedtoken"
    ),
    path("token-cuts", token_cuts.TokenCutList.as_view(), name="gateway-tokencuts"),
    path("token-cuts/<int:ref>", token_cuts.TokenCutDetail.as_view(), name="gateway-tokencut"),
    path("settings", settings.SettingsView.as_view(), name="gateway-settings"),
    path("revisions", revisions.RevisionList.as_view(), name="gateway-revisions"),
    path("revisions/<int:version>", revisions.RevisionDetail.as_view(), name="gateway-revision"),
    path("revisions/<int:version>/rollback", revisions.Rollback.as_view(), name="gateway-rollback"),
    path("status", status.StatusView.as_view(), name="gateway-status"),
    path("test", tester.TesterView.as_view(), name="gateway-test"),
    path("traffic", traffic.TrafficView.as_view(), name="gateway-traffic"),
    path("export", documents.ExportView.as_view(), name="gateway-export"),
    path("apply", documents.ApplyView.as_view(), name="gateway-apply"),
]
