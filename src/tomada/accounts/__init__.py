"""Accounts: the integrators, and who a partner credential belongs to.

    manage.py       create, list, set limits, change secrets, the account made at first start
    partner.py      from the headers of a partner call to its account
    limits.py       limits per minute
    audit.py        the audit log
    idempotency.py  a create that is sent twice makes one instance
    model.py        the published types
    store.py        the SQL

Tokens are random (kit.ids), looked up by SHA-256 and stored sealed (kit.sealing, context `account:<id>`), so a stolen
database without its key shows none. Whoever holds a partner token owns every instance of its account.
"""
