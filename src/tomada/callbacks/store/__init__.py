"""All SQL of the callbacks, one module per concern; nothing else in the domain speaks SQL.

recording: events in. taking: lanes taken and renewed. settling, delivered: what came of them. reading: what /v1 shows.
replaying: events sent again. upkeep: retention, erasure, figures.

A queue's statistics lie: taken while it was empty, they say so of a backlog of a million, and PostgreSQL then reads all
of it where it should look up one row. So whatever looks a callback or a dead letter up from another table does it in
a subquery that ends in `offset 0`, which cannot be turned into a join; rows found so are changed by their `ctid`.

Locks are taken in one order everywhere, so that writers wait for each other instead of deadlocking: instance rows by
id, then a replay's row and the events that it queues, then lane rows by (instance, URL). Retention waits for nobody.
"""
