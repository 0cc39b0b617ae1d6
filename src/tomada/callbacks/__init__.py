"""Callbacks that nobody loses: what happens to an instance is recorded, then delivered in order to its URL.

    record ──▶ event (history) + callback (waiting) ──▶ lane ──▶ dispatcher ──HTTP──▶ URL
                                                          │          └─▶ attempt (history)
                                                          └─▶ dead_letter ──replay──▶ lane

Which guarantee rests on what:

- *Accepted means delivered or dead-lettered*: `record` commits event and callback in one transaction, and a callback
  row goes away only in the transaction that records its delivery or moves it to the dead letters.
- *In order*: a lane is one instance's events to one URL. Its positions are given under the instance's row lock, one
  dispatcher holds a lane at a time (lease and epoch), and it sends one event after the other.
- *At least once, and few duplicates*: a crash repeats what was answered but not yet committed, under the same
  `webhook-id`: at most one batch (dispatcher.BATCH) per lane held.
- *A dead receiver harms nobody*: lanes run side by side, with limits per destination and per account (limits.py).
- *Nothing inside the house can be called*: every request goes through `tomada.kit.egress`, which checks the address at
  the socket.

Modules: targets (which URL), shapes and events (which body), recorder (in), dispatcher with sending, writing, listening
(out), backoff (when again), limits (how much at once), signing (headers), store (all SQL), history and replay (what /v1
shows and repeats), upkeep (retention, erasure), metrics.
"""
