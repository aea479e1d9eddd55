-- Backfills that were asked for by people or sensors, the windows that each holds, and what sensors have looked at.

create table ops.backfills (
    backfill_id text primary key,
    source text not null,
    stream text not null,
    reason text not null,
    cause text not null default '',
    title text not null,
    state text not null default 'requested'
        check (state in ('requested', 'running', 'paused', 'cancelling', 'cancelled', 'finished', 'failed')),
    message text not null default '',
    priority integer not null default -10,
    windows_per_day integer check (windows_per_day > 0),
    rows_per_day bigint check (rows_per_day > 0),
    requests_per_day bigint check (requests_per_day > 0),
    actor text not null default current_user,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    ended_at timestamptz,
    constraint backfills_ended check ((state in ('cancelled', 'finished', 'failed')) = (ended_at is not null))
);
create index backfills_open on ops.backfills (source, stream) where ended_at is null;
create index backfills_by_stream on ops.backfills (source, stream, reason, created_at desc);
comment on table ops.backfills is 'One row a backfill; backfill_id is Dagster''s too. cause: what a sensor found, '
    'e.g. a schema version; a cause is acted on once for each window.';

create table ops.backfill_windows (
    backfill_id text not null references ops.backfills (backfill_id) on delete cascade,
    source text not null,
    stream text not null,
    partition text not null,
    window_start timestamptz not null,
    window_end timestamptz not null,
    is_open boolean not null default true,
    primary key (backfill_id, partition)
);
create unique index backfill_windows_open on ops.backfill_windows (source, stream, partition) where is_open;
create index backfill_windows_by_time on ops.backfill_windows (source, stream, window_start);
comment on table ops.backfill_windows is 'The windows of a backfill. While it is open no other backfill takes them.';

create table ops.backfill_marks (
    reason text not null,
    source text not null,
    stream text not null,
    mark text not null,
    updated_at timestamptz not null default now(),
    primary key (reason, source, stream)
);
comment on table ops.backfill_marks is 'How far a reason has looked; one that cannot be read starts over.';

