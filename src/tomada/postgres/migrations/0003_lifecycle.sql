-- The lifecycle: what the sweepers need of an instance, deletions with their steps, suspension and limits of accounts,
-- the audit log, and the keys that make creating idempotent.

alter table account
    add column suspended_until_ms bigint,         -- not null: it does not pay; its instances end at this time
    add column created_per_day_max integer not null default 1000 check (created_per_day_max >= 0),
    add column messages_per_minute_max integer not null default 600 check (messages_per_minute_max >= 0);

alter table instance
    add column revision integer not null default 0,  -- grows with every change of the lifecycle's columns
    add column with_calls boolean not null default false,
    add column ended_ms bigint,                   -- when it lost its machine
    add column retire_ms bigint,                  -- when an ended instance becomes a tombstone
    add column suspended_until_ms bigint,         -- copied from its account, so that this row stays the only referee
    -- When time alone may next decide something (instances/lifecycle.py: next_ms). A sweep reads its index and nothing
    -- else, so its cost depends on what is due, not on what exists.
    add column next_ms bigint generated always as (case
        when state in ('trial', 'active', 'in_cancellation') then least(due_ms, suspended_until_ms)
        when state in ('expired', 'canceled') then retire_ms end) stored;
drop index instance_by_due;
create index instance_by_next on instance (next_ms, id) where next_ms is not null;

-- A deletion, from the change that started it to its receipt (instances/deletion.py).
create table deletion (
    instance_id text not null references instance (id) on delete cascade,
    epoch integer not null,                       -- the instance's, after it lost its machine
    account_id text not null references account (id),
    scope text not null check (scope in ('machine', 'instance')),
    cause text not null,
    asked_ms bigint not null default lifecycle_now_ms(),
    done jsonb not null default '[]',             -- the steps that are done: [{step, at_ms, removed, note}]
    partly jsonb not null default '{}',           -- what the current step has removed so far: {table: rows}
    failures integer not null default 0,          -- of the current step, in a row
    number integer not null default 0,            -- of the latest claim: whoever records a step must still hold it
    ready_ms bigint not null default 0,           -- real time: end of the claim's lease, or of the pause after a failure
    not_before_ms bigint not null default 0,      -- lifecycle time
    force_ms bigint,                              -- real time from when the machine goes untold; null: no try failed yet
    forced boolean not null default false,        -- it may have gone untold: noted before it is done
    finished_ms bigint,
    digest text,                                  -- of the receipt; null if a later deletion took this one over
    primary key (instance_id, epoch)
);
create index deletion_waiting on deletion (not_before_ms, ready_ms, instance_id, epoch) where finished_ms is null;

-- The audit log of an account: each row's hash covers the row and the hash before it (accounts/audit.py).
create table audit (
    account_id text not null,                     -- no reference: it outlives what it speaks of
    number bigint not null,
    at_ms bigint not null,
    actor text not null,
    action text not null,
    subject text not null,
    detail text not null,                         -- JSON, kept as the very text that was hashed
    hash bytea not null,
    primary key (account_id, number)
);
-- The end of each chain: writers of one account take turns here, and a log that lost its latest rows is noticed.
create table audit_head (
    account_id text primary key,
    number bigint not null default 0,
    hash bytea not null default '\x'
);

-- Rows are appended in turn and nothing else: the log moves its head, and the head goes nowhere but to the row that
-- follows. Whoever owns the tables can take the triggers away; then verifying is what finds it.
create function audit_is_append_only() returns trigger language plpgsql as
$$ begin raise exception 'the audit log is append-only'; end $$;
create trigger audit_append_only before update or delete on audit
    for each row execute function audit_is_append_only();
create trigger audit_no_truncate before truncate on audit
    for each statement execute function audit_is_append_only();
create trigger audit_head_starts_at_0 before insert on audit_head
    for each row when (new.number <> 0 or new.hash <> '\x') execute function audit_is_append_only();
create trigger audit_head_stays before delete on audit_head
    for each row execute function audit_is_append_only();
create trigger audit_head_no_truncate before truncate on audit_head
    for each statement execute function audit_is_append_only();

create function audit_moves_head() returns trigger language plpgsql as
$$
begin
    update audit_head set number = new.number, hash = new.hash
    where account_id = new.account_id and number = new.number - 1;
    if not found then
        raise exception 'the audit log is append-only: row % is not the next one', new.number;
    end if;
    return null;
end
$$;
create trigger audit_moves_head after insert on audit
    for each row execute function audit_moves_head();

create function audit_head_follows() returns trigger language plpgsql as
$$
begin
    if new.account_id <> old.account_id or new.number <> old.number + 1 or not exists (
        select 1 from audit where account_id = new.account_id and number = new.number and hash = new.hash
    ) then
        raise exception 'the audit log is append-only: its head follows it';
    end if;
    return new;
end
$$;
create trigger audit_head_follows before update on audit_head
    for each row when (new is distinct from old) execute function audit_head_follows();

-- Keys that integrators send with a create (accounts/idempotency.py). Real time: retries do not follow the sandbox.
create table idempotency (
    account_id text not null references account (id) on delete cascade,
    key text not null check (length(key) between 1 and 255),
    request_hash bytea not null,
    claim bigint not null default 1,              -- whoever completes must still hold it
    claimed_ms bigint not null default real_now_ms(),
    completed_ms bigint,
    reply_sealed bytea,                           -- it holds the instance's token
    primary key (account_id, key),
    check ((completed_ms is null) = (reply_sealed is null))
);
create index idempotency_by_age on idempotency (claimed_ms);
