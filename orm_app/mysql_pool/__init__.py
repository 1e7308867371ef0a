"""Django's MySQL backend over mysqlclient, with a pool (ENGINE "orm_app.mysql_pool", OPTIONS["pool"]).

options → pool (lends and takes back) → driver (connect, check, reset) → base (Django's connection)
"""
