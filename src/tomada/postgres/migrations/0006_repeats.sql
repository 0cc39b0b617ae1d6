-- Callbacks count their attempts before they are made: what a lease was taken for and never settled may have been sent.
alter table lane
    add column unsettled integer not null default 0,         -- leases in a row of which nothing was written back
    add column offered_position bigint not null default 0;   -- up to here those leases may have sent
