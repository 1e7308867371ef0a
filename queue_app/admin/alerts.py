"""The admin pages of alerts: what fires and has fired, the rules, the silences and the notices."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.forms import CharField, ChoiceField, Form, ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, RoleModelAdmin, as_json, asking, done
from queue_app import alert_rules, alerts_told, clock, notice_channels, notices, silences
from queue_app.alerts import State
from queue_app.models import Alert, AlertRule, Notice, Silence

from .cells import once

_COLOURS = {"firing": "danger", "pending": "warning", "resolved": "success"}
_SPANS = [("3600", "1 hour"), ("14400", "4 hours"), ("86400", "1 day"), ("604800", "1 week")]


class SilenceForm(BaseDialogForm):
    for_s = ChoiceField(label="For", choices=_SPANS, widget=UnfoldAdminSelectWidget)
    reason = CharField(max_length=200, widget=UnfoldAdminTextInputWidget)


class RuleForm(ModelForm):
    class Meta:
        model = AlertRule
        fields = ["name", *alert_rules.EDITABLE]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if self.errors:
            return values
        name = values.get("name", self.instance.name)  # read-only on an existing one
        try:
            alert_rules.examine(name, **{field: values[field] for field in alert_rules.EDITABLE})
        except alert_rules.BadRule as error:
            for field, told in error.errors.items():
                self.add_error(field if field in self.fields else None, told)
        return values


@admin.register(Alert)
class AlertAdmin(ReadOnlyModelAdmin):
    when_empty = "Nothing has fired. The rules say when something does."
    list_display = [
        "rule_name",
        "badge",
        "queue_or_none",
        "words",
        "since",
        "fired_at",
        "resolved_at",
        "notices",
    ]
    list_filter = ["state", "condition"]
    list_filter_submit = False
    search_fields = ["name", "queue"]
    search_help_text = "Part of a rule's or a queue's name"
    fields = [
        ("rule_name", "badge"), ("queue_or_none", "condition"), ("value", "words"), ("since", "fired_at"),
        ("calm_since", "resolved_at"), ("told_at", "notices"), "quiet",
    ]  # fmt: skip
    readonly_fields = [name for row in fields for name in ([row] if isinstance(row, str) else row)]
    actions_list = ["to_rules", "to_silences", "to_notices"]
    list_before_template = "admin/queue_app/alert/told.html"
    actions_detail = ["silence_this", "unsilence_this"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        told = {
            "channels": [one.name for one in notice_channels.channels()],
            "looked_at": alerts_told.looked_at(),
            "given_up": notices.given_up(),
        }
        return super().changelist_view(request, {**(extra_context or {}), **told})

    @display(description="rule", ordering="name")
    def rule_name(self, alert: Alert) -> str:
        return alert.name

    @display(description="state", ordering="state", label=_COLOURS)
    def badge(self, alert: Alert) -> str:
        return alert.state

    @display(description="queue", ordering="queue")
    def queue_or_none(self, alert: Alert) -> str:
        return alert.queue or "-"

    @display(description="silenced")
    @once
    def quiet(self, alert: Alert) -> str:
        rows = silences.covering(alert)
        return (
            "; ".join(f"until {row.until:%Y-%m-%d %H:%M} by {row.actor}: {row.reason}" for row in rows) or "-"
        )

    @action(
        description="Silence",
        permissions=["operate"],
        icon="notifications_off",
        dialog=asking(
            "Silence this alert?",
            "Its rule tells nobody about its queue for this time. It fires all the same.",
            "Silence it",
            SilenceForm,
        ),
    )
    def silence_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        asked = {"for_s": float(form.cleaned_data["for_s"]), "reason": form.cleaned_data["reason"]}
        alert = get_object_or_404(Alert, pk=object_id)
        try:
            silences.silence_alert(alert, **asked, **audit.by(request, "admin"))
            self.message_user(request, "Silenced.", messages.SUCCESS)
        except (silences.Over, silences.BadSilence) as error:
            self.message_user(request, str(error), messages.ERROR)
        return done(request, reverse("admin:queue_app_alert_change", args=[object_id]))

    @action(
        description="End silence",
        permissions=["operate"],
        icon="notifications",
        dialog=asking(
            "End what silences this alert?",
            "Every silence that covers it ends; whoever was not told is told.",
            "End it",
        ),
    )
    def unsilence_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        for row in silences.covering(get_object_or_404(Alert, pk=object_id)):
            silences.end(row, **audit.by(request, "admin"))
        self.message_user(request, "Ended.", messages.SUCCESS)
        return done(request, reverse("admin:queue_app_alert_change", args=[object_id]))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        alert = Alert.objects.filter(pk=object_id).exclude(state=State.RESOLVED).first()
        if alert is None:
            return []
        absent = "silence_this" if silences.covering(alert) else "unsilence_this"
        found = super().get_actions_detail(request, object_id)
        return [one for one in found if not one.action_name.endswith(f"_{absent}")]

    @action(description="Rules", permissions=["view"], icon="rule")
    def to_rules(self, request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:queue_app_alertrule_changelist"))

    @action(description="Silences", permissions=["view"], icon="notifications_off")
    def to_silences(self, request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:queue_app_silence_changelist"))

    @action(description="Notices", permissions=["view"], icon="outgoing_mail")
    def to_notices(self, request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:queue_app_notice_changelist"))


@admin.register(AlertRule)
class AlertRuleAdmin(RoleModelAdmin):
    form = RuleForm
    when_empty = "Where there is no rule, nothing fires."
    list_display = [
        "name",
        "status",
        "condition",
        "queue_or_every",
        "threshold",
        "for_s",
        "clear_s",
        "repeat_s",
    ]
    list_filter = ["enabled", "condition"]
    list_filter_submit = False
    fieldsets = [
        (None, {"fields": ["name", "enabled"]}),
        ("When", {"fields": [("condition", "queue"), "threshold", ("window_s", "at_least"), ("for_s", "clear_s")]}),
        ("Who is told how often", {"fields": ["repeat_s"]}),
    ]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: AlertRule | None = None) -> list[str]:
        return [] if obj is None else ["name"]

    @display(description="status", label={"on": "success", "off": "warning"})
    def status(self, rule: AlertRule) -> str:
        return "on" if rule.enabled else "off"

    @display(description="queue", ordering="queue")
    def queue_or_every(self, rule: AlertRule) -> str:
        return rule.queue or "every"

    def save_model(self, request: HttpRequest, obj: AlertRule, form: ModelForm, change: bool) -> None:
        fields = {name: form.cleaned_data[name] for name in alert_rules.EDITABLE}
        trace = audit.by(request, "admin")
        if change:
            alert_rules.change(obj, **fields, **trace)
        else:
            obj.__dict__.update(alert_rules.create(obj.name, **fields, **trace).__dict__)

    def delete_model(self, request: HttpRequest, obj: AlertRule) -> None:
        alert_rules.delete(obj, **audit.by(request, "admin"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AlertRule]) -> None:
        for rule in queryset:
            alert_rules.delete(rule, **audit.by(request, "admin"))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Its silences go with it, which nobody may delete by themselves; its alerts stay."""
        names = [str(rule) for rule in objs]
        return names, {"rules": len(names)}, set(), []


