"""The app label "sql": where Django finds the migrations that `orm_app.Migration(…)` declares."""
