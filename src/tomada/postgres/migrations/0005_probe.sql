-- The one row that a running server writes once a second, to know whether the database takes writes (postgres/health.py).
create table database_probe (
    only_row boolean primary key default true check (only_row),
    written_ms bigint not null
) with (fillfactor = 10);  -- each write stays on its page and touches no index
