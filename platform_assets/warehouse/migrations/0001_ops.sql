-- The platform's own tables. Owned by the administrator; the loader writes, the transformer and the reader see
-- ops.syncs, ops.schema_versions and ops.usage only.

create table ops.leases (
    source text not null,
    stream text not null,
    epoch bigint not null default 0,
    sync_id uuid,
    taken_at timestamptz not null default now(),
    primary key (source, stream)
);
comment on table ops.leases is 'One row a stream: the fencing epoch of its only writer.';

create table ops.syncs (
    sync_id uuid primary key,
    source text not null,
    stream text not null,
    kind text not null,
    trigger text not null check (trigger in ('manual', 'schedule', 'sensor', 'backfill', 'cli', 'replay')),
    run_id text,
    epoch bigint not null,
    window_start timestamptz,
    window_end timestamptz,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    heartbeat_at timestamptz not null default now(),
    step text not null default 'start'
        check (step in ('start', 'extract', 'land', 'audit', 'publish', 'finalize', 'done')),
    step_seconds jsonb not null default '{}',
    windows integer not null default 0,
    rows_extracted bigint not null default 0,
    rows_loaded bigint not null default 0,
    rows_updated bigint not null default 0,
    rows_deleted bigint not null default 0,
    rows_deduplicated bigint not null default 0,
    rows_filtered bigint not null default 0,
    rows_quarantined bigint not null default 0,
    received_bytes bigint not null default 0,
    loaded_bytes bigint not null default 0,
    requests bigint not null default 0,
    wait_seconds double precision not null default 0,
    peak_memory_bytes bigint not null default 0,
    state_before jsonb,
    state_after jsonb,
    newest_cursor text,
    schema_version integer,
    load_ids text[] not null default '{}',
    verdicts jsonb not null default '[]',
    status text not null default 'running' check (status in (
        'running', 'succeeded', 'succeeded_empty', 'succeeded_with_warnings', 'failed', 'cancelled'
    )),
    failure_class text check (failure_class in (
        'config', 'auth', 'rate_limited', 'transient', 'source', 'contract', 'resource', 'loader', 'cancelled'
    )),
    message text,
    constraint syncs_rows_balance
        check (rows_extracted = rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined),
    constraint syncs_failed_has_class check ((status in ('failed', 'cancelled')) = (failure_class is not null)),
    constraint syncs_finished check ((status = 'running') = (finished_at is null))
);
create index syncs_by_stream on ops.syncs (source, stream, started_at desc);
create index syncs_running on ops.syncs (status) where status = 'running';
comment on table ops.syncs is 'The ledger: one row a sync. rows_loaded counts every row that reached the raw table, '
    'new and updated; rows_updated and rows_deleted are parts of it.';

create table ops.stream_state (
    state_id bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    version bigint not null,
    state jsonb not null,
    engine text not null,
    sync_id uuid references ops.syncs (sync_id),
    reason text not null default 'sync' check (reason in ('sync', 'rewind', 'reset', 'undo', 'import')),
    actor text not null default current_user,
    size_bytes integer not null,
    committed_at timestamptz not null default now(),
    unique (source, stream, version)
);
comment on table ops.stream_state is 'Every committed state of every stream; the greatest version is the current one.';

create table ops.schema_versions (
    source text not null,
    stream text not null,
    version integer not null,
    columns jsonb not null,
    diff jsonb not null default '[]',
    decision text not null default 'first'
        check (decision in ('first', 'evolved', 'pending', 'accepted', 'blocked')),
    reason text,
    actor text not null default current_user,
    sync_id uuid references ops.syncs (sync_id),
    first_seen_at timestamptz not null default now(),
    decided_at timestamptz,
    primary key (source, stream, version)
);
comment on table ops.schema_versions is 'Every observed schema of every stream, with its difference and decision.';

create table ops.quarantine (
    quarantine_id bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    sync_id uuid not null references ops.syncs (sync_id),
    reason text not null,
    field text,
    payload text not null,
    payload_sha256 text not null,
    position text not null,
    schema_version integer,
    status text not null default 'held' check (status in ('held', 'replayed', 'discarded')),
    resolved_by uuid references ops.syncs (sync_id),
    created_at timestamptz not null default now(),
    resolved_at timestamptz
);
create index quarantine_held on ops.quarantine (source, stream, status);

create table ops.rate_pools (
    pool text primary key,
    tokens double precision not null,
    refilled_at timestamptz not null default now(),
    blocked_until timestamptz,
    breaker text not null default 'closed' check (breaker in ('closed', 'open', 'half_open')),
    failures integer not null default 0,
    opened_at timestamptz,
    remaining bigint,
    resets_at timestamptz,
    updated_at timestamptz not null default now()
);
comment on table ops.rate_pools is 'Token buckets and breakers that every process shares.';

create table ops.webhook_inbox (
    delivery_id text not null,
    source text not null,
    event_type text not null,
    body bytea not null,
    headers jsonb not null default '{}',
    received_at timestamptz not null default now(),
    sequence bigint generated always as identity,
    primary key (source, delivery_id)
);
create unique index webhook_inbox_sequence on ops.webhook_inbox (sequence);

create table ops.usage (
    day date not null,
    source text not null,
    stream text not null,
    syncs bigint not null default 0,
    requests bigint not null default 0,
    received_bytes bigint not null default 0,
    loaded_bytes bigint not null default 0,
    rows_loaded bigint not null default 0,
    busy_seconds double precision not null default 0,
    wait_seconds double precision not null default 0,
    primary key (day, source, stream)
);
