from django.core.validators import RegexValidator
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gateway", "0004_names_and_states")]

    operations = [
        migrations.RemoveField("target", "enabled"),
        migrations.AlterField(
            "route",
            "name",
            models.CharField(
                help_text="In metrics and logs; often its path.",
                max_length=200,
                unique=True,
                validators=[
                    RegexValidator(
                        "^[A-Za-z0-9/{][A-Za-z0-9/{}._:*\\[\\]~-]*\\Z",
                        "Letters, digits, and . _ - : / after the first character.",
                    )
                ],
            ),
        ),
    ]
