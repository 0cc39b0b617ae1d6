"""Instances: rented WhatsApp connections. The instance row is the only referee of the lifecycle.

    create.py     the call of the seed page: a row with its due time, within the account's limit
    authorize.py  from id, token and Client-Token of a call to the instance, if its state allows the call
    configure.py  name, callback URLs and switches
    listing.py    pages of an account's instances
    model.py      the published types
    store.py      the SQL

Guarantees, and what each rests on.
- Never over the limit: `account.instances_live` is raised by the creating statement itself, under its condition; every
  other change of state moves it by a trigger.
- Never used after its time: `overdue` is computed by the same clock and the same statement that reads the row, so an
  instance stops at `due` even if the sweep that expires it comes later.
- Tokens are looked up by hash and stored sealed with the context `instance:<id>`.
"""
