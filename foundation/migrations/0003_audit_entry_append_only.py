"""The database itself refuses to change an audit entry. Deleting stays possible: retention needs it."""

from django.db import OperationalError, migrations

TABLE = "foundation_auditentry"
TRIGGER = "audit_entry_append_only"
REFUSAL = "audit entries are append-only"

CREATE = {
    # A later migration that rebuilds the table on SQLite (Django does for most changes) has to make it again.
    "sqlite": [
        f"CREATE TRIGGER {TRIGGER} BEFORE UPDATE ON {TABLE} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    ],
    "postgresql": [
        f"CREATE FUNCTION {TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$",
        f"CREATE TRIGGER {TRIGGER} BEFORE UPDATE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION {TRIGGER}()",
    ],
    "mysql": [
        f"CREATE TRIGGER {TRIGGER} BEFORE UPDATE ON {TABLE} FOR EACH ROW "  # noqa: S608  (our own names)
        f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{REFUSAL}'",
    ],
}
DROP = {
    "sqlite": [f"DROP TRIGGER IF EXISTS {TRIGGER}"],
    "postgresql": [f"DROP TRIGGER IF EXISTS {TRIGGER} ON {TABLE}", f"DROP FUNCTION IF EXISTS {TRIGGER}()"],
    "mysql": [f"DROP TRIGGER IF EXISTS {TRIGGER}"],
}

# MySQL with binary logging wants SUPER for a trigger (1419), and some hosters grant no TRIGGER at all (1142, 1227).
# The models refuse the change there too; only a hand-written UPDATE could do it.
NOT_GRANTED = {1419, 1142, 1227}


def create_trigger(apps, schema_editor):
    for statement in CREATE.get(schema_editor.connection.vendor, []):
        try:
            schema_editor.execute(statement, params=None)
        except OperationalError as error:
            if schema_editor.connection.vendor != "mysql" or error.args[0] not in NOT_GRANTED:
                raise


def drop_trigger(apps, schema_editor):
    for statement in DROP.get(schema_editor.connection.vendor, []):
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("foundation", "0002_role_groups")]

    # atomic=False: MySQL refuses DDL in a transaction; elsewhere the whole migration is one all the same.
    operations = [migrations.RunPython(create_trigger, drop_trigger, atomic=False)]