@admin.register(Silence)
class SilenceAdmin(ReadOnlyModelAdmin):
    when_empty = "Silences are begun on the page of an alert."
    list_display = ["of", "status", "until", "reason", "actor", "created_at"]
    list_select_related = ["rule"]
    fields = readonly_fields = ["of", "status", "until", "reason", "actor", "created_at"]
    actions = ["end_selected"]

    @display(description="of what")
    def of(self, row: Silence) -> str:
        return str(row)

    @display(description="status", label={"stands": "warning", "over": "info"})
    def status(self, row: Silence) -> str:
        return "stands" if row.until > clock.now() else "over"

    @action(description="End", permissions=["operate"])
    def end_selected(self, request: HttpRequest, queryset: QuerySet[Silence]) -> None:
        for row in queryset.filter(until__gt=clock.now()):
            silences.end(row, **audit.by(request, "admin"))
        self.message_user(request, "Ended.", messages.SUCCESS)


class NoticeStatusFilter(DropdownFilter):
    title, parameter_name = "status", "status"
    _MEANT = {
        "given up": notices.GIVEN_UP,
        "waits": Q(next_at__isnull=False),
        "sent": Q(sent_at__isnull=False),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in self._MEANT]

    def queryset(self, request: HttpRequest, rows: QuerySet[Notice]) -> QuerySet[Notice]:
        return rows.filter(self._MEANT.get(self.value() or "", Q()))


@admin.register(Notice)
class NoticeAdmin(ReadOnlyModelAdmin):
    when_empty = "When an alert fires or is resolved, a notice is written for each channel."
    list_display = ["created_at", "channel", "status", "attempts", "next_at", "sent_at", "last_error"]
    list_filter = ["channel", NoticeStatusFilter]
    list_filter_submit = False
    fields = readonly_fields = [*list_display, "told"]
    actions = ["send_again"]

    @action(description="Send again what was given up", permissions=["operate"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Notice]) -> None:
        count = notices.send_again(queryset, **audit.by(request, "admin"))
        left = queryset.count() - count
        told = f"{count} will be sent again."
        if left:
            told += (
                f" {left} will not: not given up, or the channel was told something later of the same alert."
            )
        self.message_user(request, told, messages.WARNING if left else messages.SUCCESS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Notice]:
        found = super().get_queryset(request)
        is_list = request.resolver_match and request.resolver_match.url_name.endswith("_changelist")
        return found.defer("body") if is_list else found

    @display(description="status", label={"sent": "success", "waits": "warning", "given up": "danger"})
    def status(self, row: Notice) -> str:
        return row.status

    @display(description="body")
    def told(self, row: Notice) -> str:
        return as_json(row.body)
