"""Messages to send: accepted durably, sent in order, once.

    accept.py   from a validated call to a row: the 200 is answered only after the commit
    sender.py   one lane per instance: pause, claim the head, give it to the machine, wait for its outcome
    store.py    the SQL

An accepted message is a row in `outgoing_message`. Its states:

    queued ──claim──▶ sending ──outcome──▶ sent | failed
      ▲                  │
      └── not taken, or the machine died before it told an outcome ──┘       cancelled: removed from the queue

Its id is WhatsApp's from the first moment: made here, committed with the row, shown to the caller as `messageId`.

Guarantees, and what each rests on.
- Never lost: the row is committed before the caller hears 200, and only an outcome moves it out of queued/sending.
- Order: one lane per instance, which does not claim the next message before the present one is settled.
- Once: `sending` is committed before the machine hears of the message. One whose outcome is not known (a crash, a
  break, no answer) goes again under the *same* id and in its place in the order, at most ATTEMPTS_MAX times: WhatsApp's
  clients show a message that they have already under that id no second time. A machine that tells no outcome is not
  taken for one that has sent nothing: its session is closed and opened anew.
"""
