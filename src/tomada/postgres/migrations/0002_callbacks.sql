-- Callbacks: what happened (event), what is still to be delivered (callback, in lanes), what was tried (attempt),
-- what could not be delivered (dead_letter), and what is being sent again (replay).
-- Times are real time (`real_now_ms()`): leases and retries never follow the lifecycle's movable clock.

-- The history of an instance. `number` grows by one per event; it comes from instance.event_number under that row's
-- lock, so the order of numbers is the order of commits. `dedupe_key` makes telling the same thing twice nothing.
create table event (
    instance_id text not null references instance (id) on delete cascade,
    number bigint not null,
    id text not null unique,                      -- the webhook-id of every attempt
    account_id text not null,
    type text not null,
    target text not null,                         -- which of the instance's URLs it is for (callbacks.types.Target)
    payload text not null,                        -- the body, byte for byte
    created_ms bigint not null default real_now_ms(),
    dedupe_key text collate "C" not null,         -- in the order of its bytes, so that a prefix is a range everywhere
    primary key (instance_id, number),
    unique (instance_id, dedupe_key)
);
create index event_by_time on event using brin (created_ms);  -- for retention

-- The ordered stream of one instance's events to one URL.
-- A lease is nothing but a due time in the future plus an epoch: a dispatcher that takes a lane moves `due_ms` and
-- `not_before_ms` to the lease's end and adds one to `lease_epoch`; if it dies, the lane is simply due again then, and
-- if it lives on, what it writes under the old epoch changes nothing.
create table lane (
    id bigint generated always as identity primary key,
    instance_id text not null references instance (id) on delete cascade,
    account_id text not null,
    url text not null,
    destination text not null,                    -- host:port, for limits per destination
    due_ms bigint,                                -- when it may be taken; null: nothing to deliver, or disabled
    not_before_ms bigint not null default 0,      -- a new event cannot make it due earlier: lease, Retry-After, probing
    lease_epoch bigint not null default 0,
    last_position bigint not null default 0,      -- of the newest callback ever put into it; positions have no gaps
    done_position bigint not null default 0,      -- up to here everything is settled, or set aside
    failing_since_ms bigint,                      -- first failure since the last success
    disabled_ms bigint,
    disabled_reason text,
    last_error text,
    created_ms bigint not null default real_now_ms(),
    unique (instance_id, url),
    check (disabled_ms is null or due_ms is null),
    check ((disabled_ms is null) = (disabled_reason is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
create index lane_due on lane (due_ms) where due_ms is not null;
create index lane_disabled on lane (id) where disabled_ms is not null;
create index lane_by_account on lane (account_id, id);

-- An event that is still to be delivered. The first position after lane.done_position is the lane's head.
create table callback (
    lane_id bigint not null references lane (id) on delete cascade,
    position bigint not null,
    instance_id text not null,
    event_number bigint not null,
    attempts integer not null default 0,
    failing_since_ms bigint,                      -- its first failure
    aside_due_ms bigint,                          -- it gave way to later events, and is due again by itself then
    replay boolean not null default false,        -- sent again on demand, so perhaps after later events
    primary key (lane_id, position)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);  -- rows come and go all the time
create index callback_aside on callback (lane_id, position) where aside_due_ms is not null;
create index callback_by_event on callback (instance_id, event_number);

-- What was tried: one row per request. Never holds a body or a header of the answer.
create table attempt (
    instance_id text not null references instance (id) on delete cascade,
    event_number bigint not null,
    lane_id bigint not null,
    position bigint not null,
    n integer not null,
    at_ms bigint not null,
    status integer,                               -- null: no answer
    duration_ms integer not null,
    error text,                                   -- null: delivered
    primary key (instance_id, event_number, lane_id, position, n)
);
create index attempt_by_time on attempt using brin (at_ms);

-- An event whose attempts are used up, or whose URL was disabled. It stays until replayed, purged or past retention.
create table dead_letter (
    lane_id bigint not null references lane (id) on delete cascade,
    position bigint not null,
    instance_id text not null,
    event_number bigint not null,
    account_id text not null,
    attempts integer not null,
    died_ms bigint not null default real_now_ms(),
    reason text not null,
    primary key (lane_id, position)
);
create index dead_letter_by_event on dead_letter (instance_id, event_number);
create index dead_letter_by_lane on dead_letter (account_id, lane_id, position);  -- the order in which they are shown
create index dead_letter_by_time on dead_letter (died_ms);

-- A request to send events again, worked off in small steps from `after_number` on, so that it survives a restart and
-- needs no upper limit.
create table replay (
    id text primary key,
    account_id text not null,
    instance_id text not null references instance (id) on delete cascade,
    url text,                                     -- null: where each goes by the settings, or where it died
    selection text not null check (selection in ('all', 'missing', 'dead')),
    lane_id bigint,                               -- only the dead letters of this lane; null: of all
    after_number bigint not null,                 -- the last event number already dealt with
    until_number bigint not null,
    since_ms bigint not null default 0,
    queued bigint not null default 0,
    created_ms bigint not null default real_now_ms(),
    finished_ms bigint
);
create index replay_unfinished on replay (created_ms) where finished_ms is null;
