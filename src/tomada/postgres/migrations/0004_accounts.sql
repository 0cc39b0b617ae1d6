-- Accounts: limits that an operator sets (null: none), and the partner token before the present one, which works on for
-- a while, so that an integrator can change over without an outage. The signing secret needs no column for that: the
-- sealed text holds both secrets (accounts/manage.py).
alter table account
    add column previous_token_hash bytea unique,
    add column previous_token_until_ms bigint,    -- real time
    add check ((previous_token_hash is null) = (previous_token_until_ms is null)),
    alter column created_per_day_max drop not null,
    alter column created_per_day_max drop default,
    alter column messages_per_minute_max drop not null,
    alter column messages_per_minute_max drop default;

-- Nobody set these, and nothing enforced them.
update account set created_per_day_max = null, messages_per_minute_max = null;
