-- Pools of fixed windows and of concurrent requests, whose failures a breaker counts, and tokens that processes share.
alter table ops.rate_pools
    add column is_fixed boolean not null default false,
    add column concurrent integer check (concurrent > 0),
    add column slots jsonb not null default '{}',
    add column failing text[] not null default '{}';

comment on column ops.rate_pools.is_fixed is 'The quota is full again at every multiple of per_seconds since 1970 UTC.';
comment on column ops.rate_pools.slots is
    'Requests under way where `concurrent` bounds them: id to the moment (seconds since 1970) when it is over for sure.';
comment on column ops.rate_pools.failing is
    'Up to two streams whose requests failed in a row; one alone does not stop the others.';

create table ops.tokens (
    name text primary key,
    sealed bytea not null,
    updated_at timestamptz not null default now()
);
comment on table ops.tokens is 'OAuth tokens of sources, encrypted with HEADWATER_SECRET_KEY; the row is locked while one is renewed.';
