"""A package without files: its modules are the declared migrations, by Python's own import hooks."""

from orm_app.sql_app import finder

__path__ = [finder.PATH]
finder.install()
