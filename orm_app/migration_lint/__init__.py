"""What a migration would do to a running site: operation → change → the rules of a dialect → findings with a rewrite.

    Django operations ─ operations.py ─┐
                                       ├→ Change → rules/{any,postgresql,mysql,sqlite} → Finding
    raw SQL ─────────── sql.py ────────┘

Everything but operations.py is pure. A table that the same migration makes is empty and unused: no rule about locks or
running code applies to it.
"""
