from django.db import migrations


class Migration(migrations.Migration):
    """Upstreams are called services, as in every other gateway."""

    dependencies = [("gateway", "0001_initial")]

    operations = [
        migrations.RemoveConstraint("upstream", "gateway_upstream_strategy_known"),
        migrations.RemoveConstraint("upstream", "gateway_upstream_failures_positive"),
        migrations.RemoveConstraint("upstream", "gateway_upstream_cooldown_positive"),
        migrations.RemoveConstraint("target", "gateway_target_once_per_upstream"),
        migrations.RenameModel("Upstream", "Service"),
        migrations.RenameField("target", "upstream", "service"),
        migrations.RenameField("route", "upstream", "service"),
    ]
