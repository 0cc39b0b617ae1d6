"""All SQL of the callbacks, one module per concern; nothing else in the domain speaks SQL.

recording: events in. taking: lanes taken and renewed. settling, delivered: what came of them. reading: what /v1 shows.
replaying: events sent again. upkeep: retention, erasure, figures.

Locks are taken in one order everywhere, so that writers wait for each other instead of deadlocking: instance rows by
id, then a replay's row and the events that it queues, then lane rows by (instance, URL). Retention waits for nobody.
"""
