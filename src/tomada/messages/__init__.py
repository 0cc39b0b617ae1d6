"""Messages to send: accepted durably, sent in order, once.

    accept.py   from a validated call to a row: the 200 is answered only after the commit
    sender.py   one lane per instance: pause, claim the head, give it to the machine, wait for its outcome
    store.py    the SQL

An accepted message is a row in `outgoing_message`. Its states:

    queued ──claim──▶ sending ──outcome──▶ sent | failed
      ▲                  │
      └── not taken, or the machine died before it told an outcome ──┘       cancelled: removed from the queue

Guarantees, and what each rests on.
- Never lost: the row is committed before the caller hears 200, and only an outcome told by the engine (kept in the
  machine's journal until we committed it) moves it out of queued/sending.
- Order: one lane per instance, which does not claim the next message before the present one is settled.
- Once: `sending` is committed before the engine hears of the message. A message found in `sending` when a session is
  opened anew, after the old machine's journal was read to its end, has an unknown outcome: it may have left in the
  moment of the crash. It is sent again, at most ATTEMPTS_MAX times; duplicates are possible here and nowhere else. A
  machine that tells no outcome is not taken for one that has sent nothing: its session is closed and opened anew.
"""
