-- The machine in Go: ids are chosen by us, events are acknowledged after our commit, keys lie in the schema `machine`.

-- A message's id is WhatsApp's from here on, so wa_id is set only where an older version sent it under another one.
-- What an older version was sending, or had tried to send, has an outcome that nobody can tell, under an id that nobody chose:
-- its attempts are used up, so it fails in words instead of going out twice. An outcome that a journal still holds is
-- settled before that (upgrade.py).
update outgoing_message set attempts = 1000 where state in ('queued', 'sending') and attempts > 0;

-- Events that our own code could not handle or does not know, as a machine told them.
create table quarantined_event (
    id bigint generated always as identity primary key,
    instance_id text not null references instance (id) on delete cascade,
    at_ms bigint not null default real_now_ms(),
    error text not null,
    event bytea not null
);
create index quarantined_event_by_instance on quarantined_event (instance_id, id);
