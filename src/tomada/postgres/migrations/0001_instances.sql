-- The ground: the lifecycle's clock, accounts, instances, their sessions, and the messages waiting to be sent.
-- Times are epoch milliseconds (`_ms`). Ids are opaque text, as the wire shows them.

-- Lifecycle time (trial, subscription, deletion) is read through this function alone, so that the sandbox can move
-- it. Leases, retries and log times use real time and never move.
create table lifecycle_clock (
    only_row boolean primary key default true check (only_row),
    offset_ms bigint not null default 0
);
insert into lifecycle_clock default values;

create function real_now_ms() returns bigint language sql volatile as
$$ select (extract(epoch from clock_timestamp()) * 1000)::bigint $$;

create function lifecycle_now_ms() returns bigint language sql volatile as
$$ select (extract(epoch from clock_timestamp()) * 1000)::bigint + offset_ms from lifecycle_clock $$;

-- An integrator. Tokens are looked up by hash and kept sealed, because the wire must show some of them again.
create table account (
    id text primary key,
    name text not null,
    created_ms bigint not null default lifecycle_now_ms(),
    partner_token_hash bytea not null unique,
    partner_token_sealed bytea not null,
    client_token_hash bytea unique,               -- null: the Client-Token feature is off
    client_token_sealed bytea,
    signing_secret_sealed bytea not null,
    instances_max integer not null default 25 check (instances_max >= 0),
    instances_live integer not null default 0,    -- in trial, active or in cancellation; see instance_live below
    check ((client_token_hash is null) = (client_token_sealed is null))
);

-- A rented WhatsApp connection. Its row is the only referee of the lifecycle.
create table instance (
    id text primary key,
    account_id text not null references account (id),
    token_hash bytea not null,
    token_sealed bytea not null,
    name text not null,
    session_name text not null,
    state text not null default 'trial'
        check (state in ('trial', 'active', 'in_cancellation', 'canceled', 'expired', 'deleted')),
    created_ms bigint not null,
    due_ms bigint not null,
    epoch integer not null default 1,             -- fence: grows whenever the instance gets or loses its machine
    delivery_callback_url text,
    received_callback_url text,
    received_and_delivery_callback_url text,
    disconnected_callback_url text,
    connected_callback_url text,
    message_status_callback_url text,
    presence_chat_callback_url text,
    notify_sent_by_me boolean not null default false,
    call_reject_auto boolean not null default false,
    call_reject_message text,
    auto_read_message boolean not null default false,
    auto_read_status boolean not null default false,
    is_device boolean not null default false,
    business_device boolean not null default false,
    enqueue_when_disconnected boolean not null default true,
    event_number bigint not null default 0        -- the number of the instance's latest event
);
create index instance_by_account on instance (account_id, created_ms desc, id);
create index instance_by_due on instance (due_ms) where state in ('trial', 'in_cancellation');

-- account.instances_live follows every change of state. Inserting is not here: the statement that creates an instance
-- raises the count itself, under the condition that the limit allows it, which is what makes the limit hold in a race.
create function instance_live() returns trigger language plpgsql as
$$
declare
    was boolean := old.state in ('trial', 'active', 'in_cancellation');
    is_now boolean := tg_op = 'UPDATE' and new.state in ('trial', 'active', 'in_cancellation');
begin
    if was <> is_now then
        update account set instances_live = instances_live + case when is_now then 1 else -1 end
        where id = old.account_id;
    end if;
    return null;
end
$$;
create trigger instance_live_state after update of state on instance
    for each row when (old.state <> new.state) execute function instance_live();
create trigger instance_live_delete after delete on instance for each row execute function instance_live();

-- What is known of an instance's live connection; written only by the node that hosts it.
create table session (
    instance_id text primary key references instance (id) on delete cascade,
    wanted boolean not null default false,        -- a paired session that should be connected
    condition text not null default 'unpaired' check (condition in (
        'unpaired', 'connecting', 'connected', 'disconnected', 'logged_out', 'replaced', 'banned', 'outdated', 'failed')),
    reason text,                                  -- words for a person: why it is in this condition
    phone text,
    lid text,
    push_name text,
    is_business boolean not null default false,
    platform text,                                -- the phone's: android, iphone, smba, smbi
    retry_after_ms bigint,                        -- a temporary ban's end
    changed_ms bigint not null default real_now_ms()
);
create index session_wanted on session (instance_id) where wanted;

-- An accepted send. `sending` means it was given to the engine and its outcome is not known yet.
create table outgoing_message (
    instance_id text not null references instance (id) on delete cascade,
    number bigint generated always as identity,
    zaap_id text not null,
    message_id text not null,                     -- ours, shown on the wire
    wa_id text,                                   -- WhatsApp's, known once sent
    chat text not null,                           -- digits, <id>-group, <id>@lid, <id>@newsletter
    content jsonb not null,                       -- an engine.port Content
    delay_s real,                                 -- pause before it; null: the server's default
    state text not null default 'queued' check (state in ('queued', 'sending', 'sent', 'failed', 'cancelled')),
    attempts integer not null default 0,
    error text,
    created_ms bigint not null default real_now_ms(),
    settled_ms bigint,
    primary key (instance_id, number)
);
create index outgoing_message_waiting on outgoing_message (instance_id, number) where state in ('queued', 'sending');
create unique index outgoing_message_by_message_id on outgoing_message (instance_id, message_id);
create unique index outgoing_message_by_zaap_id on outgoing_message (instance_id, zaap_id);
create index outgoing_message_by_wa_id on outgoing_message (instance_id, wa_id) where wa_id is not null;
