"""Django's SQLite backend with a wait for the write lock that suits short transactions (ENGINE "orm_app.sqlite")."""
